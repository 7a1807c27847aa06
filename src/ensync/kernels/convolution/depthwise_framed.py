"""3x3 depthwise filters at stride 1 on images framed by one zero, a line at a time.

A line is computed for one vector of channels after another, so that the filter, or the nine sums of
its gradient, stay in registers.
"""

from typing import NamedTuple

from numba import njit

from ensync.kernels.options import INNER
from ensync.kernels.simd.host import SIMD
from ensync.kernels.simd.intrinsics import lanes
from ensync.kernels.simd.vectors import fetch, fma, load, store, zeros

# 32, not 16: room for a 3x3 filter, or its sums, and for the pixels under it
MANY_REGISTERS = SIMD in ("avx512", "neon")


class Window(NamedTuple):
    """Sizes of a depthwise convolution of an image: image (h, w, c), filter (kh, kw), outputs (oh,
    ow), stride, zeros before the image (top, left), and the elements from one pixel to the next, in
    the image and in the outputs.
    """

    h: int
    w: int
    c: int
    kh: int
    kw: int
    oh: int
    ow: int
    stride: int
    top: int
    left: int
    pitch: int
    out_pitch: int


class Counts(NamedTuple):
    """The channels of a vector that exist in the line above, in the line itself and below; none in
    a line beyond the image.
    """

    above: int
    here: int
    below: int


@njit(forceinline=True, **INNER)
def is_framed(window):
    """Whether this is a 3x3 filter at stride 1 on images framed by one zero on each side."""
    h, w, c, kh, kw, oh, ow, stride, top, left, pitch, out_pitch = window
    return kh == 3 and kw == 3 and stride == 1 and top == 1 and left == 1 and oh == h and ow == w


@njit(forceinline=True, **INNER)
def _column(source, at, line, full):
    """Three pixels below one another."""
    return load(source, at, full), load(source, at + line, full), load(source, at + 2 * line, full)


@njit(forceinline=True, **INNER)
def _rim_column(source, at, line, counts):
    """Three pixels below one another, of which only the counted channels are read."""
    return (
        load(source, at, counts.above),
        load(source, at + line, counts.here),
        load(source, at + 2 * line, counts.below),
    )


@njit(forceinline=True, **INNER)
def _nine(p, q, r, u, v, w, total):
    """total + the products of three columns with a filter's three."""
    a, b = fma(p[0], u[0], total), p[1] * u[1]
    a, b = fma(p[2], u[2], a), fma(q[0], v[0], b)
    a, b = fma(q[1], v[1], a), fma(q[2], v[2], b)
    a, b = fma(r[0], w[0], a), fma(r[1], w[1], b)
    return fma(r[2], w[2], a) + b


@njit(forceinline=True, **INNER)
def _framed_sums(source, weights, bias, target, step, window, y, j, counts):
    """Compute one vector of channels of a line: the filter stays in registers, and each pixel is
    read once.
    """
    w, c, pitch, out_pitch = window.w, window.c, window.pitch, window.out_pitch
    count = counts.here
    line, tap, nothing = w * pitch, (0 if step > 0 else 8 * c) + j, zeros(source)
    left, middle, right = (
        _column(weights, tap, 3 * step * c, count),
        _column(weights, tap + step * c, 3 * step * c, count),
        _column(weights, tap + 2 * step * c, 3 * step * c, count),
    )
    add, at, to = load(bias, j, count), (y - 1) * line + j, y * w * out_pitch + j
    p, q = (nothing, nothing, nothing), _rim_column(source, at, line, counts)
    for x in range(w - 1):
        r = _rim_column(source, at + (x + 1) * pitch, line, counts)
        store(target, to + x * out_pitch, _nine(p, q, r, left, middle, right, add), count)
        p, q = q, r
    store(
        target,
        to + (w - 1) * out_pitch,
        _nine(p, q, (nothing, nothing, nothing), left, middle, right, add),
        count,
    )


@njit(forceinline=True, **INNER)
def _inner_sums(source, weights, bias, target, step, window, y, j):
    """`_framed_sums` of whole vectors of a line that is not at the rim: the filter stays in
    registers, and pixels are read where they are used.
    """
    w, c, pitch, out_pitch = window.w, window.c, window.pitch, window.out_pitch
    line, tap, nothing, full = (
        w * pitch,
        (0 if step > 0 else 8 * c) + j,
        zeros(source),
        lanes(source),
    )
    u, v, t = (
        _column(weights, tap, 3 * step * c, full),
        _column(weights, tap + step * c, 3 * step * c, full),
        _column(weights, tap + 2 * step * c, 3 * step * c, full),
    )
    add, rim, at, to = (
        load(bias, j, full),
        (nothing, nothing, nothing),
        (y - 1) * line + j,
        y * w * out_pitch + j,
    )
    second = rim if w == 1 else _column(source, at + pitch, line, full)
    store(target, to, _nine(rim, _column(source, at, line, full), second, u, v, t, add), full)
    for x in range(1, w - 1):
        left, right = at + (x - 1) * pitch, at + (x + 1) * pitch
        a, b = fma(load(source, left, full), u[0], add), load(source, left + line, full) * u[1]
        a, b = (
            fma(load(source, left + 2 * line, full), u[2], a),
            fma(load(source, left + pitch, full), v[0], b),
        )
        a, b = (
            fma(load(source, left + pitch + line, full), v[1], a),
            fma(load(source, left + pitch + 2 * line, full), v[2], b),
        )
        a, b = (
            fma(load(source, right, full), t[0], a),
            fma(load(source, right + line, full), t[1], b),
        )
        store(
            target, to + x * out_pitch, fma(load(source, right + 2 * line, full), t[2], a) + b, full
        )
    if w > 1:
        last = at + (w - 1) * pitch
        store(
            target,
            to + (w - 1) * out_pitch,
            _nine(
                _column(source, last - pitch, line, full),
                _column(source, last, line, full),
                rim,
                u,
                v,
                t,
                add,
            ),
            full,
        )


