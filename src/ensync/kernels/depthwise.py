"""Depthwise convolution: every channel has its own small filter. Images are (n, h, w, c), channels last.

    outputs[i, y, x, c] = bias[c] + sum over ky, kx of inputs[i, y * stride + ky - top, x * stride + kx - left, c] * weights[ky, kx, c]

These kernels are bound by memory: the sums stay in registers, and a stride of 1 computes four neighbours at once.
A `window` is (h, w, c, kh, kw, oh, ow, stride, top, left, pitch, out_pitch): image, filter and output sizes, the zeros before the
image, and the elements from one pixel to the next, in the image and in the outputs.
`general`: True, or None for a 3x3 filter at stride 1 on images framed by one zero and wider than a pixel: then nothing else is compiled.
"""

import numpy as np
from numba import njit, prange

from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd import SIMD, lanes, pointer
from ensync.kernels.vectors import fetch, fma, load, store, zeros

MANY_REGISTERS = SIMD in ("avx512", "neon")   # 32, not 16: room for a 3x3 filter, or its sums, and for the pixels under it


@njit(forceinline=True, **INNER)
def clip_taps(position, stride, padding, taps, size):
    """Return the first tap, the end of the taps that lie inside the image, and the position of tap 0."""
    origin = position * stride - padding
    return max(0, -origin), min(taps, size - origin), origin


@njit(forceinline=True, **INNER)
def _pixel(source, weights, bias, target, step, window, y, x, j, count):
    """Compute one vector of channels of one output pixel; step -1 turns the filter by 180 degrees."""
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
    """Compute one vector of channels of four neighbours, all of whose columns lie inside the image, at stride 1."""
    h, w, c, kh, kw, oh, ow, stride, top, left, pitch, out_pitch = window
    first_row, end_row, row = clip_taps(y, stride, top, kh, h)
    origin = j if step > 0 else (kh * kw - 1) * c + j
    a = b = d = e = load(bias, j, count)
    for ky in range(first_row, end_row):
        at = ((row + ky) * w + x - left) * pitch + j
        p, q, r = load(source, at, count), load(source, at + pitch, count), load(source, at + 2 * pitch, count)
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
    first = min(ow, left)
    last = max(first, min(ow, w + left - kw + 1))
    end = last if stride == 1 and last - first >= 4 else first
    for x in range(first, end, 4):  # the last four may overlap those before them
        for j in range(0, c, width):
            _four_pixels(source, weights, bias, target, step, window, y, min(x, end - 4), j, min(width, c - j))
    x = end if first == 0 else 0
    while x < ow:
        for j in range(0, c, width):
            _pixel(source, weights, bias, target, step, window, y, x, j, min(width, c - j))
        x = end if x + 1 == first else x + 1


@njit(forceinline=True, **INNER)
def _is_framed(window):
    """Whether a 3x3 filter at stride 1 meets images framed by one zero on each side."""
    h, w, c, kh, kw, oh, ow, stride, top, left, pitch, out_pitch = window
    return kh == 3 and kw == 3 and stride == 1 and top == 1 and left == 1 and oh == h and ow == w


@njit(forceinline=True, **INNER)
def _column(source, at, line, full):
    """Three pixels below one another."""
    return load(source, at, full), load(source, at + line, full), load(source, at + 2 * line, full)


@njit(forceinline=True, **INNER)
def _rim_column(source, at, line, above, count, below):
    """Three pixels below one another, the first and the last of which may be beyond the rim: then none of their channels is read."""
    return load(source, at, above), load(source, at + line, count), load(source, at + 2 * line, below)


@njit(forceinline=True, **INNER)
def _nine(p, q, r, u, v, w, total):
    """total + the products of three columns with a filter's three."""
    a, b = fma(p[0], u[0], total), p[1] * u[1]
    a, b = fma(p[2], u[2], a), fma(q[0], v[0], b)
    a, b = fma(q[1], v[1], a), fma(q[2], v[2], b)
    a, b = fma(r[0], w[0], a), fma(r[1], w[1], b)
    return fma(r[2], w[2], a) + b


