"""The three products of a dense layer in bf16, C = A B with float32 sums.

Operands are laid out first: A as rows, and B panel by panel of columns, when it is multiplied. Both
are words that hold two terms of a sum, rounded, with zeros up to a whole number of STEPs. Then
whole register tiles are computed, by vectors or by the processor's matrix tiles (`bf16`:
simd/operands.py), and what exists of each is written. No sum is shared by threads, so that their
number changes nothing.
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba.extending import overload

from ensync.kernels.dense.products import A_TRANSPOSED, B_TRANSPOSED, PLAIN, quotient
from ensync.kernels.flags import Flag
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd import matrix_tiles
from ensync.kernels.simd.host import SIMD
from ensync.kernels.simd.intrinsics import (
    flush_tiny_numbers,
    lanes,
    pointer,
    restore,
    transpose_block,
)
from ensync.kernels.simd.matrix_tiles import SIDE, end_tiles, start_tiles, tile_product
from ensync.kernels.simd.operands import BF16_TILES
from ensync.kernels.simd.panels import VECTORS, Strides, panel, panel_width
from ensync.kernels.simd.vectors import (
    advance,
    as_bf16,
    fetch,
    load,
    maximum,
    pair,
    splat,
    store,
    store_halves,
    zeros,
)

# Rows of a tile of vectors: batches are powers of two.
ROWS = {"avx512": 8}.get(SIMD, 4)
PANEL, NARROW_PANEL = panel(False, ROWS), panel(False, ROWS, 1)
TILES, NARROW_TILES = tile_product(False), tile_product(False, 2, 1)
STEP = SIDE  # words of a sum that a matrix tile takes
ROOM = max(4 * SIDE, ROWS * VECTORS) * SIDE  # elements of the tile of C, or of the square turned
# Words of A's rows that stay in a second cache of 1 MiB beside a panel of B; but as many rows that
# their product with a panel takes longer than to lay it out.
BLOCK, LEAST_ROWS = 1 << 17, 128
# Words of both operands of a weights' gradient that are laid out together, and samples at least;
# words of a piece of B's panel, which stays in the second cache beside A's rows.
SAMPLE_WORDS, LEAST_SAMPLES, PIECE = 1 << 19, 1024, 512
RUN = 128  # words of one partial sum of the bias's gradient
AHEAD = 32  # rows between a prefetch and its use, where a panel reads a part of each row


class Layout(NamedTuple):
    """How the operands of a product lie in the scratch, in words of four bytes.

    block: rows of C whose part of A stays in a cache. rows: that are laid out at a time. samples:
    terms of a sum that are. piece: words of a panel that are laid out at a time. pitch: from row to
    row of A. height: rows of a tile; width: columns of a panel. shares_at, share: where the
    threads' tiles and panels begin, behind A's rows, and from one to the next.
    """

    block: int
    rows: int
    samples: int
    piece: int
    pitch: int
    height: int
    width: int
    shares_at: int
    share: int


@numba.njit(**INNER)
def words_of(terms):
    """Return the words of a sum, whole STEPs."""
    return (terms + 2 * STEP - 1) // (2 * STEP) * STEP


def _height(bf16: Flag) -> int:
    """Return the rows of a tile."""
    return 2 * SIDE if bf16 is BF16_TILES else ROWS


@lru_cache(maxsize=1024)
def _layout(shape: tuple[int, int, int], form: int, bf16: Flag, parts: int) -> Layout:
    """Return the Layout of a product with C of (rows, columns) and so many terms: shape = (rows,
    terms, columns).
    """
    (rows, terms, columns), height = shape, _height(bf16)
    width, together, samples = panel_width.py_func(columns, SIDE), rows, terms
    if form == A_TRANSPOSED:
        samples = min(terms, max(LEAST_SAMPLES, 2 * SAMPLE_WORDS // (rows + columns)))
    words = words_of.py_func(samples)
    piece = min(words, PIECE) if form == A_TRANSPOSED else words
    pitch = words | STEP  # an odd number of cache lines, which no few sets of a cache hold
    block = max(LEAST_ROWS, BLOCK // pitch) // height * height
    if form != A_TRANSPOSED:
        together = max(1, min(rows, block * parts))
    whole = -(-together // (2 * SIDE)) * 2 * SIDE  # of any height, and of squares that are turned
    share = ROOM + piece * width
    return Layout(block, together, samples, piece, pitch, height, width, whole * pitch, share)


def _shapes(n: int, inputs: int, outputs: int) -> dict[int, tuple[int, int, int]]:
    """Return the `shape` of each form's product."""
    return {
        PLAIN: (n, inputs, outputs),
        B_TRANSPOSED: (n, outputs, inputs),
        A_TRANSPOSED: (inputs, n, outputs),
    }


