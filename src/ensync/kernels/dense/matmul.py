"""The three products of a dense layer on the vector microkernels.

C = A B is cut into tiles: panels of columns, and in each panel rows. Each thread computes a run of
tiles, so that no sum is shared and the number of threads changes nothing. A thread copies the panel
of B it works on into a contiguous piece of scratch (`pack`) when enough rows will read it.
"""

import numba
import numpy as np

from ensync.kernels.elementwise.activations import IDENTITY, RELU, TANH, activate_block
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.host import NARROW_ROWS, SIMD, VECTOR_BYTES, WIDE_TILE, lanes_of
from ensync.kernels.simd.intrinsics import (
    flush_tiny_numbers,
    lanes,
    pointer,
    restore,
    transpose_block,
)
from ensync.kernels.simd.tiles import TileGeometry, tile
from ensync.kernels.simd.vectors import advance, fetch, load, store
from ensync.kernels.threads import get_threads, thread_limit

ROWS, VECTORS = WIDE_TILE[SIMD]
TALL = NARROW_ROWS[SIMD]
WIDE, NARROW = tile(ROWS, VECTORS), tile(TALL, 1)
SERIAL_BELOW = (
    1 << 19
)  # multiply-adds; less work than this is done before other threads have started
PACK_FROM = 64  # rows of C from which copying a panel of B pays for itself
BLOCK = 1 << 18  # elements of A that stay in a second cache of 2 MiB beside a panel of B
# terms from which copying a block of a transposed A does: each term touches another page of memory
PACK_A_FROM = 256
SAMPLES = (
    1024  # behind which the weight gradient starts over, so that its panel of B stays there too
)
TERMS = 256  # of one partial sum of the weight gradient: as many lines of A stay in the first cache
# Rows of A, up to which a wide B is laid out stretch by stretch; where a panel's rows are three
# whole cache lines it costs a third more than it saves.
FEW_ROWS = 0 if VECTOR_BYTES[SIMD] >= 64 else 32
FEW_ROWS_FROM = 1 << 21  # elements of B from which that pays: smaller ones stay in the caches
STRETCH, PANELS = 32, 32  # terms and panels of B laid out together: 96 to 192 KiB
PLAIN, A_TRANSPOSED, B_TRANSPOSED = (
    0,
    1,
    2,
)  # the forms of a product: forward, weight gradient, input gradient


