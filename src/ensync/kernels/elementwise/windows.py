"""Windows over images: which taps lie inside the image."""

from numba import njit

from ensync.kernels.options import INNER


@njit(forceinline=True, **INNER)
def clip_taps(position, stride, padding, taps, size):
    """Return the first tap, the end of the taps that lie inside the image, and the position of
    tap 0.
    """
    origin = position * stride - padding
    return max(0, -origin), min(taps, size - origin), origin
