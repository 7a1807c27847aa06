"""Batch normalisation (Ioffe and Szegedy 2015), channels last.

    outputs = activation(scale * (inputs - center) + shift),   scale = gamma / sqrt(variance +
    epsilon),   shift = beta - (mean - center) * scale

The center is the mean, rounded to the type of the values: what lies far from 0 and close together
loses no digits in a difference of large numbers. Nor do the sums: those of a block are over the
differences from one of its own rows, the pivot, and blocks are added in float64. Center, scale and
shift are the rows of an array `affine` (3, c), whose address inner functions take.
The sums over samples and pixels are separate from their use: (sum, sum of squares) forward and (sum
g, sum g (x - center)) backward can be added over ranks in between, which is synchronised batch
normalisation. Values are seen as (rows, c), rows = n * h * w; sums are over blocks of BLOCK rows,
added in float64 in their order, so that they do not depend on the number of threads. The gradient
of an activation that follows is taken on the way, from its recomputed argument. Values and
gradients may be bf16 (uint16). `floor` is what `gelu.activated` takes: 0 for a ReLU, -inf for
nothing, a flag for GELU.
"""

import math

import numpy as np
from numba import njit, prange

from ensync.kernels.elementwise.activations import GELU, RELU
from ensync.kernels.elementwise.gelu import activated, passed
from ensync.kernels.flags import PRESENT, Flag
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.memory import clear
from ensync.kernels.simd.vectors import fma, load, store, zeros

BLOCK = 256
# Rows that one vector of channels passes over before the next, so that memory serves as many
# streams at once. One row after the other took up to twice the time. Only so many numbers are added
# in float32 before their sum is added to that of the block.
CHUNK = 16


