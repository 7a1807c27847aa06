"""The transforms of Winograd's minimal filtering F(4x4, 3x3): tiles of inputs, filters, tiles of
outputs and of their gradients.

The points are 0, 2/3, -2/3, 3/2, -3/2 and infinity. Their errors are 0.4 of those with the usual 0,
1, -1, 2, -2 (products of bf16 on inputs behind a ReLU: 0.9 % of the outputs' standard deviation
instead of 2.2 %), and 2/3 * 3/2 = 1 saves two multiplications. Tiles of three outputs along a
dimension, F(3, 3), need five points (Toom and Cook's method takes any) and go without -3/2. The
filter's factor at a point p is 1 over the product of p's distances to the others. So that input
tiles of three outputs can use the same transformed filters, their transform includes the surplus
factor p + 3/2, which also makes their values at -3/2 zero.

A tile has 36 points, 6 vertical times 6 horizontal ones. Tiles touch memory in vectors of a pixel,
an order that the processor does not foresee, so each prefetches its part of the tile below, or of
the next image. `way`: how a vector is stored (operands.py).
"""

from typing import NamedTuple

from numba import njit, prange

from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer, transpose_block
from ensync.kernels.simd.operands import (
    PAIRED,
    PLAIN,
    numbers_per_term,
    operand_index,
    store_operand,
)
from ensync.kernels.simd.panels import panel_width
from ensync.kernels.simd.vectors import (
    advance,
    fetch,
    fetch_to_write,
    fma,
    load,
    maximum,
    splat,
    store,
    zeros,
)

POINTS = 36
DROPPED = 4  # the point that tiles of three go without
A, B = 2 / 3, 3 / 2
A2, B2, A3, B3 = A**2, B**2, A**3, B**3
BOTH = A2 + B2
FILTER_A, FILTER_B = 1 / (2 * A2 * (A2 - B2)), 1 / (2 * B2 * (B2 - A2))


class Tile(NamedTuple):
    """A tile of 4x4 outputs: its image, first line y and column x; short tiles have three lines,
    narrow ones three columns.

    below: lines to the tile of its kind below. From the last one it leads back to the first, 0 or
    less: the next image's is as many lines on as images have.
    """

    image: int
    y: int
    x: int
    short: bool
    narrow: bool
    below: int


class Image(NamedTuple):
    """Lines, columns and channels of an image."""

    h: int
    w: int
    c: int


class Steps(NamedTuple):
    """Elements from one to the next in transformed tiles: points, and channels or panels of
    channels.
    """

    point: int
    channel: int


@njit(forceinline=True, **INNER)
def _input_points(at, three, values):
    """B' times six values, or for three outputs times the first five."""
    a, b, c, d, e, f = values
    if three:
        far, odd = fma(splat(at, B), d, splat(at, -A) * b), fma(splat(at, A), d, splat(at, -B) * b)
        near = fma(splat(at, A2 - B2), c, far)
        return (
            fma(splat(at, -B2), c, a) + far,
            near + odd,
            near - odd,
            far + far,
            zeros(at),
            fma(splat(at, -A2), c, e) - far,
        )
    near, odd_near = fma(splat(at, -B2), c, e), splat(at, A) * fma(splat(at, -B2), b, d)
    far, odd_far = fma(splat(at, -A2), c, e), splat(at, B) * fma(splat(at, -A2), b, d)
    both = splat(at, -BOTH)
    return (
        fma(both, c, a) + e,
        near + odd_near,
        near - odd_near,
        far + odd_far,
        far - odd_far,
        fma(both, d, b) + f,
    )


@njit(forceinline=True, **INNER)
def _output_points(at, three, values):
    """A' times six values; for three outputs without the fifth value, and the fourth output is
    none.
    """
    a, b, c, d, e, f = values
    s, t = b + c, b - c
    if three:
        return (
            a + s + d,
            fma(splat(at, A), t, splat(at, B) * d),
            fma(splat(at, A2), s, fma(splat(at, B2), d, f)),
            f,
        )
    u, v = d + e, d - e
    return (
        a + s + u,
        fma(splat(at, A), t, splat(at, B) * v),
        fma(splat(at, A2), s, splat(at, B2) * u),
        fma(splat(at, A3), t, fma(splat(at, B3), v, f)),
    )


