"""The gradient of 3x3 filters by Winograd's algorithm (winograd.py): products of transformed tiles
of inputs and of gradients, summed over tiles at each of the 36 points.

Where the sums are small beside the images, each part of the tiles has sums of its own, which are
added at the end: what a thread transforms it reads itself. Else threads share each block of tiles,
first its tiles and then its points and panels. The sizes decide, so that the number of threads
changes no sum.
"""

from typing import NamedTuple

import numba
import numpy as np
from numba import njit, prange

from ensync.kernels.convolution.winograd_products import POINT_STEP, point_of, prefetch_part
from ensync.kernels.convolution.winograd_tiling import Block, tile_at, tiles_with_point, tiling_of
from ensync.kernels.convolution.winograd_transforms import (
    POINTS,
    Image,
    Steps,
    finish_filter,
    transform_gradient,
    transform_input,
)
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.host import SIMD
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.memory import add_to, clear
from ensync.kernels.simd.operands import PAIRED, PLAIN, numbers_per_term, store_operand
from ensync.kernels.simd.panels import Strides, panel, panel_width
from ensync.kernels.simd.vectors import advance, zeros

# Of a tile of the filter's gradient; all lie in the lanes of one vector.
FILTER_ROWS = {"avx512": 8}.get(SIMD, 4)
FILTER_PANEL = panel(True, FILTER_ROWS, in_lanes=True)
NARROW_FILTER_PANEL = panel(True, FILTER_ROWS, 1, in_lanes=True)


class GradientLayout(NamedTuple):
    """How the operands of the filter's gradient lie in the scratch.

    terms: of a sum over tiles. channels: of the inputs, whole vectors. panels of `width` output
    channels. The steps are elements from one point to the next: of transformed tiles of inputs,
    sums, and transformed tiles of gradients.
    """

    terms: int
    channels: int
    panels: int
    width: int
    tile_step: int
    sum_step: int
    gradient_step: int


@njit(**KERNEL)
def _layout_of(tiles, c, k, columns, full, together):
    """Return the GradientLayout of so many tiles at a time, and sums of so many columns of k."""
    channels, width, terms = (c + full - 1) // full * full, panel_width(k, full), tiles // together
    panels = (columns + width - 1) // width
    return GradientLayout(
        terms,
        channels,
        panels,
        width,
        terms * channels + full,
        panels * channels * width + full,
        (k + width - 1) // width * terms * width + full,
    )


@njit(forceinline=True, **INNER)
def _filter_panel(a, b, s, c, terms, s_row, width, bf16):
    full = lanes(a)
    strides = Strides(1, full, width, s_row, width)
    if width == full:
        NARROW_FILTER_PANEL(a, b, s, c, terms, strides, bf16)
    else:
        FILTER_PANEL(a, b, s, c, terms, strides, bf16)


