"""Arrays that begin on a cache line: vectors that straddle two cost the products a tenth of their speed."""

import numpy as np

LINE = 64   # bytes


def empty(shape: int | tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """Return an array of any values whose first element lies on a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.empty(size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    return room[start : start + size].view(dtype).reshape(shape)


def zeros(shape: int | tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """Return an array of zeros whose first element lies on a cache line."""
    array = empty(shape, dtype)
    array[...] = 0
    return array
