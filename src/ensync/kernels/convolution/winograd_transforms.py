"""The transforms of Winograd's minimal filtering F(4x4, 3x3): pieces of the image, filters, tiles
of outputs and their gradients.

The points are 0, 2/3, -2/3, 3/2, -3/2 and infinity. Their errors are 0.4 of those with the usual 0,
1, -1, 2, -2 (products of bf16 on inputs behind a ReLU: 0.9 % of the outputs' spread instead of 2.2
%), and 2/3 * 3/2 = 1 saves two multiplications. Tiles of three outputs along a dimension, F(3, 3),
need five points (Toom and Cook's method takes any) and go without -3/2. The filter's factor at a
point p is 1 over the product of p's distances to the others; for the pieces of such tiles to share
the transformed filters, they bring the factor p + 3/2 that is then too many, which also makes what
they have at -3/2 zero. Tiles touch memory in pieces of a pixel's vector, which the processor does
not foresee: each asks for its part of the tiles below, or of the next image. `tile` is what
`winograd_tiling.tile_at` returns. `way` tells how a vector is written: PLAIN, HALVES (as bf16), or
BELOW (as bf16 in one place with what was written plainly before).
"""

from numba import njit, prange

from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer, transpose_block
from ensync.kernels.simd.panels import VECTORS
from ensync.kernels.simd.vectors import (
    advance,
    fetch,
    fetch_to_write,
    fma,
    load,
    maximum,
    pair,
    splat,
    store,
    store_halves,
    zeros,
)

PLACES = 36
DROPPED = 4  # the point that tiles of three go without
PLAIN, HALVES, BELOW = 0, 1, 2
A, B = 2 / 3, 3 / 2
A2, B2, A3, B3 = A**2, B**2, A**3, B**3
BOTH = A2 + B2
FILTER_A, FILTER_B = 1 / (2 * A2 * (A2 - B2)), 1 / (2 * B2 * (B2 - A2))


@njit(forceinline=True, **INNER)
def put(target, at, value, count, way, bf16):
    """Write a vector in one of the three ways; without bf16 it is the plain one."""
    if bf16 is None:
        store(target, at, value, count)
    elif way == HALVES:
        store_halves(target, at, value)
    elif way == BELOW:
        store(target, at, pair(load(target, at, count), value), count)
    else:
        store(target, at, value, count)


@njit(forceinline=True, **INNER)
def _piece(at, three, a, b, c, d, e, f):
    """B' times six values, or for three outputs times the first five."""
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
def _result(at, three, a, b, c, d, e, f):
    """A' times six values; for three outputs without the fifth value, and the fourth output is
    none.
    """
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
def _spread(at, three, a, b, c, d):
    """A times four values, or three."""
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
def _filter(at, a, b, c):
    """G times three values."""
    near, odd_near = splat(at, FILTER_A) * fma(splat(at, A2), c, a), splat(at, FILTER_A * A) * b
    far, odd_far = splat(at, FILTER_B) * fma(splat(at, B2), c, a), splat(at, FILTER_B * B) * b
    return a, near + odd_near, near - odd_near, far + odd_far, far - odd_far, c


@njit(forceinline=True, **INNER)
def _filter_back(at, a, b, c, d, e, f):
    """G' times six values."""
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
def _put_six(target, at, step, a, b, c, d, e, f, count, way, bf16):
    put(target, at, a, count, way, bf16)
    put(target, at + step, b, count, way, bf16)
    put(target, at + 2 * step, c, count, way, bf16)
    put(target, at + 3 * step, d, count, way, bf16)
    put(target, at + 4 * step, e, count, way, bf16)
    put(target, at + 5 * step, f, count, way, bf16)


@njit(forceinline=True, **INNER)
def _keep(target, at, step, a, b, c, d, e, f):
    full = lanes(target)
    store(target, at, a, full)
    store(target, at + step, b, full)
    store(target, at + 2 * step, c, full)
    store(target, at + 3 * step, d, full)
    store(target, at + 4 * step, e, full)
    store(target, at + 5 * step, f, full)


@njit(forceinline=True, **INNER)
def _recall(source, at, step):
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
def _ask_four(source, at, c):
    for pixel in range(4):
        fetch(source, at + pixel * c)


