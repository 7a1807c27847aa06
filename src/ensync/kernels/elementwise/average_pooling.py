"""Means over windows of images (n, h, w, c), overlapping or not, and over whole images.

Padding does not count in an average. The backward kernels gather: each input pixel looks at the
outputs whose window holds it, so that threads never write to the same place. The images of global
means may be bf16 (uint16). A window begins and ends in the image or less than its size beyond: one
wholly outside would have nothing to average.

Pixels of fewer channels than a vector has lanes are read and written with what lies behind them: a
line is written from its front to its end, so that each pixel is written after what came over it.
"""

import numpy as np
from numba import njit, prange

from ensync.kernels.elementwise.windows import clip_taps, reaching
from ensync.kernels.options import KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.vectors import fma, load, splat, store, zeros


@njit(parallel=True, **KERNEL)
def _average_forward(inputs, size, stride, padding, outputs):
    (n, h, w, c), (oh, ow) = inputs.shape, outputs.shape[1:3]
    for line in prange(n * oh):
        image, y = line // oh, line % oh
        source, target = pointer(inputs, image * h * w * c), pointer(outputs, line * ow * c)
        first_row, end_row, row = clip_taps(y, stride, padding[0], size[0], h)
        for x in range(ow):
            first, end, column = clip_taps(x, stride, padding[1], size[1], w)
            share = inputs.dtype.type(1) / inputs.dtype.type((end_row - first_row) * (end - first))
            for j in range(0, c, lanes(inputs)):
                total, to = zeros(source), x * c + j
                for ky in range(first_row, end_row):
                    for kx in range(first, end):
                        at = ((row + ky) * w + column + kx) * c + j
                        total = total + load(source, at, h * w * c - at)
                store(target, to, total * splat(source, share), ow * c - to)


@njit(parallel=True, **KERNEL)
def _average_backward(gradient, size, stride, padding, out):
    (n, h, w, c), (oh, ow) = out.shape, gradient.shape[1:3]
    for line in prange(n * h):
        image, y = line // h, line % h
        source, target = pointer(gradient, image * oh * ow * c), pointer(out, line * w * c)
        rows = reaching(y, stride, padding[0], size[0], oh)
        for x in range(w):
            columns = reaching(x, stride, padding[1], size[1], ow)
            for j in range(0, c, lanes(out)):
                total, to = zeros(source), x * c + j
                for row in range(rows[0], rows[1]):
                    first_row, end_row, _ = clip_taps(row, stride, padding[0], size[0], h)
                    for column in range(columns[0], columns[1]):
                        first, end, _ = clip_taps(column, stride, padding[1], size[1], w)
                        share = out.dtype.type(1) / out.dtype.type(
                            (end_row - first_row) * (end - first)
                        )
                        at = (row * ow + column) * c + j
                        value = load(source, at, oh * ow * c - at)
                        total = fma(value, splat(source, share), total)
                store(target, to, total, w * c - to)


@njit(parallel=True, **KERNEL)
def _spread_averages(gradient, side, out):
    """As `_average_backward` for windows of side x side pixels that lie side by side and cover
    the whole image.
    """
    (n, oh, ow, c), w = gradient.shape, out.shape[2]
    share = out.dtype.type(1) / out.dtype.type(side * side)
    for line in prange(n * oh):
        source, target = pointer(gradient, line * ow * c), pointer(out, line * side * w * c)
        for y in range(side):
            for x in range(ow):
                for column in range(x * side, (x + 1) * side):
                    for j in range(0, c, lanes(out)):
                        at, to = x * c + j, (y * w + column) * c + j
                        value = load(source, at, ow * c - at) * splat(source, share)
                        store(target, to, value, (y + 1) * w * c - to)


@njit(parallel=True, **KERNEL)
def _global_forward(inputs, outputs):
    n, h, w, c = inputs.shape
    share = outputs.dtype.type(1) / outputs.dtype.type(h * w)
    for image in prange(n):
        source, target = pointer(inputs, image * h * w * c), pointer(outputs, image * c)
        for j in range(0, c, lanes(inputs)):
            total, count = zeros(source), min(lanes(inputs), c - j)
            for at in range(j, h * w * c, c):
                total = total + load(source, at, count)
            store(target, j, total * splat(source, share), count)


@njit(parallel=True, **KERNEL)
def _global_backward(gradient, out):
    n, h, w, c = out.shape
    share = gradient.dtype.type(1) / gradient.dtype.type(h * w)
    for image in prange(n):
        source, target = pointer(gradient, image * c), pointer(out, image * h * w * c)
        for at in range(0, h * w * c, c):
            for j in range(0, c, lanes(out)):
                count = min(lanes(out), c - j)
                store(target, at + j, load(source, j, count) * splat(source, share), count)


def average_pool_forward(
    inputs: np.ndarray,
    size: tuple[int, int],
    stride: int,
    padding: tuple[int, int],
    outputs: np.ndarray,
) -> None:
    """Write the means of windows of inputs (n, h, w, c) to outputs (n, oh, ow, c)."""
    _average_forward(inputs, size, stride, padding, outputs)


def average_pool_backward(
    gradient: np.ndarray,
    size: tuple[int, int],
    stride: int,
    padding: tuple[int, int],
    out: np.ndarray,
) -> None:
    """Write the gradient of the inputs to out (n, h, w, c), given that of the means (n, oh, ow,
    c).
    """
    (oh, ow), (h, w) = gradient.shape[1:3], out.shape[1:3]
    if padding == (0, 0) and size == (stride, stride) and (h, w) == (oh * stride, ow * stride):
        _spread_averages(gradient, stride, out)
    else:
        _average_backward(gradient, size, stride, padding, out)


def global_average_forward(inputs: np.ndarray, outputs: np.ndarray) -> None:
    """Write the mean of each channel of inputs (n, h, w, c) to outputs (n, c)."""
    _global_forward(inputs, outputs)


def global_average_backward(gradient: np.ndarray, out: np.ndarray) -> None:
    """Write the gradient of the inputs to out (n, h, w, c), given that of the means (n, c)."""
    _global_backward(gradient, out)
