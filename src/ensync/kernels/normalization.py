"""Batch normalisation (Ioffe and Szegedy 2015) and local response normalisation (Krizhevsky et al. 2012), channels last.

    outputs = activation(scale * inputs + shift),   scale = gamma / sqrt(variance + epsilon),   shift = beta - mean * scale

The sums over samples and pixels are separate from their use: (sum, sum of squares) forward and (sum g, sum g x) backward can
be added over ranks in between, which is synchronised batch normalisation. Values are seen as (rows, c), rows = n * h * w;
sums are over blocks of BLOCK rows, added in float64 in their order, so that they do not depend on the number of threads.
The gradient of a ReLU that follows is taken on the way, from the recomputed sign of its argument. Values and gradients may be bf16 (uint16).
"""

import math

import numpy as np
from numba import njit, prange

from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd import lanes, pointer
from ensync.kernels.strips import clear
from ensync.kernels.vectors import choose, fma, greater, load, maximum, splat, store, zeros

BLOCK = 256
# Rows that one vector of channels passes over before the next, where they lie in the second cache; rows of 512 bytes meet in an eighth of the
# sets of the first. What lies in memory, from so many elements on, is read in its order: that took half the time or less.
CHUNK, IN_MEMORY = 16, 1 << 18


def blocks(rows: int) -> int:
    """Return the number of blocks, the first axis of the scratch `partial` (blocks, 2, c), for this number of rows."""
    return -(-rows // BLOCK)


@njit(forceinline=True, **INNER)
def chunk_of(rows, c):
    """Return how many rows to take at a time; of those in memory one, or as many as make a kilobyte."""
    if rows * c < IN_MEMORY:
        return CHUNK
    return 1 if c > 64 else 256 // c


@njit(**INNER)
def block_sums(values, partial, c, rows, chunk):
    """Write the sums and sums of squares of `rows` rows at an address to the address `partial` (2, c), `chunk` rows at a time."""
    clear(partial, 2 * c)
    for first in range(0, rows, chunk):
        end = min(rows, first + chunk)
        for j in range(0, c, lanes(values)):
            count = min(lanes(values), c - j)
            a, p = load(partial, j, count), load(partial, c + j, count)
            b = q = zeros(values)
            for row in range(first, end - 1, 2):
                x, y = load(values, row * c + j, count), load(values, (row + 1) * c + j, count)
                a, b, p, q = a + x, b + y, fma(x, x, p), fma(y, y, q)
            if (end - first) % 2:
                x = load(values, (end - 1) * c + j, count)
                a, p = a + x, fma(x, x, p)
            store(partial, j, a + b, count)
            store(partial, c + j, p + q, count)


@njit(**INNER)
def add_partial(partial, count, sums):
    """Add the first `count` partial sums (count, 2, c) in their order to sums (2, c), float64, which are overwritten."""
    sums[:] = 0
    for block in range(count):
        for k in range(2):
            for j in range(sums.shape[1]):
                sums[k, j] += partial[block, k, j]


@njit(parallel=True, **KERNEL)
def _channel_sums(values, partial, sums):
    rows, c = values.shape
    count = (rows + BLOCK - 1) // BLOCK
    for block in prange(count):
        block_sums(pointer(values, block * BLOCK * c), pointer(partial, block * 2 * c), c, min(BLOCK, rows - block * BLOCK), chunk_of(rows, c))
    add_partial(partial, count, sums)


@njit(**INNER)
def normalize_rows(source, skip, has_skip, scale, shift, floor, target, c, pitch, rows, chunk):
    """Write max(floor, scale * source + shift + skip) of `rows` rows, all given by addresses; those of the target are `pitch` elements apart."""
    low = splat(source, floor)
    for first in range(0, rows, chunk):
        for j in range(0, c, lanes(source)):
            count = min(lanes(source), c - j)
            a, b = load(scale, j, count), load(shift, j, count)
            for row in range(first, min(rows, first + chunk)):
                value = fma(load(source, row * c + j, count), a, b)
                if has_skip:
                    value = value + load(skip, row * c + j, count)
                store(target, row * pitch + j, maximum(value, low), count)


@njit(parallel=True, **KERNEL)
def _normalize(values, scale, shift, skip, has_skip, floor, out):
    rows, c = values.shape
    for block in prange((rows + 31) // 32):
        at = block * 32 * c
        normalize_rows(pointer(values, at), pointer(skip, at * has_skip), has_skip, pointer(scale, 0), pointer(shift, 0), floor,
                       pointer(out, at), c, c, min(32, rows - block * 32), chunk_of(rows, c))


@njit(**INNER)
def block_gradient_sums(gradient, values, scale, shift, floor, partial, c, rows, chunk):
    """Write the sums of g and g x of a block to `partial` (2, c); g is 0 where a ReLU follows and was closed."""
    low, nothing = splat(values, floor), zeros(values)
    clear(partial, 2 * c)
    for first in range(0, rows, chunk):
        for j in range(0, c, lanes(values)):
            count = min(lanes(values), c - j)
            a, b = load(scale, j, count), load(shift, j, count)
            total, products = load(partial, j, count), load(partial, c + j, count)
            for at in range(first * c + j, min(rows, first + chunk) * c, c):
                x = load(values, at, count)
                g = choose(greater(fma(x, a, b), low), load(gradient, at, count), nothing)
                total, products = total + g, fma(g, x, products)
            store(partial, j, total, count)
            store(partial, c + j, products, count)


@njit(parallel=True, **KERNEL)
def _channel_gradient_sums(gradient, values, scale, shift, floor, partial, sums):
    rows, c = values.shape
    count = (rows + BLOCK - 1) // BLOCK
    for block in prange(count):
        at = block * BLOCK * c
        block_gradient_sums(pointer(gradient, at), pointer(values, at), pointer(scale, 0), pointer(shift, 0), floor,
                       pointer(partial, block * 2 * c), c, min(BLOCK, rows - block * BLOCK), chunk_of(rows, c))
    add_partial(partial, count, sums)


@njit(**INNER)
def normalize_backward_rows(gradient, values, scale, shift, floor, slope, offset, target, c, pitch, rows, chunk):
    """Write scale * g + slope * x + offset of `rows` rows, all given by addresses; g is 0 where a ReLU follows and was closed.

    The rows of the target are `pitch` elements apart.
    """
    low, nothing = splat(values, floor), zeros(values)
    for first in range(0, rows, chunk):
        for j in range(0, c, lanes(values)):
            count = min(lanes(values), c - j)
            a, b, p, q = load(scale, j, count), load(shift, j, count), load(slope, j, count), load(offset, j, count)
            for row in range(first, min(rows, first + chunk)):
                x = load(values, row * c + j, count)
                g = choose(greater(fma(x, a, b), low), load(gradient, row * c + j, count), nothing)
                store(target, row * pitch + j, fma(g, a, fma(x, p, q)), count)


@njit(parallel=True, **KERNEL)
def _normalize_backward(gradient, values, scale, shift, floor, coefficients, out):
    rows, c = values.shape
    for block in prange((rows + 31) // 32):
        at = block * 32 * c
        normalize_backward_rows(pointer(gradient, at), pointer(values, at), pointer(scale, 0), pointer(shift, 0), floor, pointer(coefficients, 0),
                                pointer(coefficients, c), pointer(out, at), c, c, min(32, rows - block * 32), chunk_of(rows, c))


@njit(**KERNEL)
def _coefficients(sums, count, gamma, beta, epsilon, scale, shift, mean, variance):
    for j in range(gamma.size):
        mean[j] = sums[0, j] / count
        variance[j] = max(0.0, sums[1, j] / count - mean[j] * mean[j])
        scale[j] = gamma[j] / math.sqrt(variance[j] + epsilon)
        shift[j] = beta[j] - mean[j] * scale[j]


@njit(**KERNEL)
def _gradient_coefficients(sums, count, epsilon, mean, variance, scale, gamma_gradient, beta_gradient, coefficients):
    for j in range(scale.size):
        inverse = 1.0 / math.sqrt(variance[j] + epsilon)
        slope = inverse * (sums[1, j] - mean[j] * sums[0, j])
        gamma_gradient[j], beta_gradient[j] = slope, sums[0, j]
        coefficients[0, j] = -scale[j] * slope * inverse / count
        coefficients[1, j] = scale[j] * (slope * inverse * mean[j] - sums[0, j]) / count


def channel_sums(values: np.ndarray, partial: np.ndarray, sums: np.ndarray) -> None:
    """Write (sum, sum of squares) of each channel of values (rows, c) to sums (2, c), float64; partial (blocks(rows), 2, c) is scratch."""
    _channel_sums(values, partial, sums)


def batch_coefficients(sums: np.ndarray, count: int, gamma: np.ndarray, beta: np.ndarray, epsilon: float, scale: np.ndarray,
                       shift: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> None:
    """Write scale, shift (c), and mean and biased variance (c) in float64, of channels whose sums (2, c) are over `count` rows."""
    _coefficients(sums, count, gamma, beta, epsilon, scale, shift, mean, variance)


def normalize(values: np.ndarray, scale: np.ndarray, shift: np.ndarray, skip: np.ndarray, relu: bool, out: np.ndarray) -> None:
    """Write scale * values + shift + skip, made non-negative if `relu`, to out. values, out (rows, c); skip (rows, c), or (0, c) for none."""
    floor = scale.dtype.type(0.0 if relu else -np.inf)
    _normalize(values, scale, shift, skip, int(skip.shape[0] > 0), floor, out)


def channel_gradient_sums(gradient: np.ndarray, values: np.ndarray, scale: np.ndarray, shift: np.ndarray, relu: bool,
                          partial: np.ndarray, sums: np.ndarray) -> None:
    """Write (sum of g, sum of g * values) of each channel to sums (2, c), float64. g: gradient (rows, c) behind the ReLU, if one follows."""
    floor = scale.dtype.type(0.0 if relu else -np.inf)
    _channel_gradient_sums(gradient, values, scale, shift, floor, partial, sums)


def gradient_coefficients(sums: np.ndarray, count: int, epsilon: float, mean: np.ndarray, variance: np.ndarray, scale: np.ndarray,
                          gamma_gradient: np.ndarray, beta_gradient: np.ndarray, coefficients: np.ndarray) -> None:
    """From gradient sums (2, c) over all `count` rows, write the gradients of gamma and beta (c) and the coefficients (2, c) of `normalize_backward`.

    Under synchronised normalisation the caller scales gamma's and beta's gradients, or gives this rank's sums for them.
    """
    _gradient_coefficients(sums, count, epsilon, mean, variance, scale, gamma_gradient, beta_gradient, coefficients)


def normalize_backward(gradient: np.ndarray, values: np.ndarray, scale: np.ndarray, shift: np.ndarray, relu: bool,
                       coefficients: np.ndarray, out: np.ndarray) -> None:
    """Write scale * g + coefficients[0] * values + coefficients[1], the gradient of the values, to out (rows, c), which may be `gradient`.

    With coefficients of zeros it is the gradient under fixed (moving) statistics.
    """
    floor = scale.dtype.type(0.0 if relu else -np.inf)
    _normalize_backward(gradient, values, scale, shift, floor, coefficients, out)


@njit(parallel=True, **KERNEL)
def _add(values, to):
    count = (values.size + 8191) // 8192
    for block in prange(count):
        source, target = pointer(values, 0), pointer(to, 0)
        for at in range(block * 8192, min(values.size, block * 8192 + 8192), lanes(to)):
            full = min(lanes(to), values.size - at)
            store(target, at, load(source, at, full) + load(target, at, full), full)


def add(values: np.ndarray, to: np.ndarray) -> None:
    """Add values to an array of the same shape (rows, width), in place."""
    _add(values, to)
