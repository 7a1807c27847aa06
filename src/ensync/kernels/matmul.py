"""The three products of a dense layer on the vector microkernels."""

import math

import numba
import numpy as np

from ensync.kernels.activations import IDENTITY, RELU, activate
from ensync.kernels.simd import SIMD, WIDE_TILE, lanes, pointer, tile
from ensync.kernels.threads import get_threads

ROWS, VECTORS = WIDE_TILE[SIMD]
TILE = tile(ROWS, VECTORS)
SERIAL_BELOW = 1 << 19   # multiply-adds; less work than this is done before other threads have started


@numba.njit(cache=True, error_model="numpy", nogil=True)
def product_part(a, b, c, bias, counts, strides, has_bias, floor, part, parts):
    """Compute the tiles of C that fall to one of `parts` equal parts; panels of columns are the outer order."""
    row_count, inner, column_count = counts
    a_row, a_inner = strides
    width = VECTORS * lanes(c)
    down, across = (row_count + ROWS - 1) // ROWS, (column_count + width - 1) // width
    for index in range(down * across * part // parts, down * across * (part + 1) // parts):
        row, column = index % down * ROWS, index // down * width
        TILE(pointer(a, row * a_row), pointer(b, column), pointer(c, row * column_count + column), pointer(bias, has_bias * column),
             1, inner, 0, a_row, 0, a_inner, 0, column_count, column_count,
             min(ROWS, row_count - row), ROWS, min(width, column_count - column), has_bias, 0, floor)


@numba.njit(cache=True, error_model="numpy", nogil=True, parallel=True)
def product(a, b, c, bias, counts, strides, has_bias, floor, parts):
    """C = max(floor, A B + bias): counts = (rows, inner, columns), strides = A's elements from row to row and along the sum."""
    row_count, inner, column_count = counts
    if row_count * inner * column_count < SERIAL_BELOW:
        product_part(a, b, c, bias, counts, strides, has_bias, floor, 0, 1)
    else:
        for part in numba.prange(parts):
            product_part(a, b, c, bias, counts, strides, has_bias, floor, part, parts)


@numba.njit(cache=True, error_model="numpy", nogil=True)
def sum_rows(matrix, out):
    """Write the sum of the rows."""
    out[:] = 0
    for row in range(matrix.shape[0]):
        for column in range(matrix.shape[1]):
            out[column] += matrix[row, column]


@numba.njit(cache=True, error_model="numpy", nogil=True)
def transpose(matrix, out):
    """Write the transposed matrix into a flat array."""
    for column in range(matrix.shape[1]):
        for row in range(matrix.shape[0]):
            out[column * matrix.shape[0] + row] = matrix[row, column]


def packing_size(inputs: int, outputs: int) -> int:
    """Return how many elements of scratch the kernels of a dense layer need."""
    return inputs * outputs


def dense_forward(inputs: np.ndarray, weights: np.ndarray, bias: np.ndarray, code: int, out: np.ndarray) -> None:
    """Write out = f(inputs @ weights + bias), f the activation `code`.

    inputs: (n, k), weights: (k, m), bias: (m,), out: (n, m); C-contiguous, one type. n may be 0.
    """
    (n, k), m = inputs.shape, bias.size
    if n:
        floor = out.dtype.type(0 if code == RELU else -math.inf)
        product(inputs, weights, out, bias, (n, k, m), (k, 1), 1, floor, get_threads())
        if code not in (IDENTITY, RELU):
            activate(code, out)


def dense_input_gradient(gradient: np.ndarray, weights: np.ndarray, out: np.ndarray, scratch: np.ndarray) -> None:
    """Write out = gradient @ weights.T.

    gradient: (n, m), weights: (k, m), out: (n, k), scratch: at least packing_size(k, m) elements; one type. n may be 0.
    """
    (n, k), m = out.shape, weights.shape[1]
    if n:
        transpose(weights, scratch)
        product(gradient, scratch, out, scratch, (n, m, k), (m, 1), 0, out.dtype.type(-math.inf), get_threads())


def dense_weight_gradient(inputs: np.ndarray, gradient: np.ndarray, weights_gradient: np.ndarray, bias_gradient: np.ndarray) -> None:
    """Write weights_gradient = inputs.T @ gradient and bias_gradient = the sum of the gradient's rows.

    inputs: (n, k), gradient: (n, m), weights_gradient: (k, m), bias_gradient: (m,); one type. With n = 0 both become 0.
    """
    (n, k), m = inputs.shape, bias_gradient.size
    if n:
        product(inputs, gradient, weights_gradient, bias_gradient, (k, n, m), (1, k), 0, weights_gradient.dtype.type(-math.inf), get_threads())
        sum_rows(gradient, bias_gradient)
    else:
        weights_gradient[:] = 0
        bias_gradient[:] = 0