def packing_size(n: int, inputs: int, outputs: int) -> int:
    """Return how many elements of scratch the three passes of a dense layer need for n samples,
    on the threads of this rank.
    """
    lane_count, samples = lanes_of(4), min(n, SAMPLES)  # float32 has the most lanes
    share = (max(samples, inputs, outputs) * VECTORS + 1) * lane_count
    if n >= PACK_A_FROM:
        share += samples * (min(BLOCK // samples, inputs) + 2 * lane_count)
    share = max(share, STRETCH * PANELS * VECTORS * lane_count)
    return thread_limit() * share + lane_count


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
def strip(a, b, b_inner, c, bias, ones, shape, first_row, rows, column, form, code, accumulate):
    """Compute a panel of C from first_row on, and what follows it: the activation, or the sum to
    the bias. a, b: addresses.
    """
    inner, columns, a_row, a_inner = shape
    width = min(VECTORS * lanes(c), columns - column)
    floor = c.dtype.type(0) if code == RELU else c.dtype.type(-np.inf)
    at_c, at_bias = pointer(c, first_row * columns + column), pointer(bias, column)
    tile_geometry = TileGeometry(
        outer=1,
        inner=inner,
        a_outer=0,
        a_row=a_row,
        a_group=0,
        a_inner=a_inner,
        b_outer=0,
        b_inner=b_inner,
        c_row=columns,
        row_count=rows,
        group=rows + 1,
        column_count=width,
        has_bias=form == PLAIN,
        accumulate=accumulate,
    )
    if columns - column <= lanes(c):
        NARROW(a, b, at_c, at_bias, tile_geometry, floor)
    else:
        WIDE(a, b, at_c, at_bias, tile_geometry, floor)
    if (
        form == A_TRANSPOSED and first_row == 0
    ):  # the sum of B's rows is its product with a row of ones
        one_row = TileGeometry(
            outer=1,
            inner=inner,
            a_outer=0,
            a_row=0,
            a_group=0,
            a_inner=0,
            b_outer=0,
            b_inner=b_inner,
            c_row=0,
            row_count=1,
            group=2,
            column_count=width,
            has_bias=False,
            accumulate=accumulate,
        )
        WIDE(ones, b, at_bias, at_bias, one_row, floor)
    if code >= TANH:
        for row in range(first_row, first_row + rows):
            activate_block(code, c[row, column : column + width])


@numba.njit(**INNER)
def quotient(x, y):
    """Return x / y rounded up."""
    return -(-x // y)


@numba.njit(**INNER)
def panel_part(a, a_row, a_inner, b, c, bias, scratch, shape, panel, form, code, place):
    """Compute rows of one panel of C: panel = (column, first row, rows), shape = (where the sum
    starts, its length, columns).

    a: the address of the first row. The panel of B is packed to scratch[place:].
    """
    column, first_row, rows = panel
    start, inner, columns = shape
    b_row, b_first = (
        (inner, column * inner) if form == B_TRANSPOSED else (columns, start * columns + column)
    )
    width = VECTORS * lanes(c)
    at_b, b_inner = pointer(b, b_first), b_row
    if form == B_TRANSPOSED or (rows >= PACK_FROM and columns > width):
        pack(
            at_b,
            b_row,
            inner,
            min(width, columns - column),
            form == B_TRANSPOSED,
            pointer(scratch, place),
            width,
        )
        at_b, b_inner = pointer(scratch, place), width
    stretch = TERMS if form == A_TRANSPOSED else inner
    for first in range(0, inner, stretch):
        part = (min(stretch, inner - first), columns, a_row, a_inner)
        strip(
            advance(a, first * a_inner),
            advance(at_b, first * b_inner),
            b_inner,
            c,
            bias,
            pointer(scratch, place - lanes(c)),
            part,
            first_row,
            rows,
            column,
            form,
            code,
            start + first > 0,
        )


@numba.njit(**INNER)
def product_part(a, b, c, bias, scratch, start, inner, form, code, part, parts):
    """Compute one of `parts` parts of C, from `inner` terms of the sum.

    C is taken in blocks of rows, such that A's block stays in the second cache, and in each block
    panel by panel; the tiles in this order are dealt out by cost: a wide one costs its vectors, a
    narrow one its rows over a wide one's. Scratch holds for each part a vector that starts with 1,
    the panel of B, and a transposed A's block.
    """
    rows, columns = c.shape
    width, narrow_cost, step = VECTORS * lanes(c), TALL // ROWS, lanes(c)
    has_narrow = 0 < columns % width <= step
    work = (
        quotient(rows, ROWS) * VECTORS * (quotient(columns, width) - has_narrow)
        + has_narrow * quotient(rows, TALL) * narrow_cost
    )
    begin, end, position = work * part // parts, work * (part + 1) // parts, 0
    packing = form == A_TRANSPOSED and inner >= PACK_A_FROM and columns > 2 * width
    block = min(max(BLOCK // inner // TALL, 4) * TALL, quotient(max(rows, 1), step) * step)
    share = inner * (width + (block + step if packing else 0)) + step
    one = -scratch.ctypes.data // scratch.itemsize % step + part * share
    a_place, packed = one + step + inner * width, -1
    scratch[one] = 1
    a_row, a_inner = (1, a.shape[1]) if form == A_TRANSPOSED else (a.shape[1], 1)
    for top in range(0, rows, block):
        for column in range(0, columns, width):
            height, cost = (TALL, narrow_cost) if columns - column <= step else (ROWS, VECTORS)
            tiles = quotient(min(block, rows - top), height)
            first, last = (
                min(max(quotient(begin - position, cost), 0), tiles),
                min(max(quotient(end - position, cost), 0), tiles),
            )
            position += tiles * cost
            if first == last:
                continue
            first_row = top + first * height
            at_a = pointer(a, first_row * a_row + start * a_inner)
            if packing:
                if packed != top:
                    pack(
                        pointer(a, start * a_inner + top),
                        a_inner,
                        inner,
                        min(block, rows - top),
                        False,
                        pointer(scratch, a_place),
                        block + step,
                    )
                    packed = top
                at_a = pointer(scratch, a_place + first_row - top)
            panel = (column, first_row, min((last - first) * height, rows - first_row))
            panel_part(
                at_a,
                a_row,
                block + step if packing else a_inner,
                b,
                c,
                bias,
                scratch,
                (start, inner, columns),
                panel,
                form,
                code,
                one + step,
            )


@numba.njit(**KERNEL)
def product(a, b, c, bias, scratch, form, code, part, parts):
    """Compute one of `parts` parts of C = f(A B + bias), C = A B' or (C = A' B, bias = sum of
    B's rows): the form says which.
    """
    terms = a.shape[0] if form == A_TRANSPOSED else a.shape[1]
    stretch = SAMPLES if form == A_TRANSPOSED else terms
    state = flush_tiny_numbers()
    for start in range(0, terms, stretch):
        product_part(
            a, b, c, bias, scratch, start, min(stretch, terms - start), form, code, part, parts
        )
    restore(state)


@numba.njit(parallel=True, **KERNEL)
def product_by_threads(a, b, c, bias, scratch, form, code, parts):
    """All parts of a product, one for each thread."""
    for part in numba.prange(parts):
        product(a, b, c, bias, scratch, form, code, np.int64(part), parts)


@numba.njit(**INNER)
def pack_panels(source, row, terms, columns, width, target):
    """Copy `terms` rows of so many columns, read in one run each, to panels of `width` columns,
    (panels, terms, width).
    """
    full = lanes(source)
    for term in range(terms):
        for column in range(0, columns, width):
            for j in range(column, min(columns, column + width), full):
                count = min(full, columns - j)
                store(
                    target,
                    (terms - 1) * column + term * width + j,
                    load(source, term * row + j, count),
                    count,
                )


@numba.njit(parallel=True, **KERNEL)
def few_rows_forward(a, b, c, bias, scratch, code, parts):
    """C = f(A B + bias) for few rows of A and a B that no cache holds.

    A panel of B by itself touches another page of memory with every term. So the terms are taken
    STRETCH at a time and PANELS panels together, whose rows are read in long runs while the run
    before is multiplied; C is added to, stretch by stretch. Each part has columns of its own.
    """
    (rows, inner), columns, width = a.shape, c.shape[1], VECTORS * lanes(c)
    panels = quotient(columns, width)
    for part in numba.prange(parts):
        state, place = flush_tiny_numbers(), part * STRETCH * PANELS * width
        begin, end = (
            panels * part // parts * width,
            min(columns, panels * (part + 1) // parts * width),
        )
        for start in range(0, inner, STRETCH):
            terms, last = min(STRETCH, inner - start), start + STRETCH >= inner
            for first in range(begin, end, PANELS * width):
                stop = min(end, first + PANELS * width)
                pack_panels(
                    pointer(b, start * columns + first),
                    columns,
                    terms,
                    stop - first,
                    width,
                    pointer(scratch, place),
                )
                ahead = pointer(
                    b, start * columns + stop if stop < end else (start + STRETCH) * columns + begin
                )
                for column in range(first, stop, width):
                    at_b, at_a = (
                        pointer(scratch, place + (column - first) * terms),
                        pointer(a, start),
                    )
                    form = (
                        PLAIN if start == 0 else B_TRANSPOSED
                    )  # the bias is added once, f applied to the whole sum
                    strip(
                        at_a,
                        at_b,
                        width,
                        c,
                        bias,
                        at_a,
                        (terms, columns, inner, 1),
                        0,
                        rows,
                        column,
                        form,
                        code if last else IDENTITY,
                        start > 0,
                    )
                    for term in range(terms):
                        fetch(ahead, term * columns + column - first)
                        fetch(ahead, term * columns + column - first + width - 1)
        restore(state)


def run_product(a, b, c, bias, scratch, form, code, work) -> None:
    """Compute a product of `work` multiply-adds, alone when starting threads would take longer."""
    parts = get_threads()
    if work < SERIAL_BELOW or parts == 1:
        product(a, b, c, bias, scratch, form, code, 0, 1)
    else:
        product_by_threads(a, b, c, bias, scratch, form, code, parts)


def dense_forward(
    inputs: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    code: int,
    out: np.ndarray,
    scratch: np.ndarray,
) -> None:
    """Write out = f(inputs @ weights + bias), f the activation `code`.

    inputs: (n, k), weights: (k, m), bias: (m,), out: (n, m), scratch: at least packing_size(n, k,
    m) elements; C-contiguous, one type. n may be 0.
    """
    if 0 < len(inputs) <= FEW_ROWS and weights.size >= FEW_ROWS_FROM:
        few_rows_forward(inputs, weights, out, bias, scratch, code, get_threads())
    else:
        run_product(inputs, weights, out, bias, scratch, PLAIN, code, inputs.size * bias.size)


def dense_input_gradient(
    gradient: np.ndarray, weights: np.ndarray, out: np.ndarray, scratch: np.ndarray
) -> None:
    """Write out = gradient @ weights.T.

    gradient: (n, m), weights: (k, m), out: (n, k), scratch: at least packing_size(n, k, m)
    elements; C-contiguous, one type. n may be 0.
    """
    run_product(
        gradient, weights, out, scratch, scratch, B_TRANSPOSED, IDENTITY, weights.size * len(out)
    )


def dense_weight_gradient(
    inputs: np.ndarray,
    gradient: np.ndarray,
    weights_gradient: np.ndarray,
    bias_gradient: np.ndarray,
    scratch: np.ndarray,
) -> None:
    """Write weights_gradient = inputs.T @ gradient and bias_gradient = the sum of the gradient's
    rows.

    inputs: (n, k), gradient: (n, m), weights_gradient: (k, m), bias_gradient: (m,), scratch: at
    least packing_size(n, k, m) elements; C-contiguous, one type. With n = 0 both become 0.
    """
    if len(inputs):
        run_product(
            inputs,
            gradient,
            weights_gradient,
            bias_gradient,
            scratch,
            A_TRANSPOSED,
            IDENTITY,
            inputs.size * bias_gradient.size,
        )
    else:
        weights_gradient[:] = 0
        bias_gradient[:] = 0