@njit(**INNER)
def transform_piece(
    source, window, tile, padding, c, target, target_step, channel_step, room, way, bf16
):
    """Write the 36 places of one tile's piece of the image, `target_step` apart, channels
    `channel_step` apart from vector to vector.

    `room`: 36 vectors for half-done work. Where channel_step is not 1, whole vectors are written;
    HALVES are half as long.
    """
    h, w = window
    _, y, x, short, narrow, below = tile
    y, x, ahead, full = (
        y - padding[0],
        x - padding[1],
        below if below > 0 else h + below,
        lanes(source),
    )
    for j in range(0, c, full):
        count = min(full, c - j)
        kept = count if channel_step == 1 else full
        for i in range(5 if short else 6):
            seen, at = _inside(y + i, h, count), ((y + i) * w + x) * c + j
            p, q, r, s, t, u = _six(source, at, c, x, w, seen)
            if i > 1:
                _ask_four(source, at + (ahead * w + 1) * c, c)
            p, q, r, s, t, u = _piece(source, narrow, p, q, r, s, t, u)
            _keep(room, i * 6 * full, full, p, q, r, s, t, u)
        for k in range(6):
            p, q, r, s, t, u = _recall(room, k * full, 6 * full)
            p, q, r, s, t, u = _piece(source, short, p, q, r, s, t, u)
            to = k * target_step + (
                j // 2 if bf16 is not None and way == HALVES else j * channel_step
            )
            _put_six(target, to, 6 * target_step, p, q, r, s, t, u, kept, way, bf16)


@njit(**INNER)
def transform_result(products, step, width, bias, floor, target, window, tile, c, room):
    """Write c channels of a tile of outputs from its 36 products, `step` apart, plus bias and
    not below the floor. window = (h, w, channels).
    """
    h, w, pitch = window
    _, y, x, short, narrow, below = tile
    full, low, ahead = lanes(products), splat(products, floor), below if below > 0 else h + below
    for j in range(0, c, full):
        count, add = min(full, c - j), load(bias, j, min(full, c - j))
        last = 0 if narrow else _inside(x + 3, w, count)
        for k in range(6):
            p, q, r, s, t, u = _recall(products, k * step + j, 6 * step)
            p, q, r, s = _result(products, short, p, q, r, s, t, u)
            store(room, k * full, p, full)
            store(room, (6 + k) * full, q, full)
            store(room, (12 + k) * full, r, full)
            store(room, (18 + k) * full, s, full)
        for i in range(min(3 if short else 4, h - y)):
            p, q, r, s, t, u = _recall(room, i * 6 * full, full)
            p, q, r, s = _result(products, narrow, p, q, r, s, t, u)
            at = ((y + i) * w + x) * pitch + j
            for pixel in range(4):
                fetch_to_write(target, at + (ahead * w + pixel) * pitch)
            store(target, at, maximum(p + add, low), count)
            store(target, at + pitch, maximum(q + add, low), _inside(x + 1, w, count))
            store(target, at + 2 * pitch, maximum(r + add, low), _inside(x + 2, w, count))
            store(target, at + 3 * pitch, maximum(s + add, low), last)


@njit(**INNER)
def transform_gradient(
    source, window, tile, c, target, target_step, panel_step, width, room, way, bf16
):
    """Write the 36 places of one tile of gradients, `target_step` apart, in panels of `width`
    channels.
    """
    h, w = window
    _, y, x, short, narrow, below = tile
    full, ahead = lanes(source), below if below > 0 else h + below
    for j in range(0, c, full):
        count, to = min(full, c - j), j // width * panel_step + j % width
        for i in range(3 if short else 4):
            seen, at = _inside(y + i, h, count), ((y + i) * w + x) * c + j
            p, q, r, s, t, u = _spread(
                source,
                narrow,
                load(source, at, seen),
                load(source, at + c, _inside(x + 1, w, seen)),
                load(source, at + 2 * c, _inside(x + 2, w, seen)),
                load(source, at + 3 * c, _inside(x + 3, w, seen)),
            )
            _ask_four(source, at + ahead * w * c, c)
            _keep(room, i * 6 * full, full, p, q, r, s, t, u)
        for k in range(6):
            p, q, r, s, t, u = _spread(
                source,
                short,
                load(room, k * full, full),
                load(room, (6 + k) * full, full),
                load(room, (12 + k) * full, full),
                load(room, (18 + k) * full, full),
            )
            _put_six(
                target, k * target_step + to, 6 * target_step, p, q, r, s, t, u, full, way, bf16
            )


