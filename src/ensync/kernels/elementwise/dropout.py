"""Dropout, and its random words: functions of a key, a row and a column, so that ranks and
threads change nothing.
"""

import numba
import numpy as np

from ensync.kernels.elementwise.activations import SERIAL_BELOW
from ensync.kernels.options import INNER, KERNEL


@numba.njit(**INNER)
def row_words(key, row):
    """Return two 32-bit words that depend on every bit of key and row (two rounds of
    splitmix64's finaliser).
    """
    z = np.uint64(key) + np.uint64(row + 1) * np.uint64(0x9E3779B97F4A7C15)
    for _ in range(2):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return np.uint32(z), np.uint32(z >> np.uint64(32))


@numba.njit(**INNER)
def mix32(h):
    """Return a permutation of 32 bits in which every bit depends on every bit ("lowbias32" of C.
    Wellons' hash prospector).
    """
    h = np.uint32(np.uint32(h ^ np.uint32(h >> np.uint32(16))) * np.uint32(0x7FEB352D))
    h = np.uint32(np.uint32(h ^ np.uint32(h >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(h ^ np.uint32(h >> np.uint32(16)))


@numba.njit(**INNER)
def drop_row(values, limit, factor, key, row):
    """Drop in place the elements of one row whose random word lies below `limit`, scale the others.

    In place, since LLVM asks of two arrays whether they overlap, and computes one by one if so (15
    times slower).
    """
    low, high = row_words(key, row)
    zero = values.dtype.type(0)
    for column in range(values.size):
        word = mix32(np.uint32(mix32(np.uint32(np.uint32(column) ^ low)) ^ high))
        values[column] = values[column] * factor if word >= limit else zero


@numba.njit(parallel=True, **KERNEL)
def dropout(
    values: np.ndarray, rate: float, key: np.uint64, first_row: int, out: np.ndarray
) -> None:
    """Write `values` (n, width) with each element dropped with probability `rate` and the others
    scaled by 1 / (1 - rate); out may be values.

    key: uint64, another one for each layer and step; first_row: the place of row 0 in the global
    batch. Key, row of the global batch and column alone decide, so ranks and threads change
    nothing. rate is at least 0 and below 1, so that its limit fits 32 bits; columns are told apart
    up to 2^32.
    """
    limit, factor = np.uint32(rate * 4294967296.0), values.dtype.type(1 / (1 - rate))
    if values.size < SERIAL_BELOW:
        for row in range(values.shape[0]):
            out[row, :] = values[row]
            drop_row(out[row], limit, factor, key, first_row + row)
    else:
        for row in numba.prange(values.shape[0]):
            out[row, :] = values[row]
            drop_row(out[row], limit, factor, key, first_row + row)


def dropout_gradient(gradient: np.ndarray, rate: float, key: np.uint64, first_row: int) -> None:
    """Apply the forward pass's mask and scale to `gradient` (n, width), in place."""
    dropout(gradient, rate, key, first_row, gradient)
