"""3x3 convolution at stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016): 4 times fewer multiplications.

A tile of 4x4 outputs y needs a 6x6 piece d of the image and the filter w:  y = A' [(G w G') * (B' d B)] A  (' = transposed).
Its transposed form gives the filter's gradient:  dw = G' [(A dy A') * (B' d B)] G. The products in brackets, per pair of
channels and each of the 36 places, become 36 matrix products over channels (or over tiles, for the filter's gradient).

Scratch, from `winograd_scratch`: the transformed filter, then for each thread its tiles' transformed pieces and products.
"""

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.simd import SIMD, lanes, lanes_of, pointer, tile
from ensync.kernels.vectors import advance, fma, load, maximum, splat, store, zeros

OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
ROWS, VECTORS = {"avx512": (14, 2), "avx2": (6, 2), "neon": (12, 2), "plain": (4, 2)}[SIMD]
TILE = tile(ROWS, VECTORS)
PLACES = 36
TILES = 56          # of one block: its pieces and products should stay in a core's second cache
FILTER_TILES = 448  # of one block of the filter's gradient


@njit(forceinline=True, **OPTIONS)
def _piece(at, a, b, c, d, e, f):
    """B' times six values."""
    four, two, five = splat(at, 4.0), splat(at, 2.0), splat(at, -5.0)
    even, odd = e - four * c, d - four * b
    near, far = e - c, two * (d - b)
    return fma(four, a, fma(five, c, e)), even + odd, even - odd, near + far, near - far, fma(four, b, fma(five, d, f))


@njit(forceinline=True, **OPTIONS)
def _result(at, a, b, c, d, e, f):
    """A' times six values."""
    s, t, u, v = b + c, b - c, d + e, d - e
    return a + s + u, fma(splat(at, 2.0), v, t), fma(splat(at, 4.0), u, s), fma(splat(at, 8.0), v, t) + f


@njit(forceinline=True, **OPTIONS)
def _spread(at, a, b, c, d):
    """A times four values."""
    p, q = a + c, b + d
    r, s = fma(splat(at, 4.0), c, a), fma(splat(at, 8.0), d, splat(at, 2.0) * b)
    return a, p + q, p - q, r + s, r - s, d


@njit(forceinline=True, **OPTIONS)
def _filter(at, a, b, c):
    """G times three values."""
    p, q = splat(at, -1 / 6) * (a + c), splat(at, 1 / 6) * b
    r, s = splat(at, 1 / 24) * fma(splat(at, 4.0), c, a), splat(at, 1 / 12) * b
    return splat(at, 0.25) * a, p - q, p + q, r + s, r - s, c


@njit(forceinline=True, **OPTIONS)
def _filter_back(at, a, b, c, d, e, f):
    """G' times six values."""
    p, q, r, s = b + c, c - b, d + e, d - e
    first = fma(splat(at, 0.25), a, fma(splat(at, -1 / 6), p, splat(at, 1 / 24) * r))
    return first, fma(splat(at, 1 / 6), q, splat(at, 1 / 12) * s), fma(splat(at, 1 / 6), r - p, f)


@njit(forceinline=True, **OPTIONS)
def _inside(position, size, count):
    return count if 0 <= position < size else 0


@njit(forceinline=True, **OPTIONS)
def _six(source, at, c, x, w, count):
    """Six neighbours of a line from column x on; those outside the image are 0."""
    if x >= 0 and x + 6 <= w and count == lanes(source):
        full = lanes(source)
        return (load(source, at, full), load(source, at + c, full), load(source, at + 2 * c, full),
                load(source, at + 3 * c, full), load(source, at + 4 * c, full), load(source, at + 5 * c, full))
    return (load(source, at, _inside(x, w, count)), load(source, at + c, _inside(x + 1, w, count)),
            load(source, at + 2 * c, _inside(x + 2, w, count)), load(source, at + 3 * c, _inside(x + 3, w, count)),
            load(source, at + 4 * c, _inside(x + 4, w, count)), load(source, at + 5 * c, _inside(x + 5, w, count)))


@njit(forceinline=True, **OPTIONS)
def _keep(target, at, step, a, b, c, d, e, f):
    full = lanes(target)
    store(target, at, a, full)
    store(target, at + step, b, full)
    store(target, at + 2 * step, c, full)
    store(target, at + 3 * step, d, full)
    store(target, at + 4 * step, e, full)
    store(target, at + 5 * step, f, full)


@njit(forceinline=True, **OPTIONS)
def _recall(source, at, step):
    full = lanes(source)
    return (load(source, at, full), load(source, at + step, full), load(source, at + 2 * step, full),
            load(source, at + 3 * step, full), load(source, at + 4 * step, full), load(source, at + 5 * step, full))


@njit(**OPTIONS)
def _transform_piece(source, window, y, x, c, target, target_step, room):
    """Write the 36 places of one 6x6 piece, `target_step` apart; `room`: 36 vectors for half-done work."""
    h, w = window
    full = lanes(source)
    for j in range(0, c, full):
        count = min(full, c - j)
        for i in range(6):
            seen = _inside(y + i, h, count)
            p, q, r, s, t, u = _six(source, ((y + i) * w + x) * c + j, c, x, w, seen)
            p, q, r, s, t, u = _piece(source, p, q, r, s, t, u)
            _keep(room, i * 6 * full, full, p, q, r, s, t, u)
        for k in range(6):
            p, q, r, s, t, u = _recall(room, k * full, 6 * full)
            p, q, r, s, t, u = _piece(source, p, q, r, s, t, u)
            store(target, k * target_step + j, p, count)
            store(target, (6 + k) * target_step + j, q, count)
            store(target, (12 + k) * target_step + j, r, count)
            store(target, (18 + k) * target_step + j, s, count)
            store(target, (24 + k) * target_step + j, t, count)
            store(target, (30 + k) * target_step + j, u, count)


