"""The three products of a dense layer in bf16, C = A B with float32 sums.

Operands are laid out first (bf16_layout.py): rows of A, and B panel by panel, when it is
multiplied. Then whole register tiles are computed, by vectors or by the processor's matrix tiles
(`bf16`: simd/operands.py), and what exists of each is written. No sum is shared by threads, so that
their number changes nothing.
"""

import numba
import numpy as np
from numba.extending import overload

from ensync.kernels.dense.bf16_layout import (
    ROOM,
    ROWS,
    STEP,
    lay_out_panels,
    lay_out_rows,
    layout_of,
    words_of,
    write_sums,
)
from ensync.kernels.dense.products import A_TRANSPOSED, B_TRANSPOSED, PLAIN, quotient
from ensync.kernels.flags import Flag
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd import matrix_tiles
from ensync.kernels.simd.intrinsics import flush_tiny_numbers, lanes, pointer, restore
from ensync.kernels.simd.matrix_tiles import end_tiles, start_tiles, tile_product
from ensync.kernels.simd.operands import BF16_TILES
from ensync.kernels.simd.panels import Strides, panel
from ensync.kernels.simd.vectors import advance, as_bf16, load, maximum, splat, store

PANEL, NARROW_PANEL = panel(False, ROWS), panel(False, ROWS, 1)
TILES, NARROW_TILES = tile_product(False), tile_product(False, 2, 1)


@numba.njit(forceinline=True, **INNER)
def _tile_by_vectors(a, b, c, words, pitch, width, narrow, bf16):
    strides = Strides(pitch, 1, width, 0, width)
    if narrow:
        NARROW_PANEL(a, b, c, c, words, strides, bf16)
    else:
        PANEL(a, b, c, c, words, strides, bf16)


