"""Arrays that begin on a cache line (vectors that straddle two cost the products a tenth of
their speed), and the scratch that layers share.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np

LINE = 64  # bytes
BF16 = np.dtype(
    np.uint16
)  # of arrays of bf16 numbers, for which numpy has no type; the kernels take uint16 for them
# Bytes of a huge page, and from which numpy asks the system for them (madvise). In pages of 4 KiB,
# which lie anywhere, a thread's scratch meets in some sets of the second cache: a line of depthwise
# sums took twice its time.
HUGE, ASKED_FROM = 2 << 20, 4 << 20


LARGEST = 1 << 62  # bytes that an array may count


class Count:
    """The bytes of the arrays that a block asked for."""

    bytes = 0


_count: Count | None = None


@contextmanager
def counted() -> Iterator[Count]:
    """Count inside the block what is asked for, instead of making it: arrays have their shape
    and type over one number, to be looked at only.
    """
    global _count
    before, _count, kept, Workspace.arrays = _count, Count(), Workspace.arrays, {}
    try:
        yield _count
    finally:
        _count, Workspace.arrays = before, kept


def empty(shape: int | tuple[int, ...], dtype: np.dtype | type, boundary: int = LINE) -> np.ndarray:
    """Return an array of any values whose first element lies on a cache line, or on another
    boundary.
    """
    size = (shape if isinstance(shape, int) else prod(shape)) * np.dtype(dtype).itemsize
    if size > LARGEST:
        raise MemoryError(f"an array of {size} bytes")
    if _count is not None:
        _count.bytes += size
        return np.broadcast_to(np.zeros((), dtype), shape)
    room = np.empty(max(size + boundary, ASKED_FROM if boundary == HUGE else 0), np.uint8)
    start = -room.ctypes.data % boundary
    return room[start : start + size].view(dtype).reshape(shape)


def zeros(shape: int | tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """Return an array of zeros whose first element lies on a cache line."""
    array = empty(shape, dtype)
    if _count is None:
        array[...] = 0
    return array


class Workspace:
    """Scratch that all layers of this process share, because only one of them computes at a
    time.
    """

    arrays: dict[np.dtype, np.ndarray] = {}

    @classmethod
    def reserve(cls, size: int, dtype: np.dtype) -> None:
        """Have at least this many elements ready."""
        dtype = np.dtype(dtype)
        if dtype not in cls.arrays or cls.arrays[dtype].size < size:
            smaller = cls.arrays.pop(dtype, None)
            if _count is not None and smaller is not None:
                _count.bytes -= smaller.nbytes
            del smaller
            cls.arrays[dtype] = empty((size,), dtype, HUGE)

    @classmethod
    def of(cls, dtype: np.dtype) -> np.ndarray:
        """The scratch of this type."""
        return cls.arrays[dtype]