@njit(**INNER)
def finish_filter(sums, step, width, panel_step, target, line, k):
    """Write the 3x3 filters of one input channel, `line` apart, from their 36 sums, `step`
    apart.
    """
    full = lanes(sums)
    for j in range(0, k, full):
        count, at = min(full, k - j), j // width * panel_step + j % width
        p, q, r, s, t, u = _recall(sums, at, 6 * step)
        a0, b0, c0 = _filter_back(sums, p, q, r, s, t, u)
        p, q, r, s, t, u = _recall(sums, at + step, 6 * step)
        a1, b1, c1 = _filter_back(sums, p, q, r, s, t, u)
        p, q, r, s, t, u = _recall(sums, at + 2 * step, 6 * step)
        a2, b2, c2 = _filter_back(sums, p, q, r, s, t, u)
        p, q, r, s, t, u = _recall(sums, at + 3 * step, 6 * step)
        a3, b3, c3 = _filter_back(sums, p, q, r, s, t, u)
        p, q, r, s, t, u = _recall(sums, at + 4 * step, 6 * step)
        a4, b4, c4 = _filter_back(sums, p, q, r, s, t, u)
        p, q, r, s, t, u = _recall(sums, at + 5 * step, 6 * step)
        a5, b5, c5 = _filter_back(sums, p, q, r, s, t, u)
        _keep_three(target, j, line, count, _filter_back(sums, a0, a1, a2, a3, a4, a5))
        _keep_three(target, 3 * line + j, line, count, _filter_back(sums, b0, b1, b2, b3, b4, b5))
        _keep_three(target, 6 * line + j, line, count, _filter_back(sums, c0, c1, c2, c3, c4, c5))


@njit(forceinline=True, **INNER)
def _keep_three(target, at, line, count, values):
    store(target, at, values[0], count)
    store(target, at + line, values[1], count)
    store(target, at + 2 * line, values[2], count)


@njit(forceinline=True, **INNER)
def _filter_channel(w, line, j, count, to, at, step, way, bf16):
    """Write the 36 places of one vector of output channels of one input channel."""
    full = lanes(w)
    a0, a1, a2, a3, a4, a5 = _filter(
        w, load(w, j, count), load(w, 3 * line + j, count), load(w, 6 * line + j, count)
    )
    b0, b1, b2, b3, b4, b5 = _filter(
        w, load(w, line + j, count), load(w, 4 * line + j, count), load(w, 7 * line + j, count)
    )
    c0, c1, c2, c3, c4, c5 = _filter(
        w, load(w, 2 * line + j, count), load(w, 5 * line + j, count), load(w, 8 * line + j, count)
    )
    p, q, r, s, t, u = _filter(w, a0, b0, c0)
    _put_six(to, at, step, p, q, r, s, t, u, full, way, bf16)
    p, q, r, s, t, u = _filter(w, a1, b1, c1)
    _put_six(to, at + 6 * step, step, p, q, r, s, t, u, full, way, bf16)
    p, q, r, s, t, u = _filter(w, a2, b2, c2)
    _put_six(to, at + 12 * step, step, p, q, r, s, t, u, full, way, bf16)
    p, q, r, s, t, u = _filter(w, a3, b3, c3)
    _put_six(to, at + 18 * step, step, p, q, r, s, t, u, full, way, bf16)
    p, q, r, s, t, u = _filter(w, a4, b4, c4)
    _put_six(to, at + 24 * step, step, p, q, r, s, t, u, full, way, bf16)
    p, q, r, s, t, u = _filter(w, a5, b5, c5)
    _put_six(to, at + 30 * step, step, p, q, r, s, t, u, full, way, bf16)


@njit(**KERNEL)
def panel_width(channels, full):
    """Columns of a panel of filters: one vector where it holds all."""
    return full if channels <= full else VECTORS * full


@njit(parallel=True, **KERNEL)
def transform_filter(weights, columns, target, bf16):
    """Write weights (3, 3, inputs, outputs) of the outputs columns = (first, end) as 36 matrices of
    panels, a line apart: (36, panels, inputs, width).

    Panels are padded with zeros.
    bf16: two neighbouring inputs, of an even number, in the place of one.
    """
    (inputs, outputs), (first, end) = weights.shape[2:], columns
    full, together = lanes(weights), 1 if bf16 is None else 2
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
                    BELOW if below else PLAIN,
                    bf16,
                )


@njit(parallel=True, **KERNEL)
def turn_filter(weights, target):
    """Write weights (3, 3, c, k) turned by 180 degrees and transposed, (3, 3, k, c), to the
    array `target`.
    """
    c, k = weights.shape[2:]
    full = lanes(weights)
    for item in prange(9 * ((c + full - 1) // full)):
        tap, i = item % 9, item // 9 * full
        source, to = pointer(weights, tap * c * k), pointer(target, (8 - tap) * c * k)
        for j in range(0, k, full):
            if i + full <= c and j + full <= k:
                transpose_block(advance(source, i * k + j), k, advance(to, j * c + i), c)
            else:
                for y in range(i, min(c, i + full)):
                    for x in range(j, min(k, j + full)):
                        target[(8 - tap) * c * k + x * c + y] = weights[tap // 3, tap % 3, y, x]
