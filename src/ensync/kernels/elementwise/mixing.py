"""Images mixed with their neighbours in a batch."""

import numba
import numpy as np

from ensync.kernels.elementwise.inputs import SERIAL_BELOW
from ensync.kernels.options import INNER, KERNEL

COLUMNS = 256  # values of a row that one thread mixes, row after row


@numba.njit(**INNER)
def _mix_columns(images, before, share, first, last):
    own, other = images.dtype.type(1 - share), images.dtype.type(share)
    for row in range(images.shape[0] - 1, -1, -1):
        target = images[row, first:last]
        source = images[row - 1, first:last] if row else before[first:last]
        for i in range(target.size):
            target[i] = own * target[i] + other * source[i]


@numba.njit(parallel=True, **KERNEL)
def mix_with_previous(images: np.ndarray, before: np.ndarray, share: float) -> None:
    """Mix each row of images (n, features) with the row before it, in place:
    images[i] = (1 - share) images[i] + share images[i - 1].

    before (features,), of the same type: the row before the first.
    """
    width = images.shape[1]
    if images.size < SERIAL_BELOW:
        _mix_columns(images, before, share, 0, width)
    else:
        for part in numba.prange((width + COLUMNS - 1) // COLUMNS):
            first = part * COLUMNS
            _mix_columns(images, before, share, first, min(first + COLUMNS, width))
