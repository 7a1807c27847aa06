"""The input gradient of a convolution at a stride, without the zeros between the outputs that a
stride would spread.

An input line y is read by the filter lines ky = y + top (mod stride) only, and a column likewise:
the inputs fall into stride * stride classes, each a convolution at stride 1 with every stride-th
line and column of the filter. One of stride * stride products remains.

Scratch: a class's filters and inputs' gradient, then that of their convolution.
"""

from collections.abc import Callable

import numpy as np
from numba import njit, prange

from ensync.kernels.options import KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.vectors import load, store

LINE = 16  # float32 in a cache line
Convolve = Callable[[np.ndarray, np.ndarray, tuple[int, int], np.ndarray, np.ndarray], None]


@njit(parallel=True, **KERNEL)
def _spread(source, first_line, first_column, stride, target):
    """Write source (n, a, b, c) to every stride-th line and column of target (n, h, w, c)."""
    (n, a, b, c), (h, w), full = source.shape, target.shape[1:3], lanes(source)
    for line in prange(n * a):
        image, y = line // a, line % a * stride + first_line
        for x in range(b):
            given, kept = (
                pointer(source, (line * b + x) * c),
                pointer(target, ((image * h + y) * w + x * stride + first_column) * c),
            )
            for j in range(0, c, full):
                store(kept, j, load(given, j, min(full, c - j)), min(full, c - j))


def class_of(first: int, size: int, stride: int, padding: int) -> tuple[int, int, int]:
    """Return (first tap of the turned filter, padding) of the input lines first, first + stride
    ..., and how many lines they are.

    padding: of the convolution that takes the spread gradient to the inputs' gradient.
    """
    tap = (padding - first) % stride
    return tap, (padding - first - tap) // stride, len(range(first, size, stride))


def sizes(
    image: tuple[int, int, int], weights: tuple[int, int, int, int], stride: int, rows: int
) -> tuple[int, int]:
    """Return the elements of scratch that the filters and the inputs' gradient of the largest
    class take, whole lines.
    """
    (h, w, c), (kh, kw, inputs, k) = image, weights
    found = (
        -(-kh // stride) * -(-kw // stride) * inputs * k,
        rows * -(-h // stride) * -(-w // stride) * c,
    )
    return tuple(-(-size // LINE) * LINE for size in found)


def input_gradient(
    gradient: np.ndarray,
    weights: np.ndarray,
    stride: int,
    padding: tuple[int, int],
    convolve: Convolve,
    scratch: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the gradient of the inputs to out (n, h, w, c); padding = (top, left) of the
    convolution that takes the spread gradient there.

    convolve(gradient, filters, padding, scratch, out): the input gradient at stride 1.
    """
    (n, h, w, c), (kh, kw, _, _) = out.shape, weights.shape
    filters_size, images_size = sizes((h, w, c), weights.shape, stride, n)
    filters, images, rest = np.split(scratch, [filters_size, filters_size + images_size])
    for first_line in range(min(stride, h)):
        top, down, lines = class_of(first_line, h, stride, padding[0])
        for first_column in range(min(stride, w)):
            left, across, columns = class_of(first_column, w, stride, padding[1])
            part = images[: n * lines * columns * c].reshape(n, lines, columns, c)
            if top >= kh or left >= kw:
                part[:] = 0  # no output reads these inputs
            else:
                taps = weights[
                    (kh - 1 - top) % stride :: stride, (kw - 1 - left) % stride :: stride
                ]
                some = filters[: taps.size].reshape(taps.shape)
                some[:] = taps
                convolve(gradient, some, (down, across), rest, part)
            _spread(part, first_line, first_column, stride, out)
