"""Depthwise convolution: every channel has its own small filter. Images are (n, h, w, c), channels
last.

    outputs[i, y, x, c] = bias[c] + sum over ky, kx of inputs[i, y * stride + ky - top, x * stride +
    kx - left, c] * weights[ky, kx, c]

These kernels are bound by memory: the sums stay in registers, and a stride of 1 computes four
neighbours at once. `general`: True, or None for a 3x3 filter at stride 1 on
images framed by one zero and wider than a pixel: then nothing else is compiled.
"""

import numpy as np
from numba import njit, prange

from ensync.kernels.convolution.depthwise_framed import (
    Window,
    framed_line,
    framed_line_gradient,
    is_framed,
)
from ensync.kernels.elementwise.windows import clip_taps
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.vectors import fma, load, store, zeros


@njit(forceinline=True, **INNER)
def _pixel(source, weights, bias, target, step, window, y, x, j, count):
    """Compute one vector of channels of one output pixel; step -1 turns the filter by 180
    degrees.
    """
    h, w, c, kh, kw, oh, ow, stride, top, left, pitch, out_pitch = window
    first_row, end_row, row = clip_taps(y, stride, top, kh, h)
    first, end, column = clip_taps(x, stride, left, kw, w)
    origin = j if step > 0 else (kh * kw - 1) * c + j
    total = load(bias, j, count)
    for ky in range(first_row, end_row):
        for kx in range(first, end):
            pixel = load(source, ((row + ky) * w + column + kx) * pitch + j, count)
            total = fma(pixel, load(weights, origin + step * (ky * kw + kx) * c, count), total)
    store(target, (y * ow + x) * out_pitch + j, total, count)


@njit(forceinline=True, **INNER)
def _four_pixels(source, weights, bias, target, step, window, y, x, j, count):
    """Compute one vector of channels of four neighbours, all of whose columns lie inside the
    image, at stride 1.
    """
    h, w, c, kh, kw, oh, ow, stride, top, left, pitch, out_pitch = window
    first_row, end_row, row = clip_taps(y, stride, top, kh, h)
    origin = j if step > 0 else (kh * kw - 1) * c + j
    a = b = d = e = load(bias, j, count)
    for ky in range(first_row, end_row):
        at = ((row + ky) * w + x - left) * pitch + j
        p, q, r = (
            load(source, at, count),
            load(source, at + pitch, count),
            load(source, at + 2 * pitch, count),
        )
        for kx in range(kw):
            s = load(source, at + (kx + 3) * pitch, count)
            factor = load(weights, origin + step * (ky * kw + kx) * c, count)
            a, b, d, e = fma(p, factor, a), fma(q, factor, b), fma(r, factor, d), fma(s, factor, e)
            p, q, r = q, r, s
    at = (y * ow + x) * out_pitch + j
    store(target, at, a, count)
    store(target, at + out_pitch, b, count)
    store(target, at + 2 * out_pitch, d, count)
    store(target, at + 3 * out_pitch, e, count)


@njit(forceinline=True, **INNER)
def _line(source, weights, bias, target, step, window, y):
    h, w, c, kh, kw, oh, ow, stride, top, left, pitch, out_pitch = window
    width = lanes(source)
    first = max(
        0, min(ow, left)
    )  # a turned filter's left is negative where the padding is wider than the filter
    last = max(first, min(ow, w + left - kw + 1))
    end = last if stride == 1 and last - first >= 4 else first
    for x in range(first, end, 4):  # the last four may overlap those before them
        for j in range(0, c, width):
            _four_pixels(
                source,
                weights,
                bias,
                target,
                step,
                window,
                y,
                min(x, end - 4),
                j,
                min(width, c - j),
            )
    x = end if first == 0 else 0
    while x < ow:
        for j in range(0, c, width):
            _pixel(source, weights, bias, target, step, window, y, x, j, min(width, c - j))
        x = end if x + 1 == first else x + 1


@njit(**INNER)
def correlate_line(source, weights, bias, target, step, window, y, general):
    """Compute output line y of the image at address `source`; step -1 turns the filter by 180
    degrees.
    """
    turn = np.int64(step)  # a constant would have all below compiled for each value
    if general is None:
        framed_line(source, weights, bias, target, turn, window, y)
    elif is_framed(window):
        framed_line(source, weights, bias, target, turn, window, y)
    else:
        _line(source, weights, bias, target, turn, window, y)


@njit(parallel=True, **KERNEL)
def _correlate(inputs, weights, bias, step, stride, padding, outputs):
    (n, h, w, c), (kh, kw, _), (oh, ow) = inputs.shape, weights.shape, outputs.shape[1:3]
    for line in prange(n * oh):
        image = line // oh
        window = Window(h, w, c, kh, kw, oh, ow, stride, padding[0], padding[1], c, c)
        source, target = pointer(inputs, image * h * w * c), pointer(outputs, image * oh * ow * c)
        correlate_line(
            source, pointer(weights, 0), pointer(bias, 0), target, step, window, line % oh, True
        )


@njit(forceinline=True, **INNER)
def _input_gradient_pixel(gradient, weights, target, window, y, x, j, count):
    """Sum one vector of the input gradient over the outputs that read this pixel, for any
    stride.
    """
    h, w, c, kh, kw, oh, ow, stride, top, left, pitch, out_pitch = window
    total = zeros(gradient)
    for ky in range((y + top) % stride, kh, stride):
        row = (y + top - ky) // stride
        if 0 <= row < oh:
            for kx in range((x + left) % stride, kw, stride):
                column = (x + left - kx) // stride
                if 0 <= column < ow:
                    given = load(gradient, (row * ow + column) * c + j, count)
                    total = fma(given, load(weights, (ky * kw + kx) * c + j, count), total)
    store(target, (y * w + x) * c + j, total, count)