@lru_cache(maxsize=1024)
def packing_size(n: int, inputs: int, outputs: int, bf16: Flag, parts: int) -> int:
    """Return how many elements of scratch the passes of a layer need for up to n samples, on up to
    so many threads.
    """
    layouts = [
        _layout(shape, form, bf16, parts) for form, shape in _shapes(n, inputs, outputs).items()
    ]
    return max(layout.shares_at + parts * layout.share for layout in layouts)


def most_parts(size: int, n: int, inputs: int, outputs: int, bf16: Flag, threads: int) -> int:
    """Return into how many parts, at most one for each thread, a scratch of so many elements lets
    the passes of a layer be cut.
    """
    while threads > 1 and packing_size(n, inputs, outputs, bf16, threads) > size:
        threads -= 1
    return threads


@numba.njit(**INNER)
def _round_rows(source, length, rows, target, pitch, words):
    """Write rows of `length` numbers as words, with zeros behind."""
    full = lanes(source)
    for row in range(rows):
        for j in range(0, 2 * words, full):
            store_halves(target, row * pitch + j // 2, load(source, row * length + j, length - j))


@numba.njit(**INNER)
def _pair_columns(source, length, rows, columns, room, target, pitch, words):
    """Write up to SIDE columns of a matrix of `rows` rows, `length` apart, as rows of words that
    pair the matrix's rows.
    """
    for word in range(0, words, SIDE):
        for i in range(SIDE):
            row = 2 * (word + i)
            above = load(source, row * length, columns if row < rows else 0)
            below = load(source, (row + 1) * length, columns if row + 1 < rows else 0)
            store(room, i * SIDE, pair(above, below), SIDE)
        transpose_block(room, SIDE, advance(target, word), pitch)


@numba.njit(**INNER)
def _turn_panel(source, length, rows, room, target, width, words):
    """Write up to `width` rows of `length` numbers as columns of a panel, (words, width)."""
    half = SIDE // 2
    for first in range(0, width, SIDE):
        for word in range(0, words, SIDE):
            for i in range(SIDE):
                row, number = first + i, 2 * word
                count = length - number if row < rows else 0
                low = load(source, row * length + number, count)
                high = load(source, row * length + number + SIDE, count - SIDE)
                store_halves(room, i * SIDE, low)
                store_halves(room, i * SIDE + half, high)
            transpose_block(room, SIDE, advance(target, word * width + first), width)


@numba.njit(**INNER)
def _pair_panel(source, length, rows, columns, sums, target, width, words):
    """Write `columns` columns of a matrix of `rows` rows, `length` apart, as a panel of words that
    pair the rows, and their float32 sums to `sums`, (width,).
    """
    full = lanes(source)
    for j in range(0, width, full):
        total = zeros(target)
        for run in range(0, words, RUN):
            part = zeros(target)
            for word in range(run, min(words, run + RUN)):
                row = 2 * word
                above = load(source, row * length + j, columns - j if row < rows else 0)
                below = load(source, (row + 1) * length + j, columns - j if row + 1 < rows else 0)
                store(target, word * width + j, pair(above, below), full)
                part = part + (above + below)
                fetch(source, (row + AHEAD) * length + j)
                fetch(source, (row + AHEAD + 1) * length + j)
            total = total + part
        store(sums, j, total, full)


@numba.njit(**INNER)
def _write_sums(sums, bias, columns, added):
    """Write or add the sums of a panel's columns to the bias's gradient."""
    full = lanes(sums)
    for j in range(0, columns, full):
        total = load(sums, j, columns - j)
        if added:
            total = total + load(bias, j, columns - j)
        store(bias, j, total, columns - j)


@numba.njit(**INNER)
def _lay_out_rows(a, scratch, layout, form, span, share):
    """Lay out a part of A: of `count` of its rows from `start` on, or of all rows of so many terms.

    span: (start, count). share: (part, parts).
    """
    (start, count), (part, parts) = span, share
    pitch, full, length = layout.pitch, lanes(scratch), a.shape[1]
    words = words_of(count if form == A_TRANSPOSED else length)
    if form != A_TRANSPOSED:
        first, end = count * part // parts, count * (part + 1) // parts
        source, target = pointer(a, (start + first) * length), pointer(scratch, first * pitch)
        _round_rows(source, length, end - first, target, pitch, words)
        return
    room, groups = pointer(scratch, layout.shares_at + part * layout.share), quotient(length, full)
    for group in range(groups * part // parts, groups * (part + 1) // parts):
        column = group * full
        source, target = pointer(a, start * length + column), pointer(scratch, column * pitch)
        _pair_columns(source, length, count, length - column, room, target, pitch, words)


@numba.njit(**INNER)
def _lay_out_panel(b, room, width, form, first, terms, column):
    """Lay out so many terms, from `first` on, of the panel of B from a column of C on, behind
    `room`; then the sums of B's columns are in the room.
    """
    length, words, target = b.shape[1], words_of(terms), advance(room, ROOM)
    if form == B_TRANSPOSED:
        source = pointer(b, column * length)
        _turn_panel(source, length, b.shape[0] - column, room, target, width, words)
    else:
        source, columns = pointer(b, first * length + column), length - column
        _pair_panel(source, length, terms, columns, room, target, width, words)


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
def _multiply(b, c, bias, floor, scratch, layout, form, span, share, bf16):
    """Compute a part of C's tiles with what `_lay_out_rows` laid out.

    The tiles are taken in blocks of rows, and in each block panel by panel; a panel of B is laid
    out by each thread that takes tiles of it.
    """
    (start, count), (part, parts) = span, share
    pitch, height, width = layout.pitch, layout.height, layout.width
    columns, room = c.shape[1], pointer(scratch, layout.shares_at + part * layout.share)
    summed = form == A_TRANSPOSED
    rows, top, before = (c.shape[0], 0, start) if summed else (count, start, 0)
    terms = count if summed else b.shape[1 if form == B_TRANSPOSED else 0]
    down, panels, block = quotient(rows, height), quotient(columns, width), layout.block // height
    begin, end = down * panels * part // parts, down * panels * (part + 1) // parts
    position = 0
    _start(bf16)
    for first_of_block in range(0, down, block):
        tiles = min(block, down - first_of_block)
        for item in range(panels):
            first = first_of_block + min(max(begin - position, 0), tiles)
            last = first_of_block + min(max(end - position, 0), tiles)
            position += tiles
            column = item * width
            some = min(width, columns - column)
            for word in range(0, words_of(terms) if first < last else 0, layout.piece):
                taken, added = min(terms - 2 * word, 2 * layout.piece), before + word > 0
                _lay_out_panel(b, room, width, form, before + 2 * word, taken, column)
                if summed and first == 0:
                    _write_sums(room, pointer(bias, column), some, added)
                words, narrow = words_of(taken), some <= lanes(scratch)
                for row in range(first * height, last * height, height):
                    left, right = pointer(scratch, row * pitch + word), advance(room, ROOM)
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
        _lay_out_rows(a, scratch, layout, form, (start, count), (0, 1))
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
            _lay_out_rows(a, scratch, layout, form, (start, count), (part, parts))
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
    layout = _layout((c.shape[0], terms, c.shape[1]), form, bf16, parts)
    if parts == 1:
        _alone(a, b, c, bias, floor, scratch, layout, form, bf16)
    else:
        _by_threads(a, b, c, bias, floor, scratch, layout, form, parts, bf16)