@njit(forceinline=True, **INNER)
def _framed_sums(source, weights, bias, target, step, window, y, j, above, count, below):
    """Compute one vector of channels of a line: the filter stays in registers, and each pixel is read once."""
    w, c, pitch, out_pitch = window[1], window[2], window[10], window[11]
    line, tap, nothing = w * pitch, (0 if step > 0 else 8 * c) + j, zeros(source)
    left, middle, right = (_column(weights, tap, 3 * step * c, count), _column(weights, tap + step * c, 3 * step * c, count),
                           _column(weights, tap + 2 * step * c, 3 * step * c, count))
    add, at, to = load(bias, j, count), (y - 1) * line + j, y * w * out_pitch + j
    p, q = (nothing, nothing, nothing), _rim_column(source, at, line, above, count, below)
    for x in range(w - 1):
        r = _rim_column(source, at + (x + 1) * pitch, line, above, count, below)
        store(target, to + x * out_pitch, _nine(p, q, r, left, middle, right, add), count)
        p, q = q, r
    store(target, to + (w - 1) * out_pitch, _nine(p, q, (nothing, nothing, nothing), left, middle, right, add), count)


@njit(forceinline=True, **INNER)
def _inner_sums(source, weights, bias, target, step, window, y, j):
    """`_framed_sums` of whole vectors of a line that is not at the rim: the filter stays in registers, and pixels are read where they are used."""
    w, c, pitch, out_pitch = window[1], window[2], window[10], window[11]
    line, tap, nothing, full = w * pitch, (0 if step > 0 else 8 * c) + j, zeros(source), lanes(source)
    u, v, t = (_column(weights, tap, 3 * step * c, full), _column(weights, tap + step * c, 3 * step * c, full),
               _column(weights, tap + 2 * step * c, 3 * step * c, full))
    add, rim, at, to = load(bias, j, full), (nothing, nothing, nothing), (y - 1) * line + j, y * w * out_pitch + j
    second = rim if w == 1 else _column(source, at + pitch, line, full)
    store(target, to, _nine(rim, _column(source, at, line, full), second, u, v, t, add), full)
    for x in range(1, w - 1):
        left, right = at + (x - 1) * pitch, at + (x + 1) * pitch
        a, b = fma(load(source, left, full), u[0], add), load(source, left + line, full) * u[1]
        a, b = fma(load(source, left + 2 * line, full), u[2], a), fma(load(source, left + pitch, full), v[0], b)
        a, b = fma(load(source, left + pitch + line, full), v[1], a), fma(load(source, left + pitch + 2 * line, full), v[2], b)
        a, b = fma(load(source, right, full), t[0], a), fma(load(source, right + line, full), t[1], b)
        store(target, to + x * out_pitch, fma(load(source, right + 2 * line, full), t[2], a) + b, full)
    if w > 1:
        last = at + (w - 1) * pitch
        store(target, to + (w - 1) * out_pitch,
              _nine(_column(source, last - pitch, line, full), _column(source, last, line, full), rim, u, v, t, add), full)


@njit(**INNER)
def _framed_line(source, weights, bias, target, step, window, y):
    """A line of `_is_framed`; the usual, where all is read, without masks."""
    h, c, full = window[0], window[2], lanes(source)
    for j in range(0, c, full):
        count = min(full, c - j)
        if count == full and y > 0 and y + 1 < h:
            if MANY_REGISTERS:
                _framed_sums(source, weights, bias, target, step, window, y, j, full, full, full)
            else:
                _inner_sums(source, weights, bias, target, step, window, y, j)
        else:
            _framed_sums(source, weights, bias, target, step, window, y, j, count if y > 0 else 0, count, count if y + 1 < h else 0)


@njit(**INNER)
def correlate_line(source, weights, bias, target, step, window, y, general):
    """Compute output line y of the image at address `source`; step -1 turns the filter by 180 degrees."""
    turn = np.int64(step)   # a constant would have all below compiled for each value
    if general is None:
        _framed_line(source, weights, bias, target, turn, window, y)
    elif _is_framed(window):
        _framed_line(source, weights, bias, target, turn, window, y)
    else:
        _line(source, weights, bias, target, turn, window, y)