@njit(**INNER)
def _add_products(item, inputs, gradients, sums, nothing, block, layout, modes, bf16):
    """Add the products of a block's transformed tiles of inputs and of gradients, at one point and
    for one panel of outputs, to the filter's sums; item as in `_products`.

    nothing: zeros, to which the first block is added. modes: (whether this is that block, whether
    threads share the items and operands come from farther than the second cache). Tiles that go
    without a point have zeros there: bf16's pairs may hold some.
    """
    terms, channels, panels, width, tile_step, sum_step, gradient_step = layout
    full, point, number = lanes(inputs), point_of(item, panels, POINT_STEP), item % panels
    together, (begins, shared) = numbers_per_term(bf16), modes
    first, end = tiles_with_point(point, block)
    if first >= end:
        if not begins:
            return
        first, end = 0, 1  # zeros, for the sums to begin with
    first, end = first // together, (end + together - 1) // together
    right = advance(gradients, point * gradient_step + (number * terms + first) * width)
    if shared:
        later = point_of(item + panels, panels, POINT_STEP)
        prefetch_part(advance(inputs, later * tile_step), channels * terms, number, panels)
    rows = min(FILTER_ROWS, full)
    for row in range(0, channels, rows):
        left = advance(
            inputs, point * tile_step + (row // full * terms + first) * full + row % full
        )
        to = advance(sums, point * sum_step + (number * channels + row) * width)
        if begins:
            _filter_panel(left, right, nothing, to, end - first, 0, width, bf16)
        else:
            _filter_panel(left, right, to, to, end - first, width, width, bf16)
        if shared:
            later = point_of(item + 1, panels, POINT_STEP)
            following = later * gradient_step + (item + 1) % panels * terms * width
            prefetch_part(
                advance(gradients, following), terms * width, row // rows, channels // rows
            )


@njit(**INNER)
def _clear_tile(inputs, gradients, c, k, layout, way, bf16):
    """Write zeros for a tile that does not exist."""
    full, width, nothing = lanes(inputs), layout.width, zeros(inputs)
    for point in range(POINTS):
        at = point * layout.tile_step
        for j in range(0, c, full):
            store_operand(inputs, at + j * layout.terms, nothing, full, way, bf16)
        for j in range(0, (k + width - 1) // width * width, full):
            at = point * layout.gradient_step + j // width * layout.terms * width + j % width
            store_operand(gradients, at, nothing, full, way, bf16)


@njit(**INNER)
def _transform_tile(images, gradient, padding, block, term, below, layout, buffer, targets, bf16):
    """Transform the inputs and the gradient of a block's tile to their place in the operands.

    Tile number `below` of a term: with bf16 the second one is paired with the first. targets: the
    addresses of the transformed tiles of inputs and of gradients.
    """
    (h, w, c), (oh, ow, k), full = images.shape[1:], gradient.shape[1:], lanes(images)
    inputs = advance(targets[0], term * full)
    gradients = advance(targets[1], term * layout.width)
    number, way = term * numbers_per_term(bf16) + below, PAIRED if below else PLAIN
    if number >= block.count:
        _clear_tile(inputs, gradients, c, k, layout, way, bf16)
        return
    tile = tile_at(number, block)
    transform_input(
        pointer(images, tile.image * h * w * c),
        Image(h, w, c),
        tile,
        padding,
        inputs,
        Steps(layout.tile_step, layout.terms),
        buffer,
        way,
        bf16,
    )
    transform_gradient(
        pointer(gradient, tile.image * oh * ow * k),
        Image(oh, ow, k),
        tile,
        gradients,
        Steps(layout.gradient_step, layout.terms * layout.width),
        layout.width,
        buffer,
        way,
        bf16,
    )


@njit(parallel=True, **KERNEL)
def filter_gradient(inputs, gradient, padding, threads, tiles, columns, shared, scratch, out, bf16):
    """Write the gradient of the filters to out (3, 3, c, k); `threads`: of which the scratch has
    buffers.

    tiles: of a block. columns: of k whose products are computed together, all of them where there
    are several blocks. shared: whether operands come from farther than the second cache.
    """
    (n, _, _, c), (oh, ow, k), full = inputs.shape, gradient.shape[1:], lanes(inputs)
    together, total = numbers_per_term(bf16), tiling_of(n, oh, ow).tiles
    layout = _layout_of(tiles, c, k, columns, full, together)
    terms, channels, _, width, tile_step, sum_step, gradient_step = layout
    tiles_at = threads * POINTS * full
    gradients_at = tiles_at + POINTS * tile_step
    sums_at = gradients_at + POINTS * gradient_step
    nothing_at = sums_at + POINTS * sum_step
    clear(pointer(scratch, nothing_at), width)
    for start in range(0, total, tiles):
        count = min(tiles, total - start)
        for term in prange(terms):
            buffer = pointer(scratch, numba.get_thread_id() * POINTS * full)
            for below in range(together):
                _transform_tile(
                    inputs,
                    gradient,
                    padding,
                    Block(start, count, tiling_of(n, oh, ow)),
                    np.int64(term),
                    below,
                    _layout_of(tiles, c, k, columns, full, together),
                    buffer,
                    (pointer(scratch, tiles_at), pointer(scratch, gradients_at)),
                    bf16,
                )
        for first in range(0, k, columns):
            some = (min(columns, k - first) + width - 1) // width
            for item in prange(POINTS * some):
                _add_products(
                    np.int64(item),
                    pointer(scratch, tiles_at),
                    pointer(scratch, gradients_at + first * terms),
                    pointer(scratch, sums_at),
                    pointer(scratch, nothing_at),
                    Block(start, count, tiling_of(n, oh, ow)),
                    GradientLayout(
                        terms, channels, some, width, tile_step, sum_step, gradient_step
                    ),
                    (start == 0, shared),
                    bf16,
                )
            if start + tiles >= total:
                for i in prange(c):
                    finish_filter(
                        pointer(scratch, sums_at + i * width),
                        Steps(sum_step, channels * width),
                        width,
                        pointer(out, i * k + first),
                        c * k,
                        min(columns, k - first),
                    )


@njit(**INNER)
def _sum_part(inputs, gradient, padding, own, sums, nothing, block, tiles, bf16):
    """Write the sums of the tiles of a block, so many at a time. own: this thread's buffer, with
    its transformed tiles behind.
    """
    c, k, full, together = inputs.shape[3], gradient.shape[3], lanes(inputs), numbers_per_term(bf16)
    layout = _layout_of(tiles, c, k, k, full, together)
    images = advance(own, POINTS * full)
    gradients = advance(images, POINTS * layout.tile_step)
    for first in range(0, block.count, tiles):
        some = Block(block.start + first, min(tiles, block.count - first), block.tiling)
        for term in range((some.count + together - 1) // together):
            for below in range(together):
                targets = images, gradients
                _transform_tile(
                    inputs, gradient, padding, some, term, below, layout, own, targets, bf16
                )
        for item in range(POINTS * layout.panels):
            modes = first == 0, False
            _add_products(item, images, gradients, sums, nothing, some, layout, modes, bf16)


@njit(parallel=True, **KERNEL)
def filter_gradient_by_parts(inputs, gradient, padding, parts, tiles, scratch, out, bf16):
    """Write the gradient of the filters to out (3, 3, c, k), by so many parts of the tiles."""
    (n, _, _, c), (oh, ow, k), full = inputs.shape, gradient.shape[1:], lanes(inputs)
    total, together = tiling_of(n, oh, ow).tiles, numbers_per_term(bf16)
    layout = _layout_of(tiles, c, k, k, full, together)
    size, sum_step, width = POINTS * layout.sum_step, layout.sum_step, layout.width
    share = POINTS * (full + layout.tile_step + layout.gradient_step)
    nothing_at, channels = parts * size, layout.channels
    clear(pointer(scratch, nothing_at), width)
    for part in prange(parts):
        first, end = part * total // parts, (part + 1) * total // parts
        _sum_part(
            inputs,
            gradient,
            padding,
            pointer(scratch, nothing_at + full * 4 + numba.get_thread_id() * share),
            pointer(scratch, part * size),
            pointer(scratch, nothing_at),
            Block(first, end - first, tiling_of(n, oh, ow)),
            tiles,
            bf16,
        )
    for point in prange(POINTS):
        for part in range(1, parts):
            add_to(
                pointer(scratch, part * size + point * sum_step),
                pointer(scratch, point * sum_step),
                sum_step - full,
            )
    for i in prange(c):
        finish_filter(
            pointer(scratch, i * width),
            Steps(sum_step, channels * width),
            width,
            pointer(out, i * k),
            c * k,
            k,
        )
