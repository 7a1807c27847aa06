"""What the three products of a dense layer share: panels of C, computed by the vector microkernels.

C = A B is cut into tiles: panels of columns, and in each panel rows. Each thread computes a run of
tiles, so that no sum is shared and the number of threads changes nothing. A thread copies the panel
of B it works on into contiguous scratch (`pack`) when enough rows will read it.
"""

from typing import NamedTuple

import numba
import numpy as np

from ensync.kernels.elementwise.activations import RELU, TANH, activate_block
from ensync.kernels.options import INNER
from ensync.kernels.simd.host import NARROW_ROWS, SIMD, WIDE_TILE
from ensync.kernels.simd.intrinsics import lanes, pointer, transpose_block
from ensync.kernels.simd.tiles import TileGeometry, tile
from ensync.kernels.simd.vectors import advance, load, store

ROWS, VECTORS = WIDE_TILE[SIMD]
TALL = NARROW_ROWS[SIMD]
WIDE, NARROW = tile(ROWS, VECTORS), tile(TALL, 1)
PACK_FROM = 64  # rows of C from which copying a panel of B pays for itself
BLOCK = 1 << 18  # elements of A that stay in a second cache of 2 MiB beside a panel of B
# Elements of a weights' gradient that no cache holds: it is written few rows at a time, in runs
# that the processor's prefetching follows.
LARGE = 1 << 21
# Terms from which copying a block of a transposed A pays: each term touches another page of memory.
PACK_A_FROM = 256
TERMS = 256  # of one partial sum of the weight gradient: so many lines of A stay in the first cache
# The forms of a product: forward, weight gradient, input gradient.
PLAIN, A_TRANSPOSED, B_TRANSPOSED = 0, 1, 2


class Operation(NamedTuple):
    """The form of a product (PLAIN, ...) and the activation that follows (`ACTIVATIONS`)."""

    form: int
    activation: int


class Terms(NamedTuple):
    """Terms of a sum: the number of the first and how many; elements from one row of A to the
    next, and from one term to the next in A and in B.
    """

    start: int
    count: int
    a_row: int
    a_inner: int
    b_inner: int


class Panel(NamedTuple):
    """Rows of a panel of C: its first column, the first row and how many rows."""

    column: int
    row: int
    rows: int


class Places(NamedTuple):
    """Where a part finds its scratch: a vector that starts with 1, the panel of B, and the block of
    a transposed A.
    """

    one: int
    panel: int
    block: int


@numba.njit(**INNER)
def pack(source, row, terms, count, transposed, target, width):
    """Copy `count` columns of a matrix, or of its transposed, to rows `width` apart, one for each
    of `terms` terms of the sum.

    row: elements from one row of the source to the next.
    """
    block = lanes(source)
    if not transposed:
        for term in range(terms):
            for i in range(0, count, block):
                store(target, term * width + i, load(source, term * row + i, count - i), count - i)
        return
    whole_terms, whole_columns = terms // block * block, count // block * block
    for i in range(0, whole_columns, block):
        for term in range(0, whole_terms, block):
            transpose_block(
                advance(source, i * row + term), row, advance(target, term * width + i), width
            )
    for i in range(count):
        for term in range(whole_terms if i < whole_columns else 0, terms):
            target[term * width + i] = source[i * row + term]


@numba.njit(**INNER)
def strip(a, b, c, bias, ones, terms, panel, operation, accumulate):
    """Compute rows of a panel of C, and what follows it: the activation, or the sum to the bias.

    a, b, ones: addresses of the first row and term, of a panel of B, and of a vector that starts
    with 1.
    """
    columns, rows, code = c.shape[1], panel.rows, operation.activation
    width = min(VECTORS * lanes(c), columns - panel.column)
    floor = c.dtype.type(0) if code == RELU else c.dtype.type(-np.inf)
    at_c, at_bias = pointer(c, panel.row * columns + panel.column), pointer(bias, panel.column)
    geometry = TileGeometry(
        outer=1,
        inner=terms.count,
        a_outer=0,
        a_row=terms.a_row,
        a_group=0,
        a_inner=terms.a_inner,
        b_outer=0,
        b_inner=terms.b_inner,
        c_row=columns,
        row_count=rows,
        group=rows + 1,
        skipped=0,
        column_count=width,
        has_bias=operation.form == PLAIN,
        accumulate=accumulate,
    )
    if columns - panel.column <= lanes(c):
        NARROW(a, b, at_c, at_bias, geometry, floor)
    else:
        WIDE(a, b, at_c, at_bias, geometry, floor)
    if operation.form == A_TRANSPOSED and panel.row == 0:
        add_rows(b, ones, at_bias, terms, width, accumulate, floor)
    if code >= TANH:
        for row in range(panel.row, panel.row + rows):
            activate_block(code, c[row, panel.column : panel.column + width])