@njit(**INNER)
def framed_line(source, weights, bias, target, step, window, y):
    """A line of `is_framed`; the usual, where all is read, without masks."""
    h, c, full = window.h, window.c, lanes(source)
    for j in range(0, c, full):
        count = min(full, c - j)
        if count == full and y > 0 and y + 1 < h:
            if MANY_REGISTERS:
                counts = Counts(full, full, full)
                _framed_sums(source, weights, bias, target, step, window, y, j, counts)
            else:
                _inner_sums(source, weights, bias, target, step, window, y, j)
        else:
            counts = Counts(count if y > 0 else 0, count, count if y + 1 < h else 0)
            _framed_sums(source, weights, bias, target, step, window, y, j, counts)


@njit(forceinline=True, **INNER)
def _add_three(values, factor, total):
    return (
        fma(values[0], factor, total[0]),
        fma(values[1], factor, total[1]),
        fma(values[2], factor, total[2]),
    )


@njit(forceinline=True, **INNER)
def _store_column(target, at, line, values, full):
    store(target, at, values[0], full)
    store(target, at + line, values[1], full)
    store(target, at + 2 * line, values[2], full)


@njit(forceinline=True, **INNER)
def _framed_tap_sums(source, gradient, total, window, y, j, counts):
    """Add a line's share to one vector of channels of a 3x3 filter's gradient: nine sums stay in
    registers, each pixel is read once.
    """
    w, c, pitch, out_pitch = window.w, window.c, window.pitch, window.out_pitch
    line, at, given = w * pitch, (y - 1) * w * pitch + j, y * w * out_pitch + j
    count = counts.here
    u, v, t = (
        _column(total, j, 3 * c, count),
        _column(total, j + c, 3 * c, count),
        _column(total, j + 2 * c, 3 * c, count),
    )
    q, r = (
        _rim_column(source, at, line, counts),
        _rim_column(source, at + pitch, line, counts),
    )
    g = load(gradient, given, count)
    v, t = _add_three(q, g, v), _add_three(r, g, t)
    for x in range(1, w - 1):
        p, q, r = q, r, _rim_column(source, at + (x + 1) * pitch, line, counts)
        g = load(gradient, given + x * out_pitch, count)
        fetch(source, at + (x + 1) * pitch + 3 * line)
        fetch(gradient, given + x * out_pitch + w * out_pitch)
        u, v, t = _add_three(p, g, u), _add_three(q, g, v), _add_three(r, g, t)
    g = load(gradient, given + (w - 1) * out_pitch, count)
    u, v = _add_three(q, g, u), _add_three(r, g, v)
    _store_column(total, j, 3 * c, u, count)
    _store_column(total, j + c, 3 * c, v, count)
    _store_column(total, j + 2 * c, 3 * c, t, count)


@njit(forceinline=True, **INNER)
def _add_column(source, at, line, factor, total, full):
    """total + three pixels below one another times a factor, read where they are used."""
    return (
        fma(load(source, at, full), factor, total[0]),
        fma(load(source, at + line, full), factor, total[1]),
        fma(load(source, at + 2 * line, full), factor, total[2]),
    )


@njit(forceinline=True, **INNER)
def _inner_tap_sums(source, gradient, total, window, y, j):
    """`_framed_tap_sums` of whole vectors of a line that is not at the rim, without pixels in
    registers.
    """
    w, c, pitch, out_pitch, full = window.w, window.c, window.pitch, window.out_pitch, lanes(source)
    line, at, given = w * pitch, (y - 1) * w * pitch + j, y * w * out_pitch + j
    u, v, t = (
        _column(total, j, 3 * c, full),
        _column(total, j + c, 3 * c, full),
        _column(total, j + 2 * c, 3 * c, full),
    )
    g = load(gradient, given, full)
    v, t = (
        _add_column(source, at, line, g, v, full),
        _add_column(source, at + pitch, line, g, t, full),
    )
    for x in range(1, w - 1):
        g, left = load(gradient, given + x * out_pitch, full), at + (x - 1) * pitch
        u, v = (
            _add_column(source, left, line, g, u, full),
            _add_column(source, left + pitch, line, g, v, full),
        )
        t = _add_column(source, left + 2 * pitch, line, g, t, full)
    g, left = load(gradient, given + (w - 1) * out_pitch, full), at + (w - 2) * pitch
    u, v = (
        _add_column(source, left, line, g, u, full),
        _add_column(source, left + pitch, line, g, v, full),
    )
    _store_column(total, j, 3 * c, u, full)
    _store_column(total, j + c, 3 * c, v, full)
    _store_column(total, j + 2 * c, 3 * c, t, full)


@njit(**INNER)
def framed_line_gradient(source, gradient, total, window, y):
    """A line of `is_framed`, at least two pixels wide."""
    h, c, full = window.h, window.c, lanes(source)
    for j in range(0, c, full):
        count = min(full, c - j)
        if count == full and y > 0 and y + 1 < h and not MANY_REGISTERS:
            _inner_tap_sums(source, gradient, total, window, y, j)
        else:
            counts = Counts(count if y > 0 else 0, count, count if y + 1 < h else 0)
            _framed_tap_sums(source, gradient, total, window, y, j, counts)