@njit(parallel=True, **KERNEL)
def _correlate(inputs, weights, bias, step, stride, padding, outputs):
    (n, h, w, c), (kh, kw, _), (oh, ow) = inputs.shape, weights.shape, outputs.shape[1:3]
    for line in prange(n * oh):
        image, window = line // oh, (h, w, c, kh, kw, oh, ow, stride, padding[0], padding[1], c, c)
        source, target = pointer(inputs, image * h * w * c), pointer(outputs, image * oh * ow * c)
        correlate_line(source, pointer(weights, 0), pointer(bias, 0), target, step, window, line % oh, True)


@njit(forceinline=True, **INNER)
def _spread_pixel(gradient, weights, target, window, y, x, j, count):
    """Sum one vector of the input gradient over the outputs that read this pixel, for any stride."""
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
def _spread(gradient, weights, stride, padding, out):
    (n, h, w, c), (kh, kw, _), (oh, ow) = out.shape, weights.shape, gradient.shape[1:3]
    for line in prange(n * h):
        image, window = line // h, (h, w, c, kh, kw, oh, ow, stride, padding[0], padding[1], c, c)
        source, target = pointer(gradient, image * oh * ow * c), pointer(out, image * h * w * c)
        for x in range(w):
            for j in range(0, c, lanes(out)):
                _spread_pixel(source, pointer(weights, 0), target, window, line % h, x, j, min(lanes(out), c - j))