@numba.njit(**INNER)
def add_rows(b, ones, bias, terms, width, accumulate, floor):
    """Write the sum of B's rows to the bias: B's product with a row of ones."""
    one_row = TileGeometry(
        outer=1,
        inner=terms.count,
        a_outer=0,
        a_row=0,
        a_group=0,
        a_inner=0,
        b_outer=0,
        b_inner=terms.b_inner,
        c_row=0,
        row_count=1,
        group=2,
        skipped=0,
        column_count=width,
        has_bias=False,
        accumulate=accumulate,
    )
    WIDE(ones, b, bias, bias, one_row, floor)


@numba.njit(**INNER)
def panel_part(a, b, c, bias, scratch, places, terms, panel, operation):
    """Compute rows of one panel of C; a: the address of the first row and term."""
    transposed, b_row, columns = operation.form == B_TRANSPOSED, b.shape[1], c.shape[1]
    first_element = panel.column * b_row if transposed else terms.start * b_row + panel.column
    width = VECTORS * lanes(c)
    at_b, b_inner = pointer(b, first_element), b_row
    if transposed or (panel.rows >= PACK_FROM and columns > width):
        target, count = pointer(scratch, places.panel), min(width, columns - panel.column)
        pack(at_b, b_row, terms.count, count, transposed, target, width)
        at_b, b_inner = target, width
    stretch = TERMS if operation.form == A_TRANSPOSED else terms.count
    for first in range(0, terms.count, stretch):
        part = Terms(
            terms.start + first,
            min(stretch, terms.count - first),
            terms.a_row,
            terms.a_inner,
            b_inner,
        )
        at_a, at_terms = advance(a, first * terms.a_inner), advance(at_b, first * b_inner)
        ones = pointer(scratch, places.one)
        strip(at_a, at_terms, c, bias, ones, part, panel, operation, part.start > 0)


@numba.njit(**INNER)
def quotient(x, y):
    """Return x / y rounded up."""
    return -(-x // y)


@numba.njit(**INNER)
def cost_of(rows, columns, width, step):
    """Return the cost of all tiles of C: a wide one costs its vectors, a narrow one its rows over
    a wide one's.
    """
    has_narrow = 0 < columns % width <= step
    wide = quotient(rows, ROWS) * VECTORS * (quotient(columns, width) - has_narrow)
    return wide + has_narrow * quotient(rows, TALL) * (TALL // ROWS)


@numba.njit(**INNER)
def product_part(a, b, c, bias, scratch, terms, operation, part, parts):
    """Compute one of `parts` parts of C, from some terms of the sum.

    C is taken in blocks of rows, such that A's block stays in the second cache, and in each block
    panel by panel; the tiles in this order are dealt out by cost. Scratch holds for each part what
    `Places` names, in a share of its own whatever the terms: one part may still be at the terms
    before when another is at these.
    """
    (rows, columns), inner = c.shape, terms.count
    width, step = VECTORS * lanes(c), lanes(c)
    work = cost_of(rows, columns, width, step)
    begin, end, position = work * part // parts, work * (part + 1) // parts, 0
    packing = operation.form == A_TRANSPOSED and inner >= PACK_A_FROM and columns > 2 * width
    large = operation.form == A_TRANSPOSED and inner < PACK_A_FROM and rows * columns >= LARGE
    tall = 2 if large else max(BLOCK // inner // TALL, 4)
    block = min(tall * TALL, quotient(max(rows, 1), step) * step)
    share = (scratch.size - step) // parts // step * step
    one = -scratch.ctypes.data // scratch.itemsize % step + part * share
    places, packed = Places(one, one + step, one + step + inner * width), -1
    scratch[one] = 1
    if packing:
        terms = Terms(terms.start, inner, terms.a_row, block + step, terms.b_inner)
    a_row, a_inner = (1, a.shape[1]) if operation.form == A_TRANSPOSED else (a.shape[1], 1)
    for top in range(0, rows, block):
        for column in range(0, columns, width):
            height, cost = (TALL, TALL // ROWS) if columns - column <= step else (ROWS, VECTORS)
            tiles = quotient(min(block, rows - top), height)
            first = min(max(quotient(begin - position, cost), 0), tiles)
            last = min(max(quotient(end - position, cost), 0), tiles)
            position += tiles * cost
            if first == last:
                continue
            row = top + first * height
            at_a = pointer(a, row * a_row + terms.start * a_inner)
            if packing:
                if packed != top:
                    source = pointer(a, terms.start * a_inner + top)
                    target, count = pointer(scratch, places.block), min(block, rows - top)
                    pack(source, a_inner, inner, count, False, target, block + step)
                    packed = top
                at_a = pointer(scratch, places.block + row - top)
            panel = Panel(column, row, min((last - first) * height, rows - row))
            panel_part(at_a, b, c, bias, scratch, places, terms, panel, operation)