@njit(**OPTIONS)
def _transform_result(products, step, width, bias, floor, target, window, y, x, c, room):
    """Write one tile of 4x4 outputs from its 36 products, `step` apart, plus bias and not below the floor."""
    h, w = window
    full, low = lanes(products), splat(products, floor)
    for j in range(0, c, full):
        count, add = min(full, c - j), load(bias, j, min(full, c - j))
        for k in range(6):
            p, q, r, s, t, u = _recall(products, k * step + j, 6 * step)
            p, q, r, s = _result(products, p, q, r, s, t, u)
            store(room, k * full, p, full)
            store(room, (6 + k) * full, q, full)
            store(room, (12 + k) * full, r, full)
            store(room, (18 + k) * full, s, full)
        for i in range(min(4, h - y)):
            p, q, r, s, t, u = _recall(room, i * 6 * full, full)
            p, q, r, s = _result(products, p, q, r, s, t, u)
            at = ((y + i) * w + x) * c + j
            store(target, at, maximum(p + add, low), count)
            store(target, at + c, maximum(q + add, low), _inside(x + 1, w, count))
            store(target, at + 2 * c, maximum(r + add, low), _inside(x + 2, w, count))
            store(target, at + 3 * c, maximum(s + add, low), _inside(x + 3, w, count))


@njit(parallel=True, **OPTIONS)
def _transform_filter(weights, target):
    """Write weights (3, 3, inputs, outputs) as 36 matrices of panels: (36, panels, inputs, width), padded with zeros."""
    inputs, outputs = weights.shape[2:]
    full = lanes(weights)
    width = VECTORS * full
    panels = (outputs + width - 1) // width
    for i in prange(inputs):
        w, to = pointer(weights, i * outputs), pointer(target, i * width)
        line, step = inputs * outputs, panels * inputs * width
        for j in range(0, panels * width, full):
            count, at = max(0, min(full, outputs - j)), j // width * inputs * width + j % width
            a0, a1, a2, a3, a4, a5 = _filter(w, load(w, j, count), load(w, 3 * line + j, count), load(w, 6 * line + j, count))
            b0, b1, b2, b3, b4, b5 = _filter(w, load(w, line + j, count), load(w, 4 * line + j, count), load(w, 7 * line + j, count))
            c0, c1, c2, c3, c4, c5 = _filter(w, load(w, 2 * line + j, count), load(w, 5 * line + j, count), load(w, 8 * line + j, count))
            p, q, r, s, t, u = _filter(w, a0, b0, c0)
            _keep(to, at, step, p, q, r, s, t, u)
            p, q, r, s, t, u = _filter(w, a1, b1, c1)
            _keep(to, at + 6 * step, step, p, q, r, s, t, u)
            p, q, r, s, t, u = _filter(w, a2, b2, c2)
            _keep(to, at + 12 * step, step, p, q, r, s, t, u)
            p, q, r, s, t, u = _filter(w, a3, b3, c3)
            _keep(to, at + 18 * step, step, p, q, r, s, t, u)
            p, q, r, s, t, u = _filter(w, a4, b4, c4)
            _keep(to, at + 24 * step, step, p, q, r, s, t, u)
            p, q, r, s, t, u = _filter(w, a5, b5, c5)
            _keep(to, at + 30 * step, step, p, q, r, s, t, u)


@njit(**OPTIONS)
def _products(pieces, filters, products, rows, inputs, panels, floor):
    """Multiply, at each of the 36 places, pieces (TILES, inputs) with the filter: products (TILES, panels * width)."""
    width = VECTORS * lanes(pieces)
    for place in range(PLACES):
        for panel in range(panels):
            b = (place * panels + panel) * inputs * width
            for row in range(0, rows, ROWS):
                a, c = (place * TILES + row) * inputs, (place * TILES + row) * panels * width + panel * width
                TILE(advance(pieces, a), advance(filters, b), advance(products, c), pieces, 1, inputs, 0, inputs, 0, 1, 0, width, panels * width,
                     min(ROWS, rows - row), ROWS, width, 0, 0, floor)


@njit(parallel=True, **OPTIONS)
def _convolve(inputs, weights, bias, padding, floor, none, scratch, outputs):
    (n, h, w, c), (oh, ow, k) = inputs.shape, outputs.shape[1:]
    full = lanes(inputs)
    width = VECTORS * full
    panels, down, across = (k + width - 1) // width, (oh + 3) // 4, (ow + 3) // 4
    filter_size = PLACES * panels * c * width
    share = PLACES * (full + TILES * (c + panels * width))
    total = n * down * across
    for block in prange((total + TILES - 1) // TILES):
        start, count = filter_size + numba.get_thread_id() * share, min(TILES, total - block * TILES)
        room, pieces = pointer(scratch, start), pointer(scratch, start + PLACES * full)
        products = pointer(scratch, start + PLACES * (full + TILES * c))
        for i in range(count):
            image, place = (block * TILES + i) // (down * across), (block * TILES + i) % (down * across)
            y, x = place // across * 4 - padding[0], place % across * 4 - padding[1]
            _transform_piece(pointer(inputs, image * h * w * c), (h, w), y, x, c, advance(pieces, i * c), TILES * c, room)
        _products(pieces, pointer(scratch, 0), products, count, c, panels, none)
        for i in range(count):
            image, place = (block * TILES + i) // (down * across), (block * TILES + i) % (down * across)
            _transform_result(advance(products, i * panels * width), TILES * panels * width, width, pointer(bias, 0), floor,
                              pointer(outputs, image * oh * ow * k), (oh, ow), place // across * 4, place % across * 4, k, room)
