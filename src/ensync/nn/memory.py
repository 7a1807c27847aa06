"""Arrays that begin on a cache line (vectors that straddle two cost the products a tenth of
their speed), and the scratch that the layers of a network share.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np

LINE = 64  # bytes
# Arrays of bf16 numbers, for which numpy has no type, are arrays of uint16 for the kernels.
BF16 = np.dtype(np.uint16)
# Bytes of a huge page, and bytes of an array from which numpy asks the system for huge pages
# (madvise). Pages of 4 KiB lie anywhere, so that parts of a thread's scratch compete for the same
# sets of the second cache: a line of depthwise sums took twice its time.
HUGE, ASKED_FROM = 2 << 20, 4 << 20
LARGEST = 1 << 62  # bytes of an array that can be counted


class Count:
    """The bytes of the arrays that were asked for."""

    bytes = 0


_count: Count | None = None


@contextmanager
def counted() -> Iterator[Count]:
    """Count the bytes of the arrays that the block asks for, without making them: those that it
    gets have their shape and type, and are read-only views of one number.
    """
    global _count
    before, _count = _count, Count()
    try:
        yield _count
    finally:
        _count = before


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
    """Scratch that layers share because only one of them computes at a time: those of a network,
    or of several networks whose owner gives them the same workspace.

    A layer reserves what it needs when its buffers are made, takes the array when it computes, and
    finds any values in it.
    """

    def __init__(self) -> None:
        self.arrays: dict[np.dtype, np.ndarray] = {}

    def reserve(self, size: int, dtype: np.dtype) -> None:
        """Have at least this many elements ready."""
        dtype = np.dtype(dtype)
        if dtype not in self.arrays or self.arrays[dtype].size < size:
            smaller = self.arrays.pop(dtype, None)
            if _count is not None and smaller is not None:
                _count.bytes -= smaller.nbytes
            del smaller
            self.arrays[dtype] = empty((size,), dtype, HUGE)

    def of(self, dtype: np.dtype) -> np.ndarray:
        """Return the scratch of this type."""
        return self.arrays[dtype]
