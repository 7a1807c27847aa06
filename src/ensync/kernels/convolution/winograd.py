"""3x3 convolution at stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016): 4
times fewer multiplications.

A tile of 4x4 outputs y needs a 6x6 piece d of the image and the filter w:  y = A' [(G w G') * (B' d
B)] A  (' = transposed). Its transposed form gives the filter's gradient:  dw = G' [(A dy A') * (B'
d B)] G. The products in brackets, per pair of channels and each of the 36 places, become 36 matrix
products over channels (or over tiles, for the filter's gradient). Where sides are no multiples of
four, tiles of three outputs go without one of the six points of that dimension, that is F(3, 3)
with the filters of F(4, 3): `winograd_tiling` orders the tiles so that each place's products are of
those that need it.

Scratch, of `scratch_size`: the transformed filter, then for each thread its tiles' transformed
pieces and products. `bf16`: None, or a flag for those matrix products in bf16, two neighbouring
terms of their sums in the place of one float32; then the numbers of input and output channels are
multiples of a vector's lanes.
"""

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.convolution.winograd_tiling import tile_at, tiles_with, tiling_of
from ensync.kernels.convolution.winograd_transforms import (
    BELOW,
    HALVES,
    PLACES,
    PLAIN,
    finish_filter,
    panel_width,
    put,
    transform_filter,
    transform_gradient,
    transform_piece,
    transform_result,
    turn_filter,
)
from ensync.kernels.flags import Flag, flag
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd import panels
from ensync.kernels.simd.host import SIMD, lanes_of
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.memory import clear
from ensync.kernels.simd.panels import VECTORS, panel
from ensync.kernels.simd.vectors import advance, fetch, zeros