@njit(forceinline=True, **INNER)
def _gradient_points(at, three, values):
    """A times four values, or three."""
    a, b, c, d = values
    if three:
        near, odd = fma(splat(at, A2), c, a), splat(at, A) * b
        return (
            a,
            near + odd,
            near - odd,
            fma(splat(at, B2), c, fma(splat(at, B), b, a)),
            zeros(at),
            c,
        )
    near, odd_near = fma(splat(at, A2), c, a), splat(at, A) * fma(splat(at, A2), d, b)
    far, odd_far = fma(splat(at, B2), c, a), splat(at, B) * fma(splat(at, B2), d, b)
    return a, near + odd_near, near - odd_near, far + odd_far, far - odd_far, d


@njit(forceinline=True, **INNER)
def _filter_points(at, a, b, c):
    """G times three values."""
    near, odd_near = splat(at, FILTER_A) * fma(splat(at, A2), c, a), splat(at, FILTER_A * A) * b
    far, odd_far = splat(at, FILTER_B) * fma(splat(at, B2), c, a), splat(at, FILTER_B * B) * b
    return a, near + odd_near, near - odd_near, far + odd_far, far - odd_far, c


@njit(forceinline=True, **INNER)
def _filter_gradient(at, values):
    """G' times six values."""
    a, b, c, d, e, f = values
    near, odd_near = splat(at, FILTER_A) * (b + c), splat(at, FILTER_A * A) * (b - c)
    far, odd_far = splat(at, FILTER_B) * (d + e), splat(at, FILTER_B * B) * (d - e)
    return a + near + far, odd_near + odd_far, fma(splat(at, A2), near, fma(splat(at, B2), far, f))


@njit(forceinline=True, **INNER)
def _inside(position, size, count):
    return count if 0 <= position < size else 0


@njit(forceinline=True, **INNER)
def _six(source, at, c, x, w, count):
    """Six neighbours of a line from column x on; those outside the image are 0."""
    if x >= 0 and x + 6 <= w and count == lanes(source):
        full = lanes(source)
        return (
            load(source, at, full),
            load(source, at + c, full),
            load(source, at + 2 * c, full),
            load(source, at + 3 * c, full),
            load(source, at + 4 * c, full),
            load(source, at + 5 * c, full),
        )
    return (
        load(source, at, _inside(x, w, count)),
        load(source, at + c, _inside(x + 1, w, count)),
        load(source, at + 2 * c, _inside(x + 2, w, count)),
        load(source, at + 3 * c, _inside(x + 3, w, count)),
        load(source, at + 4 * c, _inside(x + 4, w, count)),
        load(source, at + 5 * c, _inside(x + 5, w, count)),
    )


@njit(forceinline=True, **INNER)
def _store_points(target, at, step, values, count, way, bf16):
    """Store six vectors, `step` apart, as operands of a product."""
    store_operand(target, at, values[0], count, way, bf16)
    store_operand(target, at + step, values[1], count, way, bf16)
    store_operand(target, at + 2 * step, values[2], count, way, bf16)
    store_operand(target, at + 3 * step, values[3], count, way, bf16)
    store_operand(target, at + 4 * step, values[4], count, way, bf16)
    store_operand(target, at + 5 * step, values[5], count, way, bf16)


@njit(forceinline=True, **INNER)
def _store_six(target, at, step, values):
    full = lanes(target)
    store(target, at, values[0], full)
    store(target, at + step, values[1], full)
    store(target, at + 2 * step, values[2], full)
    store(target, at + 3 * step, values[3], full)
    store(target, at + 4 * step, values[4], full)
    store(target, at + 5 * step, values[5], full)


@njit(forceinline=True, **INNER)
def _load_six(source, at, step):
    full = lanes(source)
    return (
        load(source, at, full),
        load(source, at + step, full),
        load(source, at + 2 * step, full),
        load(source, at + 3 * step, full),
        load(source, at + 4 * step, full),
        load(source, at + 5 * step, full),
    )


@njit(forceinline=True, **INNER)
def _prefetch_four(source, at, c):
    for pixel in range(4):
        fetch(source, at + pixel * c)