def blocks(rows: int) -> int:
    """Return the number of blocks, the first axis of the scratch `partial` (blocks, 3, c), for
    this number of rows.
    """
    return -(-rows // BLOCK)


@njit(**INNER)
def keep_pivot(values, pivot, c, rows):
    """Write the row in the middle of `rows` to the address `pivot`. The first row is often the
    corner of an image, whose filters see zeros, and less like the others.
    """
    for j in range(0, c, lanes(values)):
        count = min(lanes(values), c - j)
        store(pivot, j, load(values, rows // 2 * c + j, count), count)


@njit(**INNER)
def block_sums(values, pivot, partial, c, rows):
    """Write the sums of `rows` rows, less the pivot, and of their squares to the address
    `partial` (2, c).
    """
    clear(partial, 2 * c)
    for first in range(0, rows, CHUNK):
        end = min(rows, first + CHUNK)
        for j in range(0, c, lanes(values)):
            count = min(lanes(values), c - j)
            m = load(pivot, j, count)
            a = b = p = q = zeros(values)
            for row in range(first, end - 1, 2):
                x, y = (
                    load(values, row * c + j, count) - m,
                    load(values, (row + 1) * c + j, count) - m,
                )
                a, b, p, q = a + x, b + y, fma(x, x, p), fma(y, y, q)
            if (end - first) % 2:
                x = load(values, (end - 1) * c + j, count) - m
                a, p = a + x, fma(x, x, p)
            store(partial, j, load(partial, j, count) + (a + b), count)
            store(partial, c + j, load(partial, c + j, count) + (p + q), count)


@njit(**INNER)
def add_about_pivots(partial, count, rows, block, sums):
    """Write the sums of all rows, and of the squares of their differences from their mean, to sums
    (2, c), float64.

    partial (count, 3, c): sums, sums of squares about a pivot and the pivot, each of `block` rows,
    the last of what remains of `rows`. With the first pivot P in the place of a block's own p, sum
    (x - P) = s + n (p - P) and sum (x - P)^2 = q + (p - P) (2 s + n (p - P)).
    """
    sums[:] = 0
    for part in range(count):
        n = float(min(block, rows - part * block))
        for j in range(sums.shape[1]):
            d, s = (
                np.float64(partial[part, 2, j]) - np.float64(partial[0, 2, j]),
                np.float64(partial[part, 0, j]),
            )
            sums[0, j] += s + n * d
            sums[1, j] += partial[part, 1, j] + d * (2 * s + n * d)
    for j in range(sums.shape[1] * min(count, 1)):
        squares = sums[1, j] - sums[0, j] * sums[0, j] / rows
        sums[1, j] = 0.0 if squares < 0 else squares  # NaN stays
        sums[0, j] += rows * np.float64(partial[0, 2, j])


@njit(**INNER)
def add_partial(partial, count, sums):
    """Write the sum of the first `count` partial sums (count, 3, c), of two each, to sums (2,
    c), float64, in their order.
    """
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
        mine, size = pointer(values, block * BLOCK * c), min(BLOCK, rows - block * BLOCK)
        pivot = pointer(partial, (3 * block + 2) * c)
        keep_pivot(mine, pivot, c, size)
        block_sums(mine, pivot, pointer(partial, 3 * block * c), c, size)
    add_about_pivots(partial, count, rows, BLOCK, sums)


@njit(forceinline=True, **INNER)
def load_affine(affine, c, j, count):
    """Return one vector of center, scale and shift."""
    return load(affine, j, count), load(affine, c + j, count), load(affine, 2 * c + j, count)


@njit(**INNER)
def normalize_rows(source, skip, has_skip, affine, floor, target, c, pitch, rows):
    """Write scale * (source - center) + shift + skip, activated, of `rows` rows, all given by
    addresses; NaN stays NaN.

    The rows of the target are `pitch` elements apart.
    """
    for first in range(0, rows, CHUNK):
        for j in range(0, c, lanes(source)):
            count = min(lanes(source), c - j)
            m, a, b = load_affine(affine, c, j, count)
            for row in range(first, min(rows, first + CHUNK)):
                value = fma(load(source, row * c + j, count) - m, a, b)
                if has_skip:
                    value = value + load(skip, row * c + j, count)
                store(target, row * pitch + j, activated(value, floor), count)


@njit(parallel=True, **KERNEL)
def _normalize(values, affine, skip, has_skip, floor, out):
    rows, c = values.shape
    for block in prange((rows + 31) // 32):
        at = block * 32 * c
        normalize_rows(
            pointer(values, at),
            pointer(skip, at * has_skip),
            has_skip,
            pointer(affine, 0),
            floor,
            pointer(out, at),
            c,
            c,
            min(32, rows - block * 32),
        )


@njit(**INNER)
def block_gradient_sums(gradient, values, affine, floor, partial, c, rows):
    """Write the sums of g and g (x - center) of a block to `partial` (2, c); g: the gradient
    before the activation.
    """
    nothing = zeros(values)
    clear(partial, 2 * c)
    for first in range(0, rows, CHUNK):
        for j in range(0, c, lanes(values)):
            count = min(lanes(values), c - j)
            m, a, b = load_affine(affine, c, j, count)
            total = products = nothing
            for at in range(first * c + j, min(rows, first + CHUNK) * c, c):
                x = load(values, at, count) - m
                g = passed(fma(x, a, b), load(gradient, at, count), floor)
                total, products = total + g, fma(g, x, products)
            store(partial, j, load(partial, j, count) + total, count)
            store(partial, c + j, load(partial, c + j, count) + products, count)


@njit(parallel=True, **KERNEL)
def _channel_gradient_sums(gradient, values, affine, floor, partial, sums):
    rows, c = values.shape
    count = (rows + BLOCK - 1) // BLOCK
    for block in prange(count):
        at = block * BLOCK * c
        block_gradient_sums(
            pointer(gradient, at),
            pointer(values, at),
            pointer(affine, 0),
            floor,
            pointer(partial, 3 * block * c),
            c,
            min(BLOCK, rows - block * BLOCK),
        )
    add_partial(partial, count, sums)


@njit(**INNER)
def normalize_backward_rows(gradient, values, affine, floor, coefficients, target, c, pitch, rows):
    """Write scale * g + slope * (x - center) + offset of `rows` rows, all given by addresses; g:
    the gradient before the activation.

    coefficients: slope and offset (2, c). The rows of the target are `pitch` elements apart.
    """
    for first in range(0, rows, CHUNK):
        for j in range(0, c, lanes(values)):
            count = min(lanes(values), c - j)
            (m, a, b), p, q = (
                load_affine(affine, c, j, count),
                load(coefficients, j, count),
                load(coefficients, c + j, count),
            )
            for row in range(first, min(rows, first + CHUNK)):
                x = load(values, row * c + j, count) - m
                g = passed(fma(x, a, b), load(gradient, row * c + j, count), floor)
                store(target, row * pitch + j, fma(g, a, fma(x, p, q)), count)


@njit(parallel=True, **KERNEL)
def _normalize_backward(gradient, values, affine, floor, coefficients, out):
    rows, c = values.shape
    for block in prange((rows + 31) // 32):
        at = block * 32 * c
        normalize_backward_rows(
            pointer(gradient, at),
            pointer(values, at),
            pointer(affine, 0),
            floor,
            pointer(coefficients, 0),
            pointer(out, at),
            c,
            c,
            min(32, rows - block * 32),
        )


@njit(**KERNEL)
def _coefficients(sums, count, gamma, beta, epsilon, affine, mean, variance):
    for j in range(gamma.size):
        mean[j], variance[j] = sums[0, j] / count, sums[1, j] / count
        scale = gamma[j] / math.sqrt(variance[j] + epsilon)
        affine[0, j], affine[1, j] = mean[j], scale
        affine[2, j] = beta[j] - (mean[j] - affine[0, j]) * scale


@njit(**KERNEL)
def _gradient_coefficients(
    sums, count, epsilon, mean, variance, affine, gamma_gradient, beta_gradient, coefficients
):
    for j in range(mean.size):
        inverse, scale, beyond = (
            1.0 / math.sqrt(variance[j] + epsilon),
            affine[1, j],
            mean[j] - affine[0, j],
        )
        slope = inverse * (sums[1, j] - beyond * sums[0, j])
        gamma_gradient[j], beta_gradient[j] = slope, sums[0, j]
        coefficients[0, j] = -scale * slope * inverse / count
        coefficients[1, j] = scale * (slope * inverse * beyond - sums[0, j]) / count


def floor_of(code: int, dtype: np.dtype) -> np.floating | Flag:
    """Return the `floor` of an activation `code`: IDENTITY, RELU or GELU."""
    return PRESENT if code == GELU else dtype.type(0.0 if code == RELU else -np.inf)


def channel_sums(values: np.ndarray, partial: np.ndarray, sums: np.ndarray) -> None:
    """Write each channel's sum, and sum of squared differences from its mean, of values (rows, c)
    to sums (2, c), float64.

    partial (blocks(rows), 3, c) is scratch.
    """
    _channel_sums(values, partial, sums)


def about_zero(sums: np.ndarray, count: int) -> np.ndarray:
    """Return sums and sums of squares (2, c), which add over parts of a batch, of `channel_sums` of
    `count` rows.

    In float64 they hold a variance to 1e-16 of the squared mean: to 1e-8 of itself where the mean
    is 10^4 standard deviations.
    """
    return np.stack([sums[0], sums[1] + sums[0] * sums[0] / max(1, count)])


def about_mean(sums: np.ndarray, count: int) -> np.ndarray:
    """Return what `about_zero` was given, from sums over all `count` rows."""
    return np.stack([sums[0], np.maximum(0, sums[1] - sums[0] * sums[0] / max(1, count))])


def batch_coefficients(
    sums: np.ndarray,
    count: int,
    gamma: np.ndarray,
    beta: np.ndarray,
    epsilon: float,
    affine: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
) -> None:
    """Write affine (3, c), and mean and biased variance (c) in float64, of channels whose sums
    (2, c) are those of `count` rows.
    """
    _coefficients(sums, count, gamma, beta, epsilon, affine, mean, variance)


def normalize(
    values: np.ndarray, affine: np.ndarray, skip: np.ndarray, code: int, out: np.ndarray
) -> None:
    """Write scale * (values - center) + shift + skip, behind the activation `code`, to out.

    values, out (rows, c); affine (3, c): center, scale, shift; skip (rows, c), or (0, c) for none.
    """
    floor = floor_of(code, affine.dtype)
    _normalize(values, affine, skip, int(skip.shape[0] > 0), floor, out)


def channel_gradient_sums(
    gradient: np.ndarray,
    values: np.ndarray,
    affine: np.ndarray,
    code: int,
    partial: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Write each channel's sum of g, and of g * (values - center), to sums (2, c), float64.

    g: the gradient (rows, c) before the activation `code`, given the one behind it; partial
    (blocks(rows), 3, c) is scratch.
    """
    floor = floor_of(code, affine.dtype)
    _channel_gradient_sums(gradient, values, affine, floor, partial, sums)


def gradient_coefficients(
    sums: np.ndarray,
    count: int,
    epsilon: float,
    mean: np.ndarray,
    variance: np.ndarray,
    affine: np.ndarray,
    gamma_gradient: np.ndarray,
    beta_gradient: np.ndarray,
    coefficients: np.ndarray,
) -> None:
    """From gradient sums (2, c) over all `count` rows, write the gradients of gamma and beta (c)
    and the coefficients (2, c) of `normalize_backward`.

    Under synchronised normalisation the caller scales gamma's and beta's gradients, or gives this
    rank's sums for them.
    """
    _gradient_coefficients(
        sums, count, epsilon, mean, variance, affine, gamma_gradient, beta_gradient, coefficients
    )


def normalize_backward(
    gradient: np.ndarray,
    values: np.ndarray,
    affine: np.ndarray,
    code: int,
    coefficients: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write scale * g + coefficients[0] * (values - center) + coefficients[1], the gradient of the
    values, to out (rows, c), which may be `gradient`.

    With coefficients of zeros it is the gradient under fixed (moving) statistics.
    """
    floor = floor_of(code, affine.dtype)
    _normalize_backward(gradient, values, affine, floor, coefficients, out)


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
