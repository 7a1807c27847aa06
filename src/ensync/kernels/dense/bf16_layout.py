"""How the operands of a dense layer's products in bf16 are laid out (bf16_products.py): A as rows,
B as panels of columns, both of words that hold two terms of a sum, rounded, with zeros up to a
whole number of STEPs.
"""

from functools import lru_cache
from typing import NamedTuple

import numba

from ensync.kernels.dense.products import A_TRANSPOSED, B_TRANSPOSED, PLAIN, quotient
from ensync.kernels.flags import Flag
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.host import SIMD
from ensync.kernels.simd.intrinsics import lanes, pointer, transpose_block
from ensync.kernels.simd.matrix_tiles import SIDE
from ensync.kernels.simd.operands import BF16_TILES
from ensync.kernels.simd.panels import VECTORS, panel_width
from ensync.kernels.simd.vectors import advance, fetch, load, pair, store, store_halves, zeros

# Rows of a tile of vectors: batches are powers of two.
ROWS = {"avx512": 8}.get(SIMD, 4)
STEP = SIDE  # words of a sum that a matrix tile takes
ROOM = max(4 * SIDE, ROWS * VECTORS) * SIDE  # elements of the tile of C, or of the square turned
# Words of A's rows that stay in a second cache of 1 MiB beside a panel of B; but as many rows that
# their product with a panel takes longer than to lay it out.
BLOCK, LEAST_ROWS = 1 << 17, 128
# Words of both operands of a weights' gradient that are laid out together, and samples at least;
# words of a piece of B's panel, which stays in the second cache beside A's rows.
SAMPLE_WORDS, LEAST_SAMPLES, PIECE = 1 << 19, 1024, 512
# Words of neighbouring panels that are laid out together, half of a second cache of 1 MiB: so rows
# of B, and of C where that has many, are read and written in long runs.
PANELS = 1 << 17
RUN = 128  # words of one partial sum of the bias's gradient
AHEAD = 16  # rows between a prefetch and its use, where a panel reads a part of each row


class Layout(NamedTuple):
    """How the operands of a product lie in the scratch, in words of four bytes.

    block: rows of C whose part of A stays in a cache. rows: that are laid out at a time. samples:
    terms of a sum that are. piece: words of a panel that are laid out at a time; panels: that are
    laid out together. pitch: from row to row of A. height: rows of a tile; width: columns of a
    panel. shares_at, share: where the threads' tiles and panels begin, behind A's rows, and from
    one to the next; sums_at: where in a share the sums of B's columns do.
    """

    block: int
    rows: int
    samples: int
    piece: int
    panels: int
    pitch: int
    height: int
    width: int
    shares_at: int
    sums_at: int
    share: int


@numba.njit(**KERNEL)
def words_of(terms):
    """Return the words of a sum, whole STEPs."""
    return (terms + 2 * STEP - 1) // (2 * STEP) * STEP


def _height(bf16: Flag) -> int:
    """Return the rows of a tile."""
    return 2 * SIDE if bf16 is BF16_TILES else ROWS


@lru_cache(maxsize=1024)
def layout_of(shape: tuple[int, int, int], form: int, bf16: Flag, parts: int) -> Layout:
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
    # Sums of several pieces are added to the same part of C, one panel after the other.
    across, panel = -(-columns // width), max(1, piece * width)
    panels = max(1, min(across, PANELS // panel)) if piece == words else 1
    # Not less for more samples, of whose panels fewer are laid out together.
    sums_at = ROOM + min(across * panel, max(PANELS, panel))
    return Layout(
        block=block,
        rows=together,
        samples=samples,
        piece=piece,
        panels=panels,
        pitch=pitch,
        height=height,
        width=width,
        shares_at=whole * pitch,
        sums_at=sums_at,
        share=sums_at + across * width,
    )


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
        layout_of(shape, form, bf16, parts) for form, shape in _shapes(n, inputs, outputs).items()
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
def _pair_panels(source, length, rows, target, width, words, panels):
    """Write whole panels of columns of a matrix of `rows` rows, `length` apart, as words that pair
    the rows, (panels, words, width).
    """
    full = lanes(source)
    for word in range(rows // 2):
        for panel in range(panels):
            for j in range(0, width, full):
                at = 2 * word * length + panel * width + j
                both = pair(load(source, at, full), load(source, at + length, full))
                store(target, (panel * words + word) * width + j, both, full)
                fetch(source, at + AHEAD * length)
                fetch(source, at + (AHEAD + 1) * length)
    for word in range(rows // 2, words):
        count = full if 2 * word < rows else 0
        for panel in range(panels):
            for j in range(0, width, full):
                last = load(source, 2 * word * length + panel * width + j, count)
                to = (panel * words + word) * width + j
                store(target, to, pair(last, zeros(target)), full)


@numba.njit(**INNER)
def write_sums(sums, bias, columns, added):
    """Write or add the sums of a panel's columns to the bias's gradient."""
    full = lanes(sums)
    for j in range(0, columns, full):
        total = load(sums, j, columns - j)
        if added:
            total = total + load(bias, j, columns - j)
        store(bias, j, total, columns - j)


@numba.njit(**INNER)
def lay_out_rows(a, scratch, layout, form, span, share):
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
def lay_out_panels(b, room, layout, form, span, panels):
    """Lay out the panels first .. end of B behind `room`; for A_TRANSPOSED the sums of its columns
    lie behind them.

    span: (first of the terms, their number). panels: (first, end).
    """
    (first, terms), (start, end), width = span, panels, layout.width
    length, words, target = b.shape[1], words_of(terms), advance(room, ROOM)
    whole = start
    if form == PLAIN:
        whole = min(end, max(start, length // width))
        source = pointer(b, first * length + start * width)
        _pair_panels(source, length, terms, target, width, words, whole - start)
    for panel in range(whole, end):
        to, column = advance(target, (panel - start) * words * width), panel * width
        if form == B_TRANSPOSED:
            source = pointer(b, column * length)
            _turn_panel(source, length, b.shape[0] - column, room, to, width, words)
        else:
            source, columns = pointer(b, first * length + column), length - column
            sums = advance(room, layout.sums_at + (panel - start) * width)
            _pair_panel(source, length, terms, columns, sums, to, width, words)