@njit(**INNER)
def transform_input(source, image, tile, padding, target, steps, buffer, way, bf16):
    """Write the 36 points of one tile of inputs.

    buffer: 36 vectors. steps: their `channel` is from vector to vector; where it is not 1, whole
    vectors are written.
    """
    h, w, c = image
    y, x, full = tile.y - padding[0], tile.x - padding[1], lanes(source)
    ahead = tile.below if tile.below > 0 else h + tile.below
    for j in range(0, c, full):
        count = min(full, c - j)
        stored = count if steps.channel == 1 else full
        for i in range(5 if tile.short else 6):
            seen, at = _inside(y + i, h, count), ((y + i) * w + x) * c + j
            values = _six(source, at, c, x, w, seen)
            if i > 1:
                _prefetch_four(source, at + (ahead * w + 1) * c, c)
            _store_six(buffer, i * 6 * full, full, _input_points(source, tile.narrow, values))
        for k in range(6):
            values = _load_six(buffer, k * full, 6 * full)
            to = k * steps.point + operand_index(j * steps.channel, way, bf16)
            values = _input_points(source, tile.short, values)
            _store_points(target, to, 6 * steps.point, values, stored, way, bf16)


@njit(**INNER)
def transform_output(products, step, bias, floor, target, image, tile, c, buffer):
    """Write c channels of a tile of outputs from its products at 36 points, `step` apart, plus
    bias and not below the floor. image: of the outputs.
    """
    h, w, pitch = image
    y, x, full, low = tile.y, tile.x, lanes(products), splat(products, floor)
    ahead = tile.below if tile.below > 0 else h + tile.below
    for j in range(0, c, full):
        count, add = min(full, c - j), load(bias, j, min(full, c - j))
        last = 0 if tile.narrow else _inside(x + 3, w, count)
        for k in range(6):
            values = _load_six(products, k * step + j, 6 * step)
            p, q, r, s = _output_points(products, tile.short, values)
            store(buffer, k * full, p, full)
            store(buffer, (6 + k) * full, q, full)
            store(buffer, (12 + k) * full, r, full)
            store(buffer, (18 + k) * full, s, full)
        for i in range(min(3 if tile.short else 4, h - y)):
            values = _load_six(buffer, i * 6 * full, full)
            p, q, r, s = _output_points(products, tile.narrow, values)
            at = ((y + i) * w + x) * pitch + j
            for pixel in range(4):
                fetch_to_write(target, at + (ahead * w + pixel) * pitch)
            store(target, at, maximum(low, p + add), count)
            store(target, at + pitch, maximum(low, q + add), _inside(x + 1, w, count))
            store(target, at + 2 * pitch, maximum(low, r + add), _inside(x + 2, w, count))
            store(target, at + 3 * pitch, maximum(low, s + add), last)


@njit(**INNER)
def transform_gradient(source, image, tile, target, steps, width, buffer, way, bf16):
    """Write the 36 points of one tile of gradients, in panels of `width` channels. steps: their
    `channel` is from panel to panel.
    """
    h, w, c = image
    y, x, full = tile.y, tile.x, lanes(source)
    ahead = tile.below if tile.below > 0 else h + tile.below
    for j in range(0, c, full):
        count, to = min(full, c - j), j // width * steps.channel + j % width
        for i in range(3 if tile.short else 4):
            seen, at = _inside(y + i, h, count), ((y + i) * w + x) * c + j
            values = (
                load(source, at, seen),
                load(source, at + c, _inside(x + 1, w, seen)),
                load(source, at + 2 * c, _inside(x + 2, w, seen)),
                load(source, at + 3 * c, _inside(x + 3, w, seen)),
            )
            points = _gradient_points(source, tile.narrow, values)
            _prefetch_four(source, at + ahead * w * c, c)
            _store_six(buffer, i * 6 * full, full, points)
        for k in range(6):
            column = (
                load(buffer, k * full, full),
                load(buffer, (6 + k) * full, full),
                load(buffer, (12 + k) * full, full),
                load(buffer, (18 + k) * full, full),
            )
            points = _gradient_points(source, tile.short, column)
            _store_points(target, k * steps.point + to, 6 * steps.point, points, full, way, bf16)