@numba.njit(forceinline=True, **INNER)
def _tile_by_tiles(a, b, c, words, pitch, width, narrow, bf16):
    strides = matrix_tiles.Strides(1, words // STEP, 0, 2 * pitch, 0, width, width)
    if narrow:
        NARROW_TILES(as_bf16(a), b, c, strides)
    else:
        TILES(as_bf16(a), b, c, strides)


def _tile(a, b, c, words, pitch, width, narrow, bf16):
    """Write a tile of C, rows of `width` columns: of `narrow` ones the first vector alone."""
    return _tile_by_vectors(a, b, c, words, pitch, width, narrow, bf16)


@overload(_tile, jit_options={"error_model": "numpy"}, inline="always")
def _choose_tile(a, b, c, words, pitch, width, narrow, bf16):
    chosen = _tile_by_tiles if bf16 == BF16_TILES.type else _tile_by_vectors

    def call(a, b, c, words, pitch, width, narrow, bf16):
        return chosen(a, b, c, words, pitch, width, narrow, bf16)

    return call


def _start(bf16):
    """Let this thread use what `_tile` needs, until `_end`."""


def _end(bf16):
    """Undo `_start`."""


@overload(_start)
def _choose_start(bf16):
    if bf16 == BF16_TILES.type:
        return lambda bf16: start_tiles()
    return lambda bf16: None


@overload(_end)
def _choose_end(bf16):
    if bf16 == BF16_TILES.type:
        return lambda bf16: end_tiles()
    return lambda bf16: None


@numba.njit(**INNER)
def _store_tile(tile, width, rows, c, row_length, columns, bias, floor, has_bias, added):
    """Write rows of a tile to C, plus bias and not below the floor, or added to what is there."""
    full, low = lanes(tile), splat(tile, floor)
    for j in range(0, columns, full):
        count = columns - j
        add = load(bias, j, count if has_bias else 0)
        if count >= full and not added:  # known to the compiler: half the time for large C
            for row in range(rows):
                value = load(tile, row * width + j, full) + add
                store(c, row * row_length + j, maximum(low, value), full)
            continue
        for row in range(rows):
            value, at = load(tile, row * width + j, full) + add, row * row_length + j
            if added:
                value = value + load(c, at, count)
            store(c, at, maximum(low, value), count)


@numba.njit(**INNER)
def _write_bias(room, bias, layout, mine, tiles, panels, added):
    """Write or add the sums of columns of B to the bias's gradient, of the panels whose first tile
    is this thread's.
    """
    (start, end), width = panels, layout.width
    for item in range(start, end):
        if mine[0] <= item * tiles < mine[1]:
            sums = advance(room, layout.sums_at + (item - start) * width)
            some = min(width, bias.size - item * width)
            write_sums(sums, pointer(bias, item * width), some, added)


@numba.njit(**INNER)
def _multiply(b, c, bias, floor, scratch, layout, form, span, share, bf16):
    """Compute a part of C's tiles with what `lay_out_rows` laid out.

    The tiles are taken in blocks of rows, and in each block some panels together, row of tiles by
    row of tiles; a panel of B is laid out by each thread that takes tiles of it.
    """
    (start, count), (part, parts) = span, share
    pitch, height, width = layout.pitch, layout.height, layout.width
    columns, room = c.shape[1], pointer(scratch, layout.shares_at + part * layout.share)
    summed = form == A_TRANSPOSED
    rows, top, before = (c.shape[0], 0, start) if summed else (count, start, 0)
    terms = count if summed else b.shape[1 if form == B_TRANSPOSED else 0]
    down, panels, block = quotient(rows, height), quotient(columns, width), layout.block // height
    begin, end = down * panels * part // parts, down * panels * (part + 1) // parts
    _start(bf16)
    for top_tile in range(0, down, block):
        tiles = min(block, down - top_tile)
        # This thread's tiles of the block, counted panel by panel.
        mine = max(begin - top_tile * panels, 0), min(end - top_tile * panels, tiles * panels)
        first_panel, last_panel = mine[0] // tiles, quotient(mine[1], tiles)
        for group in range(first_panel, last_panel, layout.panels):
            stop = min(group + layout.panels, last_panel)
            for word in range(0, words_of(terms), layout.piece):
                taken, added = min(terms - 2 * word, 2 * layout.piece), before + word > 0
                words = words_of(taken)
                lay_out_panels(b, room, layout, form, (before + 2 * word, taken), (group, stop))
                if summed and top_tile == 0:
                    _write_bias(room, bias, layout, mine, tiles, (group, stop), added)
                for tile in range(tiles):
                    row = (top_tile + tile) * height
                    left = pointer(scratch, row * pitch + word)
                    for item in range(group, stop):
                        if not mine[0] <= item * tiles + tile < mine[1]:
                            continue
                        column = item * width
                        some = min(width, columns - column)
                        right = advance(room, ROOM + (item - group) * words * width)
                        narrow = some <= lanes(scratch)
                        _tile(left, right, room, words, pitch, width, narrow, bf16)
                        _store_tile(
                            room,
                            width,
                            min(height, rows - row),
                            pointer(c, (top + row) * columns + column),
                            columns,
                            some,
                            pointer(bias, column),
                            floor,
                            form == PLAIN,
                            added,
                        )
    _end(bf16)


@numba.njit(**KERNEL)
def _alone(a, b, c, bias, floor, scratch, layout, form, bf16):
    """Compute a product on this thread."""
    state, rows = flush_tiny_numbers(), a.shape[0]
    stretch = layout.samples if form == A_TRANSPOSED else layout.rows
    for start in range(0, rows, stretch):
        count = min(stretch, rows - start)
        lay_out_rows(a, scratch, layout, form, (start, count), (0, 1))
        _multiply(b, c, bias, floor, scratch, layout, form, (start, count), (0, 1), bf16)
    restore(state)


@numba.njit(parallel=True, **KERNEL)
def _by_threads(a, b, c, bias, floor, scratch, layout, form, parts, bf16):
    """Compute a product in so many parts, one for each thread."""
    rows = a.shape[0]
    stretch = layout.samples if form == A_TRANSPOSED else layout.rows
    for start in range(0, rows, stretch):
        count = min(stretch, rows - start)
        for part in numba.prange(parts):
            state = flush_tiny_numbers()
            lay_out_rows(a, scratch, layout, form, (start, count), (part, parts))
            restore(state)
        for part in numba.prange(parts):
            state = flush_tiny_numbers()
            _multiply(b, c, bias, floor, scratch, layout, form, (start, count), (part, parts), bf16)
            restore(state)


def run(
    operands: tuple[np.ndarray, np.ndarray, np.ndarray],
    bias: np.ndarray,
    floor: np.floating,
    scratch: np.ndarray,
    form: int,
    bf16: Flag,
    parts: int,
) -> None:
    """Write a product of operands = (A, B, C), of float32 or bf16 each, in so many parts: C =
    max(A B + bias, floor), C = A B' or (C = A' B, bias = the sum of B's rows), as `form` says.

    bias: float32. scratch: at least packing_size(...) elements for as many parts. A has rows.
    """
    a, b, c = operands
    terms = len(a) if form == A_TRANSPOSED else a.shape[1]
    layout = layout_of((c.shape[0], terms, c.shape[1]), form, bf16, parts)
    if parts == 1:
        _alone(a, b, c, bias, floor, scratch, layout, form, bf16)
    else:
        _by_threads(a, b, c, bias, floor, scratch, layout, form, parts, bf16)
