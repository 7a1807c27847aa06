"""3x3 convolution at stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016): 4 times fewer multiplications.

A tile of 4x4 outputs y needs a 6x6 piece d of the image and the filter w:  y = A' [(G w G') * (B' d B)] A  (' = transposed).
Its transposed form gives the filter's gradient:  dw = G' [(A dy A') * (B' d B)] G. The products in brackets, per pair of
channels and each of the 36 places, become 36 matrix products over channels (or over tiles, for the filter's gradient).

Scratch, of `scratch_size`: the transformed filter, then for each thread its tiles' transformed pieces and products.
`bf16`: None, or True for those matrix products in bf16, two neighbouring terms of their sums in the place of one float32;
then the numbers of input and output channels are multiples of a vector's lanes.
"""

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.panels import ROWS, VECTORS, panel
from ensync.kernels.simd import SIMD, lanes, lanes_of, pointer, transpose_block
from ensync.kernels.vectors import advance, load, zeros
from ensync.kernels.winograd_transforms import (
    BELOW, HALVES, PLACES, PLAIN, finish_filter, put, transform_filter, transform_gradient, transform_piece, transform_result,
)

OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
FILTER_ROWS = {"avx512": 8}.get(SIMD, 4)    # divides the lanes
PANEL, PAIRS_PANEL = panel(started=False), panel(started=False, pairs=True)
FILTER_PANEL, ADD_PANEL = panel(started=False, rows=FILTER_ROWS), panel(started=True, rows=FILTER_ROWS)
PAIRS_FILTER_PANEL, PAIRS_ADD_PANEL = panel(False, FILTER_ROWS, pairs=True), panel(True, FILTER_ROWS, pairs=True)
TILES = 2 * ROWS    # of one block: its pieces and products stay in a core's second cache
WIDE_TILES = -(-128 // ROWS) * ROWS     # of one block where the transformed filter is larger than that cache: it is read once per block
WIDE_FROM = 128 * 128 + 1               # input times output channels


@njit(forceinline=True, **OPTIONS)
def _panel(a, b, c, terms, width, c_row, bf16):
    if bf16 is None:
        PANEL(a, b, c, c, terms, terms, 1, width, 0, c_row)
    else:
        PAIRS_PANEL(a, b, c, c, terms, terms, 1, width, 0, c_row)


@njit(**OPTIONS)
def _products(pieces, filters, products, rows, terms, panels, bf16):
    """Multiply, at each of the 36 places, pieces (TILES, terms) with the filter: products (TILES, panels * width)."""
    width = VECTORS * lanes(pieces)
    for place in range(PLACES):
        for panel in range(panels):
            b = (place * panels + panel) * terms * width
            for row in range(0, rows, ROWS):
                a, c = (place * TILES + row) * terms, (place * TILES + row) * panels * width + panel * width
                _panel(advance(pieces, a), advance(filters, b), advance(products, c), terms, width, panels * width, bf16)


@njit(parallel=True, **OPTIONS)
def _multiply(inputs, k, bias, padding, floor, scratch, outputs, bf16):
    (n, h, w, c), (oh, ow) = inputs.shape, outputs.shape[1:3]
    full = lanes(inputs)
    width = VECTORS * full
    panels, down, across = (k + width - 1) // width, (oh + 3) // 4, (ow + 3) // 4
    terms = c if bf16 is None else c // 2
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
            transform_piece(pointer(inputs, image * h * w * c), (h, w), y, x, c, advance(pieces, i * terms), TILES * terms, 1, room, HALVES, bf16)
        _products(pieces, pointer(scratch, 0), products, count, terms, panels, bf16)
        for i in range(count):
            image, place = (block * TILES + i) // (down * across), (block * TILES + i) % (down * across)
            transform_result(advance(products, i * panels * width), TILES * panels * width, width, pointer(bias, 0), floor,
                              pointer(outputs, image * oh * ow * k), (oh, ow), place // across * 4, place % across * 4, k, room)


@njit(**OPTIONS)
def _products_of(item, pieces, filters, products, rows, terms, panels, bf16):
    """Multiply pieces (WIDE_TILES, inputs) at one place with one panel of the filter; item counts places and panels."""
    width = VECTORS * lanes(pieces)
    place, panel_number = item // panels, item % panels
    for row in range(0, rows, ROWS):
        a = advance(pieces, (place * WIDE_TILES + row) * terms)
        c_at = advance(products, (place * WIDE_TILES + row) * panels * width + panel_number * width)
        _panel(a, advance(filters, item * terms * width), c_at, terms, width, panels * width, bf16)


@njit(parallel=True, **OPTIONS)
def _multiply_wide(inputs, k, bias, padding, floor, threads, scratch, outputs, bf16):
    """As `_multiply`, threads sharing a block of tiles, so that each reads only its part of a large filter."""
    (n, h, w, c), (oh, ow) = inputs.shape, outputs.shape[1:3]
    full = lanes(inputs)
    width = VECTORS * full
    panels, down, across = (k + width - 1) // width, (oh + 3) // 4, (ow + 3) // 4
    terms = c if bf16 is None else c // 2
    rooms = PLACES * panels * c * width
    pieces_at = rooms + threads * PLACES * full
    products_at = pieces_at + PLACES * WIDE_TILES * c
    for start in range(0, n * down * across, WIDE_TILES):
        count = min(WIDE_TILES, n * down * across - start)
        for i in prange(count):
            image, place = (start + i) // (down * across), (start + i) % (down * across)
            room = pointer(scratch, rooms + numba.get_thread_id() * PLACES * full)
            transform_piece(pointer(inputs, image * h * w * c), (h, w), place // across * 4 - padding[0], place % across * 4 - padding[1], c,
                            pointer(scratch, pieces_at + i * terms), WIDE_TILES * terms, 1, room, HALVES, bf16)
        for item in prange(PLACES * panels):
            _products_of(item, pointer(scratch, pieces_at), pointer(scratch, 0), pointer(scratch, products_at), count, terms, panels, bf16)
        for i in prange(count):
            image, place = (start + i) // (down * across), (start + i) % (down * across)
            room = pointer(scratch, rooms + numba.get_thread_id() * PLACES * full)
            transform_result(pointer(scratch, products_at + i * panels * width), WIDE_TILES * panels * width, width, pointer(bias, 0), floor,
                              pointer(outputs, image * oh * ow * k), (oh, ow), place // across * 4, place % across * 4, k, room)


@njit(**OPTIONS)
def _add_products(pieces, gradients, sums, place, part, terms, whole, panels, first, bf16):
    """Add pieces' times gradients of one block of tiles, at one place and for one panel of outputs, to the filter's sums."""
    full = lanes(pieces)
    width = VECTORS * full
    right = advance(gradients, (place * panels + part) * terms * width)
    for row in range(0, whole, FILTER_ROWS):
        left = advance(pieces, place * terms * whole + row // full * terms * full + row % full)
        to = advance(sums, ((place * panels + part) * whole + row) * width)
        if bf16 is None:
            if first:
                FILTER_PANEL(left, right, to, to, terms, 1, full, width, 0, width)
            else:
                ADD_PANEL(left, right, to, to, terms, 1, full, width, width, width)
        elif first:
            PAIRS_FILTER_PANEL(left, right, to, to, terms, 1, full, width, 0, width)
        else:
            PAIRS_ADD_PANEL(left, right, to, to, terms, 1, full, width, width, width)


@njit(**OPTIONS)
def _transform_pair(inputs, gradient, padding, tile, place, way, scratch, sizes, bf16):
    """Transform one tile's input piece and gradient to their place in the block, zeros where there is no such tile."""
    (n, h, w, c), (oh, ow, k) = inputs.shape, gradient.shape[1:]
    full = lanes(inputs)
    width, panels, down, across, whole, terms = VECTORS * full, sizes[0], sizes[1], sizes[2], sizes[5], sizes[6]
    room = pointer(scratch, numba.get_thread_id() * PLACES * full)
    pieces, spread = pointer(scratch, sizes[3] + place * full), pointer(scratch, sizes[4] + place * width)
    if tile >= n * down * across:
        nothing = zeros(pieces)
        for part in range(PLACES * whole // full):
            put(pieces, part * terms * full, nothing, full, way, bf16)
        for part in range(PLACES * panels):
            for j in range(0, width, full):
                put(spread, part * terms * width + j, nothing, full, way, bf16)
        return
    image, y, x = tile // (down * across), tile % (down * across) // across * 4, tile % across * 4
    transform_piece(pointer(inputs, image * h * w * c), (h, w), y - padding[0], x - padding[1], c, pieces, terms * whole, terms, room, way, bf16)
    transform_gradient(pointer(gradient, image * oh * ow * k), (oh, ow), y, x, k, spread, panels * terms * width, terms * width, width, room, way,
                       bf16)


@njit(parallel=True, **OPTIONS)
def filter_gradient(inputs, gradient, padding, threads, tiles, scratch, out, bf16):
    """Write the gradient of the filters to out (3, 3, c, k); `threads`: of which the scratch has room for."""
    (n, h, w, c), (oh, ow, k) = inputs.shape, gradient.shape[1:]
    full = lanes(inputs)
    width = VECTORS * full
    panels, down, across, whole = (k + width - 1) // width, (oh + 3) // 4, (ow + 3) // 4, (c + full - 1) // full * full
    pieces = threads * PLACES * full
    spread = pieces + PLACES * tiles * whole
    sums = spread + PLACES * panels * tiles * width
    together = 1 if bf16 is None else 2
    terms = tiles // together
    sizes = (panels, down, across, pieces, spread, whole, terms)
    for start in range(0, n * down * across, tiles):
        for place in prange(terms):
            for below in range(together):
                _transform_pair(inputs, gradient, padding, start + place * together + below, place, BELOW if below else PLAIN, scratch, sizes, bf16)
        for item in prange(PLACES * panels):
            _add_products(pointer(scratch, pieces), pointer(scratch, spread), pointer(scratch, sums), item // panels, item % panels,
                          terms, whole, panels, start == 0, bf16)
    for i in prange(c):
        finish_filter(pointer(scratch, sums + i * width), panels * whole * width, width, whole * width, pointer(out, i * k), c * k, k)


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
             scratch: np.ndarray, outputs: np.ndarray, bf16: bool | None = None) -> None:
    """Write the convolution plus bias, not below floor, to outputs; `turned`: with the filters of the input gradient."""
    if turned:
        c, k = weights.shape[2:]
        turned_weights = scratch[scratch.size - weights.size :].reshape(3, 3, k, c)
        _turn(weights, turned_weights.reshape(-1))
        weights = turned_weights
    transform_filter(weights, scratch, bf16)
    if is_wide(*weights.shape[2:]):
        _multiply_wide(inputs, weights.shape[3], bias, padding, floor, numba.config.NUMBA_NUM_THREADS, scratch, outputs, bf16)
    else:
        _multiply(inputs, weights.shape[3], bias, padding, floor, scratch, outputs, bf16)


def weight_gradient(inputs: np.ndarray, gradient: np.ndarray, padding: tuple[int, int], scratch: np.ndarray, out: np.ndarray,
                    bf16: bool | None = None) -> None:
    """Write the gradient of the filters to out (3, 3, c, k)."""
    tiles = WIDE_TILES if is_wide(*out.shape[2:]) else TILES
    filter_gradient(inputs, gradient, padding, numba.config.NUMBA_NUM_THREADS, tiles, scratch, out, bf16)


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
