"""The matrix products of Winograd's algorithm (winograd.py), between the transforms of tiles.

Each of the 36 points of a tile has products of its own: transformed tiles (tiles, channels) times
transformed filters, in panels of columns. Threads take blocks of tiles of their own, or share a
block, whose points and panels they take in turn. A parallel loop cannot use a named tuple that a
function returned before it, so that such are made inside.
"""

from typing import NamedTuple

import numba
from numba import njit, prange

from ensync.kernels.convolution.winograd_tiling import Block, tile_at, tiles_with_point, tiling_of
from ensync.kernels.convolution.winograd_transforms import (
    POINTS,
    Image,
    Steps,
    transform_input,
    transform_output,
)
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd import panels
from ensync.kernels.simd.host import SIMD
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.operands import (
    ROUNDED,
    terms_of,
)
from ensync.kernels.simd.panels import Strides, panel, panel_width
from ensync.kernels.simd.vectors import advance, fetch

# Of a tile of registers: batches are powers of two, and so are many images' tiles: 5 x 13 is 64 and
# little more.
ROWS = {"avx512": 13}.get(SIMD, panels.ROWS)
PANEL, NARROW_PANEL = panel(False, ROWS), panel(False, ROWS, 1)
TILES = 2 * ROWS  # of one block: with their products they stay in a core's second cache
# Of one block where the transformed filter is larger than that cache: it is read once per block.
WIDE_TILES = -(-128 // ROWS) * ROWS
# From one point to the next where threads share a block, coprime to their number: threads get about
# as many each of those that few tiles need.
POINT_STEP = 7


class Layout(NamedTuple):
    """How the operands of a forward product lie in the scratch.

    terms: of a tile's sum. panels of `width` columns. The steps are elements from one point to the
    next: of transformed tiles, filters and products.
    """

    terms: int
    panels: int
    width: int
    tile_step: int
    filter_step: int
    product_step: int


@njit(forceinline=True, **INNER)
def _panel(a, b, c, terms, width, c_row, bf16):
    strides = Strides(terms, 1, width, 0, c_row)
    if width == lanes(a):
        NARROW_PANEL(a, b, c, c, terms, strides, bf16)
    else:
        PANEL(a, b, c, c, terms, strides, bf16)


@njit(forceinline=True, **INNER)
def prefetch_part(address, elements, part, parts):
    """Prefetch one of `parts` parts of so many elements."""
    full = lanes(address)
    share = (elements + parts * full - 1) // (parts * full) * full
    for at in range(part * share, min(elements, (part + 1) * share), full):
        fetch(address, at)


@njit(**INNER)
def _layout(terms, columns, width, tiles, full):
    """Return the Layout of products of so many tiles with so many columns.

    A line between two points keeps the 36 from falling into one set of the caches, where each would
    evict another (a tile of 256 channels cost four times the cycles).
    """
    panels = (columns + width - 1) // width
    return Layout(
        terms,
        panels,
        width,
        tiles * terms + full,
        panels * terms * width + full,
        tiles * panels * width + full,
    )


@njit(**INNER)
def point_of(item, panels, step):
    """Return the point of an item, which counts points, each `step` after the one before, and
    panels.
    """
    return item // panels * step % POINTS


@njit(**INNER)
def _products(item, inputs, filters, products, block, tiles, layout, shared, bf16):
    """Multiply a block's transformed tiles (tiles, terms) at one point with one panel of the
    filter; item counts points and panels.

    shared: whether threads share the items, and what the next ones read comes from farther than the
    second cache, so that it is prefetched.
    """
    terms, panels, width, tile_step, filter_step, product_step = layout
    step = POINT_STEP if shared else 1
    point, number = point_of(item, panels, step), item % panels
    first, end = tiles_with_point(point, block)
    right = advance(filters, point * filter_step + number * terms * width)
    left = advance(inputs, point * tile_step)
    to = advance(products, point * product_step + number * width)
    if shared:
        later = point_of(item + panels, panels, step)
        start, stop = tiles_with_point(later, block)
        prefetch_part(
            advance(inputs, later * tile_step + start * terms),
            (stop - start) * terms,
            number,
            panels,
        )
    parts = (end - first + ROWS - 1) // ROWS
    for part in range(parts):
        # The last lies within the block; a row computed twice is the same.
        row = min(first + part * ROWS, tiles - ROWS)
        _panel(
            advance(left, row * terms),
            right,
            advance(to, row * panels * width),
            terms,
            width,
            panels * width,
            bf16,
        )
        if shared:
            following = (
                point_of(item + 1, panels, step) * filter_step + (item + 1) % panels * terms * width
            )
            prefetch_part(advance(filters, following), terms * width, part, parts)


@njit(parallel=True, **KERNEL)
def convolve_blocks(inputs, k, bias, padding, floor, scratch, outputs, bf16):
    """Convolve with the transformed filters at the front of the scratch; threads take blocks of
    tiles of their own.
    """
    (n, h, w, c), (oh, ow), full = inputs.shape, outputs.shape[1:3], lanes(inputs)
    tiles = tiling_of(n, oh, ow).tiles
    for number in prange((tiles + TILES - 1) // TILES):
        count = min(TILES, tiles - number * TILES)
        block = Block(number * TILES, count, tiling_of(n, oh, ow))
        layout = _layout(terms_of(c, bf16), k, panel_width(k, full), TILES, full)
        share = POINTS * (full + layout.tile_step + layout.product_step)
        buffer = pointer(scratch, POINTS * layout.filter_step + numba.get_thread_id() * share)
        transformed = advance(buffer, POINTS * full)
        products = advance(transformed, POINTS * layout.tile_step)
        for i in range(count):
            tile = tile_at(i, block)
            transform_input(
                pointer(inputs, tile.image * h * w * c),
                Image(h, w, c),
                tile,
                padding,
                advance(transformed, i * layout.terms),
                Steps(layout.tile_step, 1),
                buffer,
                ROUNDED,
                bf16,
            )
        filters = pointer(scratch, 0)
        for item in range(POINTS * layout.panels):
            _products(item, transformed, filters, products, block, TILES, layout, False, bf16)
        for i in range(count):
            tile = tile_at(i, block)
            transform_output(
                advance(products, i * layout.panels * layout.width),
                layout.product_step,
                pointer(bias, 0),
                floor,
                pointer(outputs, tile.image * oh * ow * k),
                Image(oh, ow, k),
                tile,
                k,
                buffer,
            )


@njit(parallel=True, **KERNEL)
def transform_shared_inputs(inputs, outputs, start, padding, scratch, threads, bf16):
    """Transform the inputs of a block of tiles that threads share, to the scratch behind their
    buffers.
    """
    (n, h, w, c), (oh, ow, _), full = inputs.shape, outputs.shape[1:], lanes(inputs)
    terms, tiles = terms_of(c, bf16), tiling_of(n, oh, ow).tiles
    count, step = min(WIDE_TILES, tiles - start), WIDE_TILES * terms + full
    for i in prange(count):
        tile = tile_at(i, Block(start, count, tiling_of(n, oh, ow)))
        transform_input(
            pointer(inputs, tile.image * h * w * c),
            Image(h, w, c),
            tile,
            padding,
            pointer(scratch, threads * POINTS * full + i * terms),
            Steps(step, 1),
            pointer(scratch, numba.get_thread_id() * POINTS * full),
            ROUNDED,
            bf16,
        )


@njit(parallel=True, **KERNEL)
def convolve_shared(inputs, outputs, start, columns, bias, floor, scratch, threads, bf16):
    """Multiply a block's transformed tiles with the transformed filters of some outputs, columns =
    (first, end), and write these; each thread reads its part of the filters.
    """
    (n, _, _, c), (oh, ow, k), full = inputs.shape, outputs.shape[1:], lanes(inputs)
    tiles, (first, end) = tiling_of(n, oh, ow).tiles, columns
    terms, width = terms_of(c, bf16), panel_width(k, full)
    layout = _layout(terms, end - first, width, WIDE_TILES, full)
    panels, product_step = layout.panels, layout.product_step
    count = min(WIDE_TILES, tiles - start)
    tiles_at = threads * POINTS * full
    filters_at = tiles_at + POINTS * layout.tile_step
    products_at = filters_at + POINTS * layout.filter_step
    for item in prange(POINTS * panels):
        _products(
            item,
            pointer(scratch, tiles_at),
            pointer(scratch, filters_at),
            pointer(scratch, products_at),
            Block(start, count, tiling_of(n, oh, ow)),
            WIDE_TILES,
            _layout(terms, end - first, width, WIDE_TILES, full),
            True,
            bf16,
        )
    for i in prange(count):
        tile = tile_at(i, Block(start, count, tiling_of(n, oh, ow)))
        transform_output(
            pointer(scratch, products_at + i * panels * width),
            product_step,
            pointer(bias, first),
            floor,
            pointer(outputs, tile.image * oh * ow * k + first),
            Image(oh, ow, k),
            tile,
            end - first,
            pointer(scratch, numba.get_thread_id() * POINTS * full),
        )
