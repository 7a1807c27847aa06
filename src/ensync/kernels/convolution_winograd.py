"""3x3 convolution at stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016): 4 times fewer multiplications.

A tile of 4x4 outputs y needs a 6x6 piece d of the image and the filter w:  y = A' [(G w G') * (B' d B)] A  (' = transposed).
Its transposed form gives the filter's gradient:  dw = G' [(A dy A') * (B' d B)] G. The products in brackets, per pair of
channels and each of the 36 places, become 36 matrix products over channels (or over tiles, for the filter's gradient).

Scratch, of `scratch_size`: the transformed filter, then for each thread its tiles' transformed pieces and products.
"""

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.panels import ROWS, VECTORS, panel
from ensync.kernels.simd import SIMD, lanes, lanes_of, pointer, transpose_block
from ensync.kernels.vectors import advance, fma, load, maximum, splat, store, zeros

OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
FILTER_ROWS = {"avx512": 8}.get(SIMD, 4)    # divides the lanes
PANEL = panel(started=False)
FILTER_PANEL, ADD_PANEL = panel(started=False, rows=FILTER_ROWS), panel(started=True, rows=FILTER_ROWS)
PLACES = 36
TILES = 2 * ROWS    # of one block: its pieces and products stay in a core's second cache
WIDE_TILES = -(-128 // ROWS) * ROWS     # of one block where the transformed filter is larger than that cache: it is read once per block
WIDE_FROM = 128 * 128 + 1               # input times output channels


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
def _transform_piece(source, window, y, x, c, target, target_step, channel_step, room):
    """Write the 36 places of one 6x6 piece, `target_step` apart, channels `channel_step` apart from vector to vector.

    `room`: 36 vectors for half-done work. Where channel_step is not 1, whole vectors are written.
    """
    h, w = window
    full = lanes(source)
    for j in range(0, c, full):
        count = min(full, c - j)
        kept = count if channel_step == 1 else full
        for i in range(6):
            seen = _inside(y + i, h, count)
            p, q, r, s, t, u = _six(source, ((y + i) * w + x) * c + j, c, x, w, seen)
            p, q, r, s, t, u = _piece(source, p, q, r, s, t, u)
            _keep(room, i * 6 * full, full, p, q, r, s, t, u)
        for k in range(6):
            p, q, r, s, t, u = _recall(room, k * full, 6 * full)
            p, q, r, s, t, u = _piece(source, p, q, r, s, t, u)
            to = k * target_step + j * channel_step
            store(target, to, p, kept)
            store(target, to + 6 * target_step, q, kept)
            store(target, to + 12 * target_step, r, kept)
            store(target, to + 18 * target_step, s, kept)
            store(target, to + 24 * target_step, t, kept)
            store(target, to + 30 * target_step, u, kept)


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
def _products(pieces, filters, products, rows, inputs, panels):
    """Multiply, at each of the 36 places, pieces (TILES, inputs) with the filter: products (TILES, panels * width)."""
    width = VECTORS * lanes(pieces)
    for place in range(PLACES):
        for panel in range(panels):
            b = (place * panels + panel) * inputs * width
            for row in range(0, rows, ROWS):
                a, c = (place * TILES + row) * inputs, (place * TILES + row) * panels * width + panel * width
                c_at = advance(products, c)
                PANEL(advance(pieces, a), advance(filters, b), c_at, c_at, inputs, inputs, 1, width, 0, panels * width)


@njit(parallel=True, **OPTIONS)
def _multiply(inputs, k, bias, padding, floor, scratch, outputs):
    (n, h, w, c), (oh, ow) = inputs.shape, outputs.shape[1:3]
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
            _transform_piece(pointer(inputs, image * h * w * c), (h, w), y, x, c, advance(pieces, i * c), TILES * c, 1, room)
        _products(pieces, pointer(scratch, 0), products, count, c, panels)
        for i in range(count):
            image, place = (block * TILES + i) // (down * across), (block * TILES + i) % (down * across)
            _transform_result(advance(products, i * panels * width), TILES * panels * width, width, pointer(bias, 0), floor,
                              pointer(outputs, image * oh * ow * k), (oh, ow), place // across * 4, place % across * 4, k, room)


@njit(**OPTIONS)
def _products_of(item, pieces, filters, products, rows, inputs, panels):
    """Multiply pieces (WIDE_TILES, inputs) at one place with one panel of the filter; item counts places and panels."""
    width = VECTORS * lanes(pieces)
    place, panel_number = item // panels, item % panels
    for row in range(0, rows, ROWS):
        a = advance(pieces, (place * WIDE_TILES + row) * inputs)
        c_at = advance(products, (place * WIDE_TILES + row) * panels * width + panel_number * width)
        PANEL(a, advance(filters, item * inputs * width), c_at, c_at, inputs, inputs, 1, width, 0, panels * width)


@njit(parallel=True, **OPTIONS)
def _multiply_wide(inputs, k, bias, padding, floor, threads, scratch, outputs):
    """As `_multiply`, threads sharing a block of tiles, so that each reads only its part of a large filter."""
    (n, h, w, c), (oh, ow) = inputs.shape, outputs.shape[1:3]
    full = lanes(inputs)
    width = VECTORS * full
    panels, down, across = (k + width - 1) // width, (oh + 3) // 4, (ow + 3) // 4
    rooms = PLACES * panels * c * width
    pieces_at = rooms + threads * PLACES * full
    products_at = pieces_at + PLACES * WIDE_TILES * c
    for start in range(0, n * down * across, WIDE_TILES):
        count = min(WIDE_TILES, n * down * across - start)
        for i in prange(count):
            image, place = (start + i) // (down * across), (start + i) % (down * across)
            room = pointer(scratch, rooms + numba.get_thread_id() * PLACES * full)
            _transform_piece(pointer(inputs, image * h * w * c), (h, w), place // across * 4 - padding[0], place % across * 4 - padding[1], c,
                             pointer(scratch, pieces_at + i * c), WIDE_TILES * c, 1, room)
        for item in prange(PLACES * panels):
            _products_of(item, pointer(scratch, pieces_at), pointer(scratch, 0), pointer(scratch, products_at), count, c, panels)
        for i in prange(count):
            image, place = (start + i) // (down * across), (start + i) % (down * across)
            room = pointer(scratch, rooms + numba.get_thread_id() * PLACES * full)
            _transform_result(pointer(scratch, products_at + i * panels * width), WIDE_TILES * panels * width, width, pointer(bias, 0), floor,
                              pointer(outputs, image * oh * ow * k), (oh, ow), place // across * 4, place % across * 4, k, room)


@njit(**OPTIONS)
def _transform_gradient(source, window, y, x, c, target, target_step, panel_step, width, room):
    """Write the 36 places of one tile of 4x4 gradients, `target_step` apart, in panels of `width` channels."""
    h, w = window
    full = lanes(source)
    for j in range(0, c, full):
        count, to = min(full, c - j), j // width * panel_step + j % width
        for i in range(4):
            seen, at = _inside(y + i, h, count), ((y + i) * w + x) * c + j
            p, q, r, s, t, u = _spread(source, load(source, at, seen), load(source, at + c, _inside(x + 1, w, seen)),
                                       load(source, at + 2 * c, _inside(x + 2, w, seen)), load(source, at + 3 * c, _inside(x + 3, w, seen)))
            _keep(room, i * 6 * full, full, p, q, r, s, t, u)
        for k in range(6):
            p, q, r, s, t, u = _spread(source, load(room, k * full, full), load(room, (6 + k) * full, full),
                                       load(room, (12 + k) * full, full), load(room, (18 + k) * full, full))
            _keep(target, k * target_step + to, 6 * target_step, p, q, r, s, t, u)


@njit(**OPTIONS)
def _add_products(pieces, gradients, sums, place, part, tiles, whole, panels, first):
    """Add pieces' times gradients of one block of tiles, at one place and for one panel of outputs, to the filter's sums."""
    full = lanes(pieces)
    width = VECTORS * full
    b = (place * panels + part) * tiles * width
    for row in range(0, whole, FILTER_ROWS):
        a = place * tiles * whole + row // full * tiles * full + row % full
        to = advance(sums, ((place * panels + part) * whole + row) * width)
        if first:
            FILTER_PANEL(advance(pieces, a), advance(gradients, b), to, to, tiles, 1, full, width, 0, width)
        else:
            ADD_PANEL(advance(pieces, a), advance(gradients, b), to, to, tiles, 1, full, width, width, width)


@njit(**OPTIONS)
def _clear(target, elements):
    full = lanes(target)
    for at in range(0, elements, full):
        store(target, at, zeros(target), min(full, elements - at))


@njit(**OPTIONS)
def _finish_filter(sums, step, width, panel_step, target, line, k):
    """Write the 3x3 filters of one input channel, `line` apart, from their 36 sums, `step` apart."""
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


@njit(forceinline=True, **OPTIONS)
def _keep_three(target, at, line, count, values):
    store(target, at, values[0], count)
    store(target, at + line, values[1], count)
    store(target, at + 2 * line, values[2], count)


@njit(**OPTIONS)
def _transform_pair(inputs, gradient, padding, tile, slot, scratch, sizes):
    """Transform one tile's input piece and gradient into the slot of its block, zeros where there is no such tile."""
    (n, h, w, c), (oh, ow, k) = inputs.shape, gradient.shape[1:]
    full = lanes(inputs)
    width, panels, down, across, whole, tiles = VECTORS * full, sizes[0], sizes[1], sizes[2], sizes[5], sizes[6]
    room = pointer(scratch, numba.get_thread_id() * PLACES * full)
    pieces, spread = pointer(scratch, sizes[3] + slot * full), pointer(scratch, sizes[4] + slot * width)
    if tile >= n * down * across:
        for place in range(PLACES):
            for part in range(whole // full):
                _clear(advance(pieces, (place * whole // full + part) * tiles * full), full)
            for part in range(panels):
                _clear(advance(spread, (place * panels + part) * tiles * width), width)
        return
    image, y, x = tile // (down * across), tile % (down * across) // across * 4, tile % across * 4
    _transform_piece(pointer(inputs, image * h * w * c), (h, w), y - padding[0], x - padding[1], c, pieces, tiles * whole,
                     tiles, room)
    _transform_gradient(pointer(gradient, image * oh * ow * k), (oh, ow), y, x, k, spread, panels * tiles * width,
                        tiles * width, width, room)


@njit(parallel=True, **OPTIONS)
def filter_gradient(inputs, gradient, padding, threads, tiles, scratch, out):
    """Write the gradient of the filters to out (3, 3, c, k); `threads`: of which the scratch has room for."""
    (n, h, w, c), (oh, ow, k) = inputs.shape, gradient.shape[1:]
    full = lanes(inputs)
    width = VECTORS * full
    panels, down, across, whole = (k + width - 1) // width, (oh + 3) // 4, (ow + 3) // 4, (c + full - 1) // full * full
    pieces = threads * PLACES * full
    spread = pieces + PLACES * tiles * whole
    sums = spread + PLACES * panels * tiles * width
    sizes = (panels, down, across, pieces, spread, whole, tiles)
    for start in range(0, n * down * across, tiles):
        for slot in prange(tiles):
            _transform_pair(inputs, gradient, padding, start + slot, slot, scratch, sizes)
        for item in prange(PLACES * panels):
            _add_products(pointer(scratch, pieces), pointer(scratch, spread), pointer(scratch, sums), item // panels, item % panels,
                          tiles, whole, panels, start == 0)
    for i in prange(c):
        _finish_filter(pointer(scratch, sums + i * width), panels * whole * width, width, whole * width, pointer(out, i * k), c * k, k)


@njit(parallel=True, **OPTIONS)
def _turn(weights, target):
    """Write weights (3, 3, c, k) turned by 180 degrees and transposed, (3, 3, k, c), to the array `target`."""
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


def convolve(inputs: np.ndarray, weights: np.ndarray, bias: np.ndarray, padding: tuple[int, int], floor: np.floating, turned: bool,
             scratch: np.ndarray, outputs: np.ndarray) -> None:
    """Write the convolution plus bias, not below floor, to outputs; `turned`: with the filters of the input gradient."""
    if turned:
        c, k = weights.shape[2:]
        turned_weights = scratch[scratch.size - weights.size :].reshape(3, 3, k, c)
        _turn(weights, turned_weights.reshape(-1))
        weights = turned_weights
    _transform_filter(weights, scratch)
    if is_wide(*weights.shape[2:]):
        _multiply_wide(inputs, weights.shape[3], bias, padding, floor, numba.config.NUMBA_NUM_THREADS, scratch, outputs)
    else:
        _multiply(inputs, weights.shape[3], bias, padding, floor, scratch, outputs)


def weight_gradient(inputs: np.ndarray, gradient: np.ndarray, padding: tuple[int, int], scratch: np.ndarray, out: np.ndarray) -> None:
    """Write the gradient of the filters to out (3, 3, c, k)."""
    tiles = WIDE_TILES if is_wide(*out.shape[2:]) else TILES
    filter_gradient(inputs, gradient, padding, numba.config.NUMBA_NUM_THREADS, tiles, scratch, out)


def is_wide(c: int, k: int) -> bool:
    """Whether the transformed filter is too large to be read for every few tiles."""
    return c * k >= WIDE_FROM


def scratch_size(c: int, k: int, threads: int, itemsize: int) -> int:
    """Return the elements of scratch that the three passes with c input and k output channels need."""
    full = lanes_of(itemsize)
    width = VECTORS * full
    c_whole, k_whole = -(-c // width) * width, -(-k // width) * width
    tiles = WIDE_TILES if is_wide(c, k) else threads * TILES
    return PLACES * (c_whole * k_whole + threads * full + tiles * (c_whole + k_whole)) + 9 * c * k