ROWS = {"avx512": 13}.get(
    SIMD,
    panels.ROWS,
    # of a tile: batches are powers of two, and so are many images' tiles: 5 x 13 is 64 and little
    # more
)
FILTER_ROWS = {"avx512": 8}.get(
    SIMD, 4
)  # of a tile of the filter's gradient; all lie in the lanes of one vector
PANEL, PAIRS_PANEL = panel(False, ROWS), panel(False, ROWS, pairs=True)
NARROW_PANEL, PAIRS_NARROW_PANEL = panel(False, ROWS, 1), panel(False, ROWS, 1, pairs=True)
FILTER_PANEL, PAIRS_FILTER_PANEL = (
    panel(True, FILTER_ROWS, in_lanes=True),
    panel(True, FILTER_ROWS, pairs=True),
)
NARROW_FILTER_PANEL, PAIRS_NARROW_FILTER_PANEL = (
    panel(True, FILTER_ROWS, 1, in_lanes=True),
    panel(True, FILTER_ROWS, 1, pairs=True),
)
TILES = 2 * ROWS  # of one block: its pieces and products stay in a core's second cache
WIDE_TILES = (
    -(-128 // ROWS) * ROWS
)  # of one block where the transformed filter is larger than that cache: it is read once per block
WIDE_FROM = 128 * 128 + 1  # input times output channels
LEAST_PANELS, ITEMS = 2, 16  # of the filter at a time, and places times panels per thread
# from one place to the next, coprime to their number: threads get about as many each that few tiles
# need
SPREAD = 7
GRADIENT_VALUES = (
    1 << 19
)  # transformed at once for the filter's gradient: they stay in two second caches


@njit(forceinline=True, **INNER)
def _panel(a, b, c, terms, width, c_row, bf16):
    if bf16 is None:
        if width == lanes(a):
            NARROW_PANEL(a, b, c, c, terms, terms, 1, width, 0, c_row)
        else:
            PANEL(a, b, c, c, terms, terms, 1, width, 0, c_row)
    elif width == lanes(a):
        PAIRS_NARROW_PANEL(a, b, c, c, terms, terms, 1, width, 0, c_row)
    else:
        PAIRS_PANEL(a, b, c, c, terms, terms, 1, width, 0, c_row)


@njit(forceinline=True, **INNER)
def _filter_panel(a, b, s, c, terms, s_row, width, bf16):
    full = lanes(a)
    if bf16 is None:
        if width == full:
            NARROW_FILTER_PANEL(a, b, s, c, terms, 1, full, width, s_row, width)
        else:
            FILTER_PANEL(a, b, s, c, terms, 1, full, width, s_row, width)
    elif width == full:
        PAIRS_NARROW_FILTER_PANEL(a, b, s, c, terms, 1, full, width, s_row, width)
    else:
        PAIRS_FILTER_PANEL(a, b, s, c, terms, 1, full, width, s_row, width)


@njit(forceinline=True, **INNER)
def _ask(address, elements, part, parts):
    """Ask for one of `parts` parts of so many elements, which will be needed soon."""
    full = lanes(address)
    share = (elements + parts * full - 1) // (parts * full) * full
    for at in range(part * share, min(elements, (part + 1) * share), full):
        fetch(address, at)


@njit(**INNER)
def _layout(terms, columns, width, tiles, full):
    """Return the panels of so many columns and their width, then the elements from one place to the
    next: of pieces, filters and products.

    A line between two places keeps the 36 from falling into one set of the caches, where each would
    drive out another (a piece of 256 channels cost four times the cycles).
    """
    panels = (columns + width - 1) // width
    return (
        panels,
        width,
        tiles * terms + full,
        panels * terms * width + full,
        tiles * panels * width + full,
    )


@njit(**INNER)
def _place(item, panels, step):
    """Return the place of an item, which counts places, each `step` after the one before, and
    panels.
    """
    return item // panels * step % PLACES


@njit(**INNER)
def _products(item, pieces, filters, products, block, tiles, terms, layout, ahead, bf16):
    """Multiply pieces (tiles, terms) of a block at one place with one panel of the filter; item
    counts places and panels.

    ahead: whether threads share the items, and what the next ones read comes from farther than the
    second cache.
    """
    panels, width, piece_step, filter_step, product_step = layout
    step = SPREAD if ahead else 1
    place, number = _place(item, panels, step), item % panels
    first, end = tiles_with(place, block)
    right = advance(filters, place * filter_step + number * terms * width)
    left, to = (
        advance(pieces, place * piece_step),
        advance(products, place * product_step + number * width),
    )
    if ahead:
        later = _place(item + panels, panels, step)
        start, stop = tiles_with(later, block)
        _ask(
            advance(pieces, later * piece_step + start * terms),
            (stop - start) * terms,
            number,
            panels,
        )
    parts = (end - first + ROWS - 1) // ROWS
    for part in range(parts):
        row = min(
            first + part * ROWS, tiles - ROWS
        )  # the last within the block; a row computed twice is the same
        _panel(
            advance(left, row * terms),
            right,
            advance(to, row * panels * width),
            terms,
            width,
            panels * width,
            bf16,
        )
        if ahead:
            following = (
                _place(item + 1, panels, step) * filter_step + (item + 1) % panels * terms * width
            )
            _ask(advance(filters, following), terms * width, part, parts)


@njit(parallel=True, **KERNEL)
def _multiply(inputs, k, bias, padding, floor, scratch, outputs, bf16):
    (n, h, w, c), (oh, ow), full = inputs.shape, outputs.shape[1:3], lanes(inputs)
    terms, tiling = c if bf16 is None else c // 2, tiling_of(n, oh, ow)
    layout = _layout(terms, k, panel_width(k, full), TILES, full)
    panels, width, piece_step, filter_step, product_step = layout
    share = PLACES * (full + piece_step + product_step)
    for number in prange((tiling[0] + TILES - 1) // TILES):
        count = min(TILES, tiling[0] - number * TILES)
        block = (number * TILES, count, *tiling)
        room = pointer(scratch, PLACES * filter_step + numba.get_thread_id() * share)
        pieces = advance(room, PLACES * full)
        products = advance(pieces, PLACES * piece_step)
        for i in range(count):
            tile = tile_at(i, block)
            transform_piece(
                pointer(inputs, tile[0] * h * w * c),
                (h, w),
                tile,
                padding,
                c,
                advance(pieces, i * terms),
                piece_step,
                1,
                room,
                HALVES,
                bf16,
            )
        for item in range(PLACES * panels):
            _products(
                item,
                pieces,
                pointer(scratch, 0),
                products,
                block,
                TILES,
                terms,
                layout,
                False,
                bf16,
            )
        for i in range(count):
            tile = tile_at(i, block)
            transform_result(
                advance(products, i * panels * width),
                product_step,
                width,
                pointer(bias, 0),
                floor,
                pointer(outputs, tile[0] * oh * ow * k),
                (oh, ow, k),
                tile,
                k,
                room,
            )


@njit(parallel=True, **KERNEL)
def _wide_pieces(inputs, outputs, start, padding, scratch, threads, bf16):
    """Transform the pieces of a block of tiles that threads share, behind their rooms in the
    scratch.
    """
    (n, h, w, c), (oh, ow, _), full = inputs.shape, outputs.shape[1:], lanes(inputs)
    terms, tiling = c if bf16 is None else c // 2, tiling_of(n, oh, ow)
    count, step = min(WIDE_TILES, tiling[0] - start), WIDE_TILES * terms + full
    for i in prange(count):
        tile = tile_at(i, (start, count, *tiling))
        room, to = numba.get_thread_id() * PLACES * full, threads * PLACES * full + i * terms
        transform_piece(
            pointer(inputs, tile[0] * h * w * c),
            (h, w),
            tile,
            padding,
            c,
            pointer(scratch, to),
            step,
            1,
            pointer(scratch, room),
            HALVES,
            bf16,
        )


@njit(parallel=True, **KERNEL)
def _wide_products(inputs, outputs, start, columns, bias, floor, scratch, threads, bf16):
    """Multiply the pieces with the transformed filters of some outputs, columns = (first, end),
    and write these; each thread reads its part of the filters.
    """
    (n, _, _, c), (oh, ow, k), full = inputs.shape, outputs.shape[1:], lanes(inputs)
    terms, tiling, (first, end) = c if bf16 is None else c // 2, tiling_of(n, oh, ow), columns
    layout = _layout(terms, end - first, panel_width(k, full), WIDE_TILES, full)
    panels, width, piece_step, filter_step, product_step = layout
    count = min(WIDE_TILES, tiling[0] - start)
    block = (start, count, *tiling)
    pieces_at = threads * PLACES * full
    filters_at = pieces_at + PLACES * piece_step
    products_at = filters_at + PLACES * filter_step
    for item in prange(PLACES * panels):
        _products(
            item,
            pointer(scratch, pieces_at),
            pointer(scratch, filters_at),
            pointer(scratch, products_at),
            block,
            WIDE_TILES,
            terms,
            layout,
            True,
            bf16,
        )
    for i in prange(count):
        tile = tile_at(i, block)
        room = pointer(scratch, numba.get_thread_id() * PLACES * full)
        transform_result(
            pointer(scratch, products_at + i * panels * width),
            product_step,
            width,
            pointer(bias, first),
            floor,
            pointer(outputs, tile[0] * oh * ow * k + first),
            (oh, ow, k),
            tile,
            end - first,
            room,
        )


@njit(**INNER)
def _add_products(pieces, gradients, sums, nothing, item, block, terms, whole, layout, ahead, bf16):
    """Add pieces' times gradients of one block of tiles, at one place and for one panel of outputs,
    to the filter's sums; item as above.

    nothing: zeros, to which the first block is added. ahead: whether what the next items read comes
    from farther than the second cache. Tiles that go without a place have zeros there: bf16's pairs
    may hold some.
    """
    panels, width, piece_step, sum_step, gradient_step = layout
    full, place, number, together = (
        lanes(pieces),
        _place(item, panels, SPREAD),
        item % panels,
        1 if bf16 is None else 2,
    )
    first, end = tiles_with(place, block)
    if first >= end:
        if block[0] > 0:
            return
        first, end = 0, 1  # zeros, for the sums to begin with
    first, end = first // together, (end + together - 1) // together
    right = advance(gradients, place * gradient_step + (number * terms + first) * width)
    if ahead:
        _ask(
            advance(pieces, _place(item + panels, panels, SPREAD) * piece_step),
            whole * terms,
            number,
            panels,
        )
    rows = min(FILTER_ROWS, full)
    for row in range(0, whole, rows):
        left = advance(
            pieces, place * piece_step + (row // full * terms + first) * full + row % full
        )
        to = advance(sums, place * sum_step + (number * whole + row) * width)
        if block[0] == 0:
            _filter_panel(left, right, nothing, to, end - first, 0, width, bf16)
        else:
            _filter_panel(left, right, to, to, end - first, width, width, bf16)
        if ahead:
            following = (
                _place(item + 1, panels, SPREAD) * gradient_step
                + (item + 1) % panels * terms * width
            )
            _ask(advance(gradients, following), terms * width, row // rows, whole // rows)


@njit(**INNER)
def _transform_pair(
    inputs, gradient, padding, number, block, place, way, terms, layout, room, pieces, spread, bf16
):
    """Transform the input piece and the gradient of a block's tile to their place, zeros where
    there is no such tile.
    """
    (h, w, c), (oh, ow, k), full = inputs.shape[1:], gradient.shape[1:], lanes(inputs)
    _, width, piece_step, _, gradient_step = layout
    pieces, spread = advance(pieces, place * full), advance(spread, place * width)
    if number >= block[1]:
        nothing = zeros(pieces)
        for at in range(PLACES):
            for j in range(0, c, full):
                put(pieces, at * piece_step + j * terms, nothing, full, way, bf16)
            for j in range(0, (k + width - 1) // width * width, full):
                put(
                    spread,
                    at * gradient_step + j // width * terms * width + j % width,
                    nothing,
                    full,
                    way,
                    bf16,
                )
        return
    tile = tile_at(number, block)
    transform_piece(
        pointer(inputs, tile[0] * h * w * c),
        (h, w),
        tile,
        padding,
        c,
        pieces,
        piece_step,
        terms,
        room,
        way,
        bf16,
    )
    transform_gradient(
        pointer(gradient, tile[0] * oh * ow * k),
        (oh, ow),
        tile,
        k,
        spread,
        gradient_step,
        terms * width,
        width,
        room,
        way,
        bf16,
    )


@njit(parallel=True, **KERNEL)
def filter_gradient(inputs, gradient, padding, threads, tiles, columns, ahead, scratch, out, bf16):
    """Write the gradient of the filters to out (3, 3, c, k); `threads`: of which the scratch has
    room for.

    tiles: of a block; columns: of k whose products are computed together, all of them where there
    are several blocks.
    """
    (n, _, _, c), (oh, ow, k), full = inputs.shape, gradient.shape[1:], lanes(inputs)
    whole, together = (c + full - 1) // full * full, 1 if bf16 is None else 2
    width, terms, tiling = panel_width(k, full), tiles // together, tiling_of(n, oh, ow)
    panels = (columns + width - 1) // width
    layout = (
        panels,
        width,
        terms * whole + full,
        panels * whole * width + full,
        (k + width - 1) // width * terms * width + full,
    )
    pieces = threads * PLACES * full
    spread = pieces + PLACES * layout[2]
    sums = spread + PLACES * layout[4]
    nothing = sums + PLACES * layout[3]
    clear(pointer(scratch, nothing), width)
    for start in range(0, tiling[0], tiles):
        block = (start, min(tiles, tiling[0] - start), *tiling)
        for place in prange(terms):
            room = pointer(scratch, numba.get_thread_id() * PLACES * full)
            for below in range(together):
                _transform_pair(
                    inputs,
                    gradient,
                    padding,
                    place * together + below,
                    block,
                    np.int64(place),
                    BELOW if below else PLAIN,
                    terms,
                    layout,
                    room,
                    pointer(scratch, pieces),
                    pointer(scratch, spread),
                    bf16,
                )
        for first in range(0, k, columns):
            some = (min(columns, k - first) + width - 1) // width
            for part in prange(PLACES * some):
                _add_products(
                    pointer(scratch, pieces),
                    pointer(scratch, spread + first * terms),
                    pointer(scratch, sums),
                    pointer(scratch, nothing),
                    np.int64(part),
                    block,
                    terms,
                    whole,
                    (some, *layout[1:]),
                    ahead,
                    bf16,
                )
            if start + tiles >= tiling[0]:
                for i in prange(c):
                    finish_filter(
                        pointer(scratch, sums + i * width),
                        layout[3],
                        width,
                        whole * width,
                        pointer(out, i * k + first),
                        c * k,
                        min(columns, k - first),
                    )


def convolve(
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    padding: tuple[int, int],
    floor: np.floating,
    turned: bool,
    scratch: np.ndarray,
    outputs: np.ndarray,
    bf16: bool | None = None,
) -> None:
    """Write the convolution plus bias, not below floor, to outputs; `turned`: with the filters
    of the input gradient.
    """
    if turned:
        c, k = weights.shape[2:]
        turned_weights = scratch[scratch.size - weights.size :].reshape(3, 3, k, c)
        turn_filter(weights, turned_weights.reshape(-1))
        weights = turned_weights
    c, k = weights.shape[2:]
    if is_wide(c, k):
        _convolve_wide(inputs, weights, bias, padding, floor, scratch, outputs, flag(bf16))
    else:
        transform_filter(weights, (0, k), scratch, flag(bf16))
        _multiply(inputs, k, bias, padding, floor, scratch, outputs, flag(bf16))


def _convolve_wide(
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    padding: tuple[int, int],
    floor: np.floating,
    scratch: np.ndarray,
    outputs: np.ndarray,
    bf16: Flag | None,
) -> None:
    """Convolve with filters that are large once transformed: some outputs' at a time, so that
    they and the products stay in the caches.
    """
    (c, k), threads, full = (
        weights.shape[2:],
        numba.config.NUMBA_NUM_THREADS,
        lanes_of(weights.itemsize),
    )
    tiles, terms = tiles_of(outputs), c if bf16 is None else c // 2
    filters = scratch[PLACES * (threads * full + WIDE_TILES * terms + full) :]
    step = columns_together(tiles, WIDE_TILES, k, full)
    if step >= k:
        transform_filter(weights, (0, k), filters, bf16)
    for start in range(0, tiles, WIDE_TILES):
        _wide_pieces(inputs, outputs, start, padding, scratch, threads, bf16)
        for first in range(0, k, step):
            columns = first, min(k, first + step)
            if step < k:
                transform_filter(weights, columns, filters, bf16)
            _wide_products(inputs, outputs, start, columns, bias, floor, scratch, threads, bf16)


def weight_gradient(
    inputs: np.ndarray,
    gradient: np.ndarray,
    padding: tuple[int, int],
    scratch: np.ndarray,
    out: np.ndarray,
    bf16: bool | None = None,
) -> None:
    """Write the gradient of the filters to out (3, 3, c, k)."""
    (c, k), total = out.shape[2:], tiles_of(gradient)
    blocks = -(-total // gradient_tiles(c, k))
    tiles = (
        -(-total // (2 * blocks)) * 2
    )  # as many in each block, with little that is none in the last
    step = columns_together(total, tiles, k, lanes_of(out.itemsize)) if is_wide(c, k) else k
    filter_gradient(
        inputs,
        gradient,
        padding,
        numba.config.NUMBA_NUM_THREADS,
        tiles,
        step,
        is_wide(c, k),
        scratch,
        out,
        flag(bf16),
    )


def tiles_of(outputs: np.ndarray) -> int:
    """Return how many tiles cover outputs (n, h, w, channels)."""
    return len(outputs) * -(-outputs.shape[1] // 4) * -(-outputs.shape[2] // 4)


def columns_together(tiles: int, block: int, k: int, full: int) -> int:
    """Return for how many of k output channels at a time the products of a large filter are
    computed.

    So many panels that its threads share them evenly where there is one block of tiles; all where
    each block would transform the filters anew.
    """
    panels = max(LEAST_PANELS, -(-ITEMS * numba.get_num_threads() // PLACES))
    return min(k, panels * panel_width.py_func(k, full)) if tiles <= block else k


def is_wide(c: int, k: int) -> bool:
    """Whether the transformed filter is too large to be read for every few tiles."""
    return c * k >= WIDE_FROM


def gradient_tiles(c: int, k: int) -> int:
    """Return how many tiles are transformed at once for the filter's gradient, an even number."""
    return (
        WIDE_TILES
        if is_wide(c, k)
        else max(TILES, GRADIENT_VALUES // (PLACES * (c + k)) // TILES * TILES)
    )


def scratch_size(c: int, k: int, threads: int, itemsize: int) -> int:
    """Return the elements of scratch that the three passes with c input and k output channels
    need.
    """
    full = lanes_of(itemsize)
    c_whole, k_whole = (-(-channels // (VECTORS * full)) * VECTORS * full for channels in (c, k))
    blocks, tiles = (1, WIDE_TILES) if is_wide(c, k) else (threads, TILES)
    forward = blocks * (tiles * (c_whole + k_whole) + 2 * full)
    gradient = gradient_tiles(c, k) * (c_whole + k_whole) + 2 * full
    return PLACES * (c_whole * k_whole + (threads + 1) * full + max(forward, gradient)) + max(
        9 * c * k, VECTORS * full
    )
