"""Arrays that begin on a cache line (vectors that straddle two cost the products a tenth of their speed), and the scratch that layers share."""

import numpy as np

LINE = 64   # bytes
BF16 = np.dtype(np.uint16)   # of arrays of bf16 numbers, for which numpy has no type; the kernels take uint16 for them
# Bytes of a huge page, and from which numpy asks the system for them (madvise). In pages of 4 KiB, which lie anywhere, a thread's scratch
# meets in some sets of the second cache: a line of depthwise sums took twice its time.
HUGE, ASKED_FROM = 2 << 20, 4 << 20


def empty(shape: int | tuple[int, ...], dtype: np.dtype | type, boundary: int = LINE) -> np.ndarray:
    """Return an array of any values whose first element lies on a cache line, or on another boundary."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.empty(max(size + boundary, ASKED_FROM if boundary == HUGE else 0), np.uint8)
    start = -room.ctypes.data % boundary
    return room[start : start + size].view(dtype).reshape(shape)


def zeros(shape: int | tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """Return an array of zeros whose first element lies on a cache line."""
    array = empty(shape, dtype)
    array[...] = 0
    return array


class Workspace:
    """Scratch that all layers of this process share, because only one of them computes at a time."""

    arrays: dict[np.dtype, np.ndarray] = {}

    @classmethod
    def reserve(cls, size: int, dtype: np.dtype) -> None:
        """Have at least this many elements ready."""
        dtype = np.dtype(dtype)
        if dtype not in cls.arrays or cls.arrays[dtype].size < size:
            cls.arrays[dtype] = empty((size,), dtype, HUGE)

    @classmethod
    def of(cls, dtype: np.dtype) -> np.ndarray:
        """The scratch of this type."""
        return cls.arrays[dtype]
