"""The three products of a dense layer on the vector microkernels.

C = A B is cut into tiles: panels of columns, and in each panel blocks of rows. Each thread computes a run of tiles, so that
no sum is shared and the number of threads changes nothing. A thread copies the panel of B it works on into a contiguous
piece of scratch (`pack`) when enough rows will read it.
"""

import numba
import numpy as np

from ensync.kernels.activations import IDENTITY, RELU, TANH, activate_block
from ensync.kernels.simd import NARROW_ROWS, SIMD, WIDE_TILE, lanes, lanes_of, pointer, tile, transpose_block
from ensync.kernels.threads import get_threads

ROWS, VECTORS = WIDE_TILE[SIMD]
TALL = NARROW_ROWS[SIMD]
WIDE, NARROW = tile(ROWS, VECTORS), tile(TALL, 1)
SERIAL_BELOW = 1 << 18    # multiply-adds; less work than this is done before other threads have started
PACK_FROM = 64            # rows of C from which copying a panel of B pays for itself
SAMPLES = 1024            # of one partial sum of the weight gradient, so that its panel stays in the second cache
PLAIN, A_TRANSPOSED, B_TRANSPOSED = 0, 1, 2   # the forms of a product: forward, weight gradient, input gradient


def packing_size(n: int, inputs: int, outputs: int) -> int:
    """Return how many elements of scratch the three passes of a dense layer need for n samples, on the threads of now."""
    lane_count = lanes_of(4)   # float32 has the most
    longest = max(min(n, SAMPLES), inputs, outputs)
    return get_threads() * (longest * VECTORS + 1) * lane_count + lane_count


@numba.njit(cache=True, error_model="numpy", nogil=True)
def pack(b, first, column, inner, columns, transposed, panel, start):
    """Copy the panel of B from `column` on to panel[start:], one row of the tile's width for each term of the sum from B's element `first` on."""
    block, width = lanes(b), VECTORS * lanes(b)
    count = min(width, columns - column)
    if not transposed:
        for term in range(inner):
            source = b[first + term * columns + column:first + term * columns + column + count]
            target = panel[start + term * width:start + term * width + count]
            for i in range(count):
                target[i] = source[i]
        return
    whole_terms, whole_columns = inner // block * block, count // block * block
    for i in range(0, whole_columns, block):
        for term in range(0, whole_terms, block):
            transpose_block(pointer(b, (column + i) * inner + term), inner, pointer(panel, start + term * width + i), width)
    for i in range(count):
        for term in range(whole_terms if i < whole_columns else 0, inner):
            panel[start + term * width + i] = b[(column + i) * inner + term]


@numba.njit(cache=True, error_model="numpy", nogil=True)
def compute_tile(a, b, c, bias, ones, places, shape, form, code, accumulate):
    """Compute a tile of C, wide or narrow, and what follows it: the activation, or the sum to the bias.

    places: row and column of C, first elements of A and of the panel of B, elements between the panel's rows.
    """
    row, column, a_first, b_first, b_inner = places
    rows, inner, columns, a_row, a_inner = shape
    is_narrow = columns - column <= lanes(c)
    height, width = min(TALL if is_narrow else ROWS, rows - row), min(VECTORS * lanes(c), columns - column)
    floor = c.dtype.type(0) if code == RELU else c.dtype.type(-np.inf)
    at_a, at_b, at_c, at_bias = pointer(a, a_first), pointer(b, b_first), pointer(c, row * columns + column), pointer(bias, column)
    if is_narrow:
        NARROW(at_a, at_b, at_c, at_bias, 1, inner, 0, a_row, 0, a_inner, 0, b_inner, columns, height, TALL, width,
               form == PLAIN, accumulate, floor)
    else:
        WIDE(at_a, at_b, at_c, at_bias, 1, inner, 0, a_row, 0, a_inner, 0, b_inner, columns, height, ROWS, width,
             form == PLAIN, accumulate, floor)
    if form == A_TRANSPOSED and row == 0:   # the sum of B's rows is its product with a row of ones
        WIDE(ones, at_b, at_bias, at_bias, 1, inner, 0, 0, 0, 0, 0, b_inner, 0, 1, ROWS, width, 0, accumulate, floor)
    if code >= TANH:
        for i in range(row, row + height):
            activate_block(code, c[i * columns + column:i * columns + column + width])