@njit(forceinline=True, **INNER)
def _tap_sum(source, gradient, total, window, y, ky, kx, j, count):
    """Add the share of the outputs of line y to one vector of one tap of the filter gradient."""
    h, w, c, kh, kw, oh, ow, stride, top, left, pitch, out_pitch = window
    first, end = max(0, (left - kx + stride - 1) // stride), min(ow, (w - 1 + left - kx) // stride + 1)
    at, given = ((y * stride + ky - top) * w + kx - left) * pitch + j, y * ow * out_pitch + j
    total_at = (ky * kw + kx) * c + j
    a = load(total, total_at, count)
    for x in range(first, end):
        a = fma(load(source, at + x * stride * pitch, count), load(gradient, given + x * out_pitch, count), a)
    store(total, total_at, a, count)


@njit(forceinline=True, **INNER)
def _add_three(values, factor, total):
    return fma(values[0], factor, total[0]), fma(values[1], factor, total[1]), fma(values[2], factor, total[2])


@njit(forceinline=True, **INNER)
def _put_column(target, at, line, values, full):
    store(target, at, values[0], full)
    store(target, at + line, values[1], full)
    store(target, at + 2 * line, values[2], full)


@njit(forceinline=True, **INNER)
def _framed_tap_sums(source, gradient, total, window, y, j, above, count, below):
    """Add a line's share to one vector of channels of a 3x3 filter's gradient: nine sums stay in registers, each pixel is read once."""
    w, c, pitch, out_pitch = window[1], window[2], window[10], window[11]
    line, at, given = w * pitch, (y - 1) * w * pitch + j, y * w * out_pitch + j
    u, v, t = _column(total, j, 3 * c, count), _column(total, j + c, 3 * c, count), _column(total, j + 2 * c, 3 * c, count)
    q, r = _rim_column(source, at, line, above, count, below), _rim_column(source, at + pitch, line, above, count, below)
    g = load(gradient, given, count)
    v, t = _add_three(q, g, v), _add_three(r, g, t)
    for x in range(1, w - 1):
        p, q, r = q, r, _rim_column(source, at + (x + 1) * pitch, line, above, count, below)
        g = load(gradient, given + x * out_pitch, count)
        fetch(source, at + (x + 1) * pitch + 3 * line)
        fetch(gradient, given + x * out_pitch + w * out_pitch)
        u, v, t = _add_three(p, g, u), _add_three(q, g, v), _add_three(r, g, t)
    g = load(gradient, given + (w - 1) * out_pitch, count)
    u, v = _add_three(q, g, u), _add_three(r, g, v)
    _put_column(total, j, 3 * c, u, count)
    _put_column(total, j + c, 3 * c, v, count)
    _put_column(total, j + 2 * c, 3 * c, t, count)


@njit(forceinline=True, **INNER)
def _add_column(source, at, line, factor, total, full):
    """total + three pixels below one another times a factor, read where they are used."""
    return (fma(load(source, at, full), factor, total[0]), fma(load(source, at + line, full), factor, total[1]),
            fma(load(source, at + 2 * line, full), factor, total[2]))


@njit(forceinline=True, **INNER)
def _inner_tap_sums(source, gradient, total, window, y, j):
    """`_framed_tap_sums` of whole vectors of a line that is not at the rim, without pixels in registers."""
    w, c, pitch, out_pitch, full = window[1], window[2], window[10], window[11], lanes(source)
    line, at, given = w * pitch, (y - 1) * w * pitch + j, y * w * out_pitch + j
    u, v, t = _column(total, j, 3 * c, full), _column(total, j + c, 3 * c, full), _column(total, j + 2 * c, 3 * c, full)
    g = load(gradient, given, full)
    v, t = _add_column(source, at, line, g, v, full), _add_column(source, at + pitch, line, g, t, full)
    for x in range(1, w - 1):
        g, left = load(gradient, given + x * out_pitch, full), at + (x - 1) * pitch
        u, v = _add_column(source, left, line, g, u, full), _add_column(source, left + pitch, line, g, v, full)
        t = _add_column(source, left + 2 * pitch, line, g, t, full)
    g, left = load(gradient, given + (w - 1) * out_pitch, full), at + (w - 2) * pitch
    u, v = _add_column(source, left, line, g, u, full), _add_column(source, left + pitch, line, g, v, full)
    _put_column(total, j, 3 * c, u, full)
    _put_column(total, j + c, 3 * c, v, full)
    _put_column(total, j + 2 * c, 3 * c, t, full)


@njit(**INNER)
def _framed_line_gradient(source, gradient, total, window, y):
    """A line of `_is_framed`, at least two pixels wide."""
    h, c, full = window[0], window[2], lanes(source)
    for j in range(0, c, full):
        count = min(full, c - j)
        if count == full and y > 0 and y + 1 < h and not MANY_REGISTERS:
            _inner_tap_sums(source, gradient, total, window, y, j)
        else:
            _framed_tap_sums(source, gradient, total, window, y, j, count if y > 0 else 0, count, count if y + 1 < h else 0)


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
        _framed_line_gradient(source, gradient, total, window, y)
    elif window[1] > 1 and _is_framed(window):
        _framed_line_gradient(source, gradient, total, window, y)
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
        window = (h, w, c, kh, kw, oh, ow, stride, padding[0], padding[1], c, c)
        source, given, total = pointer(inputs, image * h * w * c), pointer(gradient, image * oh * ow * c), pointer(partial, image * kh * kw * c)
        for j in range(0, kh * kw * c, lanes(out)):
            store(total, j, zeros(total), min(lanes(out), kh * kw * c - j))
        for y in range(oh):
            add_line_gradient(source, given, total, window, y, True)
    _add_images(pointer(partial, 0), n, kh * kw * c, pointer(out, 0))


def depthwise_forward(inputs: np.ndarray, weights: np.ndarray, bias: np.ndarray, stride: int, padding: tuple[int, int],
                      outputs: np.ndarray) -> None:
    """Write the depthwise convolution of inputs (n, h, w, c) with weights (kh, kw, c) and bias (c) to outputs (n, oh, ow, c).

    padding = (top, left): zeros before the first line and column; those behind follow from the outputs' size.
    """
    _correlate(inputs, weights, bias, 1, stride, padding, outputs)


def depthwise_input_gradient(gradient: np.ndarray, weights: np.ndarray, zero_bias: np.ndarray, stride: int,
                             padding: tuple[int, int], out: np.ndarray) -> None:
    """Write the gradient of the inputs to out (n, h, w, c), given that of the outputs (n, oh, ow, c); zero_bias: (c) zeros."""
    if stride == 1:
        turned = (weights.shape[0] - 1 - padding[0], weights.shape[1] - 1 - padding[1])
        _correlate(gradient, weights, zero_bias, -1, 1, turned, out)
    else:
        _spread(gradient, weights, stride, padding, out)


def depthwise_weight_gradient(inputs: np.ndarray, gradient: np.ndarray, stride: int, padding: tuple[int, int],
                              partial: np.ndarray, out: np.ndarray) -> None:
    """Write the gradient of the weights to out (kh, kw, c); partial (n, kh, kw, c) is scratch, one sum per image."""
    _filter_gradient(inputs, gradient, stride, padding, partial, out)
