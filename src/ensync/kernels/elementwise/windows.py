"""Windows over images: which taps lie inside the image, and which windows hold a pixel."""

from numba import njit

from ensync.kernels.options import INNER


@njit(forceinline=True, **INNER)
def clip_taps(position, stride, padding, taps, size):
    """Return the first tap, the end of the taps that lie inside the image, and the position of
    tap 0.
    """
    origin = position * stride - padding
    return max(0, -origin), min(taps, size - origin), origin


@njit(forceinline=True, **INNER)
def reaching(position, stride, padding, taps, outputs):
    """Return first and end of the outputs whose windows hold an input position."""
    first = (position + padding - taps + stride) // stride
    return max(0, first), min(outputs, (position + padding) // stride + 1)