@numba.njit(cache=True, error_model="numpy", nogil=True)
def tiles_before(work, wide_tiles):
    """Return how many tiles begin before `work`, when a wide tile costs its vectors and a narrow one its rows over a wide one's."""
    if work <= wide_tiles * VECTORS:
        return (work + VECTORS - 1) // VECTORS
    return wide_tiles + (work - wide_tiles * VECTORS + TALL // ROWS - 1) // (TALL // ROWS)


@numba.njit(cache=True, error_model="numpy", nogil=True)
def compute_part(a, b, c, bias, scratch, shape, first, form, code, part, parts):
    """Compute one of `parts` runs of C's tiles, of equal cost: first all wide tiles, panel by panel, then the narrow ones.

    first: where the sum starts along A and B; above 0 it is added to C.
    """
    rows, inner, columns, a_row, a_inner = shape
    width, b_row = VECTORS * lanes(c), inner if form == B_TRANSPOSED else columns
    has_narrow = 0 < columns % width <= lanes(c)
    down = (rows + ROWS - 1) // ROWS
    wide_tiles = down * (columns // width if has_narrow else (columns + width - 1) // width)
    work = wide_tiles * VECTORS + has_narrow * ((rows + TALL - 1) // TALL) * (TALL // ROWS)
    packing, packed = form == B_TRANSPOSED or (rows >= PACK_FROM and columns > width), -1
    one = -scratch.ctypes.data // scratch.itemsize % lanes(c) + part * (inner * width + lanes(c))
    panel = one + lanes(c)
    scratch[one] = 1
    for index in range(tiles_before(work * part // parts, wide_tiles), tiles_before(work * (part + 1) // parts, wide_tiles)):
        column, row = index // down * width, index % down * ROWS
        if index >= wide_tiles:
            column, row = wide_tiles // down * width, (index - wide_tiles) * TALL
        if packing and column != packed:
            pack(b, first * b_row, column, inner, columns, form == B_TRANSPOSED, scratch, panel)
            packed = column
        places = (row, column, first * a_inner + row * a_row, panel if packing else first * b_row + column, width if packing else b_row)
        compute_tile(a, scratch if packing else b, c, bias, pointer(scratch, one), places, shape, form, code, first > 0)


@numba.njit(cache=True, error_model="numpy", nogil=True)
def product(a, b, c, bias, scratch, form, code, part, parts):
    """One of `parts` parts of C = f(A B + bias), C = A B' or (C = A' B, bias = sum of B's rows): the form says which."""
    rows, columns = c.shape
    a_row, a_inner = (1, rows) if form == A_TRANSPOSED else (a.shape[1], 1)
    terms = a.shape[0] if form == A_TRANSPOSED else a.shape[1]
    stretch = SAMPLES if form == A_TRANSPOSED else terms
    for first in range(0, terms, stretch):
        shape = (rows, min(stretch, terms - first), columns, a_row, a_inner)
        compute_part(a.reshape(-1), b.reshape(-1), c.reshape(-1), bias, scratch, shape, first, form, code, part, parts)


@numba.njit(cache=True, error_model="numpy", nogil=True, parallel=True)
def product_by_threads(a, b, c, bias, scratch, form, code, parts):
    """All parts of a product, one for each thread."""
    for part in numba.prange(parts):
        product(a, b, c, bias, scratch, form, code, np.int64(part), parts)


def run_product(a, b, c, bias, scratch, form, code, work) -> None:
    """Compute a product of `work` multiply-adds, alone when starting threads would take longer."""
    parts = get_threads()
    if work < SERIAL_BELOW or parts == 1:
        product(a, b, c, bias, scratch, form, code, 0, 1)
    else:
        product_by_threads(a, b, c, bias, scratch, form, code, parts)


def dense_forward(inputs: np.ndarray, weights: np.ndarray, bias: np.ndarray, code: int, out: np.ndarray, scratch: np.ndarray) -> None:
    """Write out = f(inputs @ weights + bias), f the activation `code`.

    inputs: (n, k), weights: (k, m), bias: (m,), out: (n, m), scratch: at least packing_size(n, k, m) elements;
    C-contiguous, one type. n may be 0.
    """
    run_product(inputs, weights, out, bias, scratch, PLAIN, code, inputs.size * bias.size)


def dense_input_gradient(gradient: np.ndarray, weights: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    """Write out = gradient @ weights.T.

    gradient: (n, m), weights: (k, m), out: (n, k), scratch: at least packing_size(n, k, m) elements; C-contiguous, one type.
    n may be 0.
    """
    run_product(gradient, weights, out, scratch, scratch, B_TRANSPOSED, IDENTITY, weights.size * len(out))


def dense_weight_gradient(inputs: np.ndarray, gradient: np.ndarray, weights_gradient: np.ndarray, bias_gradient: np.ndarray,
                          scratch: np.ndarray) -> None:
    """Write weights_gradient = inputs.T @ gradient and bias_gradient = the sum of the gradient's rows.

    inputs: (n, k), gradient: (n, m), weights_gradient: (k, m), bias_gradient: (m,), scratch: at least packing_size(n, k, m)
    elements; C-contiguous, one type. With n = 0 both become 0.
    """
    if len(inputs):
        run_product(inputs, gradient, weights_gradient, bias_gradient, scratch, A_TRANSPOSED, IDENTITY, inputs.size * bias_gradient.size)
    else:
        weights_gradient[:] = 0
        bias_gradient[:] = 0