@njit(**INNER)
def finish_filter(sums, steps, width, target, line, k):
    """Write the 3x3 filters of one input channel, `line` apart, from their sums at 36 points in
    panels of `width` output channels.
    """
    full, step = lanes(sums), steps.point
    for j in range(0, k, full):
        count, at = min(full, k - j), j // width * steps.channel + j % width
        a0, b0, c0 = _filter_gradient(sums, _load_six(sums, at, 6 * step))
        a1, b1, c1 = _filter_gradient(sums, _load_six(sums, at + step, 6 * step))
        a2, b2, c2 = _filter_gradient(sums, _load_six(sums, at + 2 * step, 6 * step))
        a3, b3, c3 = _filter_gradient(sums, _load_six(sums, at + 3 * step, 6 * step))
        a4, b4, c4 = _filter_gradient(sums, _load_six(sums, at + 4 * step, 6 * step))
        a5, b5, c5 = _filter_gradient(sums, _load_six(sums, at + 5 * step, 6 * step))
        _store_three(target, j, line, count, _filter_gradient(sums, (a0, a1, a2, a3, a4, a5)))
        _store_three(
            target, 3 * line + j, line, count, _filter_gradient(sums, (b0, b1, b2, b3, b4, b5))
        )
        _store_three(
            target, 6 * line + j, line, count, _filter_gradient(sums, (c0, c1, c2, c3, c4, c5))
        )


@njit(forceinline=True, **INNER)
def _store_three(target, at, line, count, values):
    store(target, at, values[0], count)
    store(target, at + line, values[1], count)
    store(target, at + 2 * line, values[2], count)


@njit(forceinline=True, **INNER)
def _filter_channel(w, line, j, count, to, at, step, way, bf16):
    """Write the 36 points of one vector of output channels of one input channel."""
    full = lanes(w)
    a0, a1, a2, a3, a4, a5 = _filter_points(
        w, load(w, j, count), load(w, 3 * line + j, count), load(w, 6 * line + j, count)
    )
    b0, b1, b2, b3, b4, b5 = _filter_points(
        w, load(w, line + j, count), load(w, 4 * line + j, count), load(w, 7 * line + j, count)
    )
    c0, c1, c2, c3, c4, c5 = _filter_points(
        w, load(w, 2 * line + j, count), load(w, 5 * line + j, count), load(w, 8 * line + j, count)
    )
    _store_points(to, at, step, _filter_points(w, a0, b0, c0), full, way, bf16)
    _store_points(to, at + 6 * step, step, _filter_points(w, a1, b1, c1), full, way, bf16)
    _store_points(to, at + 12 * step, step, _filter_points(w, a2, b2, c2), full, way, bf16)
    _store_points(to, at + 18 * step, step, _filter_points(w, a3, b3, c3), full, way, bf16)
    _store_points(to, at + 24 * step, step, _filter_points(w, a4, b4, c4), full, way, bf16)
    _store_points(to, at + 30 * step, step, _filter_points(w, a5, b5, c5), full, way, bf16)


@njit(parallel=True, **KERNEL)
def transform_filter(weights, columns, target, bf16):
    """Write weights (3, 3, inputs, outputs) of the outputs columns = (first, end) as 36 matrices of
    panels, a cache line apart: (36, panels, terms, width).

    Panels are padded with zeros. With bf16 a term is two neighbouring inputs, of an even number.
    """
    (inputs, outputs), (first, end) = weights.shape[2:], columns
    full, together = lanes(weights), numbers_per_term(bf16)
    width, terms = panel_width(outputs, full), inputs // together
    panels = (end - first + width - 1) // width
    for i in prange(terms):
        to = pointer(target, i * width)
        for j in range(0, panels * width, full):
            count, at = max(0, min(full, end - first - j)), j // width * terms * width + j % width
            for below in range(together):
                w = pointer(weights, (i * together + below) * outputs + first)
                _filter_channel(
                    w,
                    inputs * outputs,
                    j,
                    count,
                    to,
                    at,
                    panels * terms * width + full,
                    PAIRED if below else PLAIN,
                    bf16,
                )


@njit(parallel=True, **KERNEL)
def turn_filter(weights, target):
    """Write weights (kh, kw, c, k) turned by 180 degrees and transposed, (kh, kw, k, c), to the
    array `target`.
    """
    kh, kw, c, k = weights.shape
    full, taps = lanes(weights), kh * kw
    for item in prange(taps * ((c + full - 1) // full)):
        tap, i = item % taps, item // taps * full
        source, to = pointer(weights, tap * c * k), pointer(target, (taps - 1 - tap) * c * k)
        for j in range(0, k, full):
            if i + full <= c and j + full <= k:
                transpose_block(advance(source, i * k + j), k, advance(to, j * c + i), c)
            else:
                for y in range(i, min(c, i + full)):
                    for x in range(j, min(k, j + full)):
                        to[x * c + y] = source[y * k + x]