@njit(parallel=True, **KERNEL)
def _input_gradient(gradient, weights, stride, padding, out):
    (n, h, w, c), (kh, kw, _), (oh, ow) = out.shape, weights.shape, gradient.shape[1:3]
    for line in prange(n * h):
        image = line // h
        window = Window(h, w, c, kh, kw, oh, ow, stride, padding[0], padding[1], c, c)
        source, target = pointer(gradient, image * oh * ow * c), pointer(out, image * h * w * c)
        for x in range(w):
            for j in range(0, c, lanes(out)):
                _input_gradient_pixel(
                    source,
                    pointer(weights, 0),
                    target,
                    window,
                    line % h,
                    x,
                    j,
                    min(lanes(out), c - j),
                )


@njit(forceinline=True, **INNER)
def _tap_sum(source, gradient, total, window, y, ky, kx, j, count):
    """Add the share of the outputs of line y to one vector of one tap of the filter gradient."""
    h, w, c, kh, kw, oh, ow, stride, top, left, pitch, out_pitch = window
    first, end = (
        max(0, (left - kx + stride - 1) // stride),
        min(ow, (w - 1 + left - kx) // stride + 1),
    )
    at, given = ((y * stride + ky - top) * w + kx - left) * pitch + j, y * ow * out_pitch + j
    total_at = (ky * kw + kx) * c + j
    a = load(total, total_at, count)
    for x in range(first, end):
        a = fma(
            load(source, at + x * stride * pitch, count),
            load(gradient, given + x * out_pitch, count),
            a,
        )
    store(total, total_at, a, count)


@njit(**INNER)
def _add_taps(source, gradient, total, window, y):
    """`add_line_gradient` for any filter, tap by tap."""
    h, w, c, kh, kw, oh, ow, stride, top, left, pitch, out_pitch = window
    first_tap, end_tap, _ = clip_taps(y, stride, top, kh, h)
    for j in range(0, c, lanes(source)):
        for ky in range(first_tap, end_tap):
            for kx in range(kw):
                _tap_sum(source, gradient, total, window, y, ky, kx, j, min(lanes(source), c - j))


@njit(**INNER)
def add_line_gradient(source, gradient, total, window, y, general):
    """Add output line y's share to the filter gradient (kh, kw, c) at address `total`."""
    if general is None:
        framed_line_gradient(source, gradient, total, window, y)
    elif window.w > 1 and is_framed(window):
        framed_line_gradient(source, gradient, total, window, y)
    else:
        _add_taps(source, gradient, total, window, y)


@njit(**INNER)
def _add_images(partial, images, size, out):
    """Write the sum over images of partial (images, size), in their order."""
    for j in range(0, size, lanes(out)):
        total, count = zeros(out), min(lanes(out), size - j)
        for image in range(images):
            total = total + load(partial, image * size + j, count)
        store(out, j, total, count)


@njit(parallel=True, **KERNEL)
def _filter_gradient(inputs, gradient, stride, padding, partial, out):
    (n, h, w, c), (kh, kw, _), (oh, ow) = inputs.shape, out.shape, gradient.shape[1:3]
    for image in prange(n):
        window = Window(h, w, c, kh, kw, oh, ow, stride, padding[0], padding[1], c, c)
        source, given, total = (
            pointer(inputs, image * h * w * c),
            pointer(gradient, image * oh * ow * c),
            pointer(partial, image * kh * kw * c),
        )
        for j in range(0, kh * kw * c, lanes(out)):
            store(total, j, zeros(total), min(lanes(out), kh * kw * c - j))
        for y in range(oh):
            add_line_gradient(source, given, total, window, y, True)
    _add_images(pointer(partial, 0), n, kh * kw * c, pointer(out, 0))


def depthwise_forward(
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    stride: int,
    padding: tuple[int, int],
    outputs: np.ndarray,
) -> None:
    """Write the depthwise convolution of inputs (n, h, w, c) with weights (kh, kw, c) and bias (c)
    to outputs (n, oh, ow, c).

    padding = (top, left): zeros before the first line and column; those behind follow from the
    outputs' size.
    """
    _correlate(inputs, weights, bias, 1, stride, padding, outputs)


def depthwise_input_gradient(
    gradient: np.ndarray,
    weights: np.ndarray,
    zero_bias: np.ndarray,
    stride: int,
    padding: tuple[int, int],
    out: np.ndarray,
) -> None:
    """Write the gradient of the inputs to out (n, h, w, c), given that of the outputs (n, oh,
    ow, c); zero_bias: (c) zeros.
    """
    if stride == 1:
        turned = (weights.shape[0] - 1 - padding[0], weights.shape[1] - 1 - padding[1])
        _correlate(gradient, weights, zero_bias, -1, 1, turned, out)
    else:
        _input_gradient(gradient, weights, stride, padding, out)


def depthwise_weight_gradient(
    inputs: np.ndarray,
    gradient: np.ndarray,
    stride: int,
    padding: tuple[int, int],
    partial: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the gradient of the weights to out (kh, kw, c); partial (n, kh, kw, c) is scratch,
    one sum per image.
    """
    _filter_gradient(inputs, gradient, stride, padding, partial, out)
