"""Maxima over windows of images (n, h, w, c), overlapping or not.

Padding never wins a maximum; what is not a number does. The backward kernel gathers: each input
pixel looks at the outputs whose window holds it, so that threads never write to the same place.
Values may be bf16 (uint16). A window begins and ends in the image or less than its size beyond: one
wholly outside would have nothing to choose.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from ensync.kernels.elementwise.windows import clip_taps, reaching
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.vectors import (
    advance,
    choose,
    equal,
    greater_or_nan,
    load,
    load_as,
    splat_as,
    store,
    zeros,
)


class Window(NamedTuple):
    """Sizes of image, window and output, and the padding before the image."""

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


@njit(forceinline=True, **INNER)
def _largest(source, target, chosen, window, y, x, j, count):
    """Write one vector of maxima and which tap, counted row by row, they came from (the first of
    equals).
    """
    h, w, c, kh, kw, oh, ow, stride, top, left = window
    first_row, end_row, row = clip_taps(y, stride, top, kh, h)
    first, end, column = clip_taps(x, stride, left, kw, w)
    best = load(source, ((row + first_row) * w + column + first) * c + j, count)
    place = splat_as(best, chosen, first_row * kw + first)
    for ky in range(first_row, end_row):
        for kx in range(first, end):
            value = load(source, ((row + ky) * w + column + kx) * c + j, count)
            wins = greater_or_nan(value, best)
            best = choose(wins, value, best)
            place = choose(wins, splat_as(best, chosen, ky * kw + kx), place)
    store(target, (y * ow + x) * c + j, best, count)
    store(chosen, (y * ow + x) * c + j, place, count)


@njit(forceinline=True, **INNER)
def _largest_inside(source, at, line, c, kh, kw, target, chosen, to):
    """As `_largest` for a whole vector of a window inside the image; with kh and kw constant the
    loops are unrolled.
    """
    full = lanes(source)
    best = load(source, at, full)
    place = splat_as(best, chosen, np.int64(0))
    for ky in range(kh):
        for kx in range(kw):
            value = load(source, at + ky * line + kx * c, full)
            wins = greater_or_nan(value, best)
            best = choose(wins, value, best)
            place = choose(wins, splat_as(best, chosen, ky * kw + kx), place)
    store(target, to, best, full)
    store(chosen, to, place, full)


@njit(**INNER)
def _max_line(source, target, chosen, window, y):
    """Write a line of maxima: windows of 3x3 and 2x2 pixels inside the image unrolled, all
    others at their own size.
    """
    h, w, c, kh, kw, oh, ow, stride, top, left = window
    row, full = y * stride - top, lanes(source)
    whole = 0 <= row and row + kh <= h and kh == kw
    for x in range(ow):
        column, to = x * stride - left, (y * ow + x) * c
        inside, at = whole and 0 <= column and column + kw <= w, (row * w + column) * c
        for j in range(0, c, full):
            if inside and kh == 3 and c - j >= full:
                _largest_inside(source, at + j, w * c, c, 3, 3, target, chosen, to + j)
            elif inside and kh == 2 and c - j >= full:
                _largest_inside(source, at + j, w * c, c, 2, 2, target, chosen, to + j)
            else:
                _largest(source, target, chosen, window, y, x, j, min(full, c - j))


@njit(parallel=True, **KERNEL)
def _max_forward(inputs, size, stride, padding, outputs, chosen):
    (n, h, w, c), (oh, ow) = inputs.shape, outputs.shape[1:3]
    for line in prange(n * oh):
        image = line // oh
        window = Window(h, w, c, size[0], size[1], oh, ow, stride, padding[0], padding[1])
        source, target, places = (
            pointer(inputs, image * h * w * c),
            pointer(outputs, image * oh * ow * c),
            pointer(chosen, image * oh * ow * c),
        )
        _max_line(source, target, places, window, line % oh)


@njit(forceinline=True, **INNER)
def _gather_chosen(gradient, chosen, target, window, y, rows, x, columns, j, count):
    """Add up one vector of the gradients of the outputs that chose this pixel."""
    h, w, c, kh, kw, oh, ow, stride, top, left = window
    total = zeros(gradient)
    for row in range(rows[0], rows[1]):
        for column in range(columns[0], columns[1]):
            tap = (y + top - row * stride) * kw + x + left - column * stride
            at = (row * ow + column) * c + j
            here = equal(load_as(total, chosen, at, count), splat_as(total, chosen, tap))
            total = total + choose(here, load(gradient, at, count), zeros(gradient))
    store(target, (y * w + x) * c + j, total, count)


@njit(forceinline=True, **INNER)
def _where_chosen(gradient, chosen, at, tap):
    """A whole vector of the gradients of outputs that chose this tap, zeros for the others."""
    given = load(gradient, at, lanes(gradient))
    return choose(
        equal(load_as(given, chosen, at, lanes(gradient)), splat_as(given, chosen, tap)),
        given,
        zeros(gradient),
    )


@njit(forceinline=True, **INNER)
def _gather_few(gradient, chosen, target, below, beside, at, tap, across, ow, c):
    """As `_gather_chosen` for the whole vectors of a pixel in one window, and where so, in the one
    below, beside, and both (at most four).

    at: of the first output; tap: of the pixel in its window, which lies `across` = (down, right)
    taps further in the next ones.
    """
    for j in range(0, c // lanes(gradient) * lanes(gradient), lanes(gradient)):
        total = _where_chosen(gradient, chosen, at + j, tap)
        if beside:
            total = total + _where_chosen(gradient, chosen, at + c + j, tap - across[1])
        if below:
            total = total + _where_chosen(gradient, chosen, at + ow * c + j, tap - across[0])
            if beside:
                total = total + _where_chosen(
                    gradient, chosen, at + (ow + 1) * c + j, tap - across[0] - across[1]
                )
        store(target, j, total, lanes(gradient))


@njit(forceinline=True, **INNER)
def _gather_pixel(gradient, chosen, target, window, y, rows, x, columns):
    """Write the gradient of one pixel, without loops over windows where one or two in each
    dimension hold it.
    """
    h, w, c, kh, kw, oh, ow, stride, top, left = window
    down, right, full = rows[1] - rows[0], columns[1] - columns[0], lanes(gradient)
    if 1 <= down <= 2 and 1 <= right <= 2:
        at, to, across = (
            (rows[0] * ow + columns[0]) * c,
            advance(target, (y * w + x) * c),
            (stride * kw, stride),
        )
        tap = (y + top - rows[0] * stride) * kw + x + left - columns[0] * stride
        if down == 1 and right == 1:
            _gather_few(gradient, chosen, to, False, False, at, tap, across, ow, c)
        elif down == 1:
            _gather_few(gradient, chosen, to, False, True, at, tap, across, ow, c)
        elif right == 1:
            _gather_few(gradient, chosen, to, True, False, at, tap, across, ow, c)
        else:
            _gather_few(gradient, chosen, to, True, True, at, tap, across, ow, c)
    else:
        for j in range(0, c // full * full, full):
            _gather_chosen(gradient, chosen, target, window, y, rows, x, columns, j, full)
    if c % full:
        _gather_chosen(
            gradient, chosen, target, window, y, rows, x, columns, c // full * full, c % full
        )


@njit(parallel=True, **KERNEL)
def _max_backward(gradient, chosen, size, stride, padding, out):
    (n, h, w, c), (oh, ow) = out.shape, gradient.shape[1:3]
    for line in prange(n * h):
        image = line // h
        window = Window(h, w, c, size[0], size[1], oh, ow, stride, padding[0], padding[1])
        source, places, target = (
            pointer(gradient, image * oh * ow * c),
            pointer(chosen, image * oh * ow * c),
            pointer(out, image * h * w * c),
        )
        rows = reaching(line % h, stride, padding[0], size[0], oh)
        for x in range(w):
            _gather_pixel(
                source,
                places,
                target,
                window,
                line % h,
                rows,
                x,
                reaching(x, stride, padding[1], size[1], ow),
            )


def tap_type(size: tuple[int, int]) -> np.dtype:
    """Return the type that holds the numbers of a window's taps, 0 to kh * kw - 1: of up to 2^8,
    2^15 or more of them (uint16 would be bf16).
    """
    taps = size[0] * size[1]
    return np.dtype(np.uint8 if taps <= 1 << 8 else np.int16 if taps <= 1 << 15 else np.int64)


def max_pool_forward(
    inputs: np.ndarray,
    size: tuple[int, int],
    stride: int,
    padding: tuple[int, int],
    outputs: np.ndarray,
    chosen: np.ndarray,
) -> None:
    """Write the maxima of windows of inputs (n, h, w, c) to outputs (n, oh, ow, c), and the winning
    taps to chosen, of that shape and `tap_type(size)`.

    size = (kh, kw); padding = (top, left), less than the size.
    """
    assert chosen.dtype == tap_type(size)
    _max_forward(inputs, size, stride, padding, outputs, chosen)


def max_pool_backward(
    gradient: np.ndarray,
    chosen: np.ndarray,
    size: tuple[int, int],
    stride: int,
    padding: tuple[int, int],
    out: np.ndarray,
) -> None:
    """Write the gradient of the inputs to out (n, h, w, c), given that of the outputs and the
    winning taps (n, oh, ow, c).
    """
    _max_backward(gradient, chosen, size, stride, padding, out)
