"""From the pixels of a dataset to the numbers of a batch."""

import numba
import numpy as np

from ensync.kernels.options import INNER, KERNEL

SERIAL_BELOW = 1 << 16  # elements; less work than this is done before other threads have started


@numba.njit(**INNER)
def normalize_row(pixels, mean, inverse_std, out):
    """Write (pixels - mean) * inverse_std, where mean repeats along the row."""
    period = mean.size
    if period == 1:
        shift, factor = mean[0], inverse_std[0]
        for i in range(pixels.size):
            out[i] = (pixels[i] - shift) * factor
        return
    for start in range(0, pixels.size, period):
        source, target = pixels[start : start + period], out[start : start + period]
        for i in range(period):
            target[i] = (source[i] - mean[i]) * inverse_std[i]


@numba.njit(parallel=True, **KERNEL)
def gather_normalize(
    images: np.ndarray, rows: np.ndarray, mean: np.ndarray, inverse_std: np.ndarray, out: np.ndarray
) -> None:
    """Write out[i] = (images[rows[i]] - mean) * inverse_std in one pass from bytes to floats.

    images: (N, features) uint8, features = height * width * channels, channels last; rows: (n,)
    int64, unchecked; mean, inverse_std: (period,) in units of pixels, of out's type, where period
    divides features: 1 channel, or the channels repeated over any number of pixels (longer periods
    run faster; a whole image line is plenty); out: (n, features).
    """
    if out.size < SERIAL_BELOW:
        for i in range(rows.size):
            normalize_row(images[rows[i]], mean, inverse_std, out[i])
    else:
        for i in numba.prange(rows.size):
            normalize_row(images[rows[i]], mean, inverse_std, out[i])
