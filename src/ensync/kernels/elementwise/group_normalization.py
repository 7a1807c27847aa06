"""Group normalisation (Wu and He 2018), channels last: each sample by itself.

    outputs = activation(scale * (inputs - center) + shift),   scale = gamma / sqrt(variance +
    epsilon),   shift = beta - (mean - center) * scale

Mean and variance are those of a group of channels of one sample. Gradients, with x = inputs - mean,
r = 1 / sqrt(variance + epsilon), m values in a group and g the gradient before the activation:

    gradient of gamma = sum over samples of sum (g x r),   of beta = sum over samples of sum g
    gradient of the inputs = scale * g - r / m * (sum (gamma g) + x r * sum (gamma g x r))

A sample is summed and normalised while it is in the cache, so that memory is read once and written
once each way. Its rows are its pixels: sums of a channel are those of batch normalisation over so
many rows, and the channels of a group add up in float64. Parameters' gradients add up over the
samples in their order, whatever the number of threads. Values and gradients may be bf16 (uint16).
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from ensync.kernels.elementwise.normalization import (
    BLOCK,
    block_gradient_sums,
    block_sums,
    floor_of,
    keep_pivot,
    normalize_backward_rows,
    normalize_rows,
)
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.intrinsics import pointer


class GroupStatistics(NamedTuple):
    """What the passes over n samples of c channels in g groups leave for each other.

    affine (n, 3, c): center, scale and shift; moments (n, 2, g), float64: mean less center, and
    1 / sqrt(variance + epsilon); partial (n, 3, c) and sums (n, 2, c), float64: scratch. affine and
    partial are of the parameters' type.
    """

    affine: np.ndarray
    moments: np.ndarray
    partial: np.ndarray
    sums: np.ndarray


@njit(**INNER)
def add_block(partial, sums, sample, first):
    """Add the sums of a block, the first two rows of partial (n, 3, c), to sums (n, 2, c) of a
    sample; those of the first block replace what is there.
    """
    for k in range(2):
        for j in range(sums.shape[2]):
            before = sums[sample, k, j] if first else 0.0
            sums[sample, k, j] = before + partial[sample, k, j]


@njit(**INNER)
def group_moments(partial, sums, sample, rows, first, last):
    """Return mean and biased variance of the channels from `first` to `last` of a sample.

    sums (n, 2, c): of the differences of `rows` values from the channel's pivot, partial[:, 2], and
    of their squares.
    """
    share, mean, squares = 1.0 / rows, 0.0, 0.0
    for j in range(first, last):
        mean += partial[sample, 2, j] + share * sums[sample, 0, j]
    mean /= last - first
    for j in range(first, last):
        own = share * sums[sample, 0, j]
        beside = partial[sample, 2, j] + own - mean
        squares += sums[sample, 1, j] - own * sums[sample, 0, j] + rows * beside * beside
    variance = squares / (rows * (last - first))
    return mean, 0.0 if variance < 0 else variance  # NaN stays


@njit(parallel=True, **KERNEL)
def _group_normalize(values, gamma, beta, epsilon, skip, floor, statistics, out):
    samples, rows, c = values.shape
    affine, moments, partial, sums = statistics
    groups = moments.shape[2]
    width = c // groups
    for sample in prange(samples):
        at = sample * rows * c
        pivot = pointer(partial, (3 * sample + 2) * c)
        keep_pivot(pointer(values, at), pivot, c, rows)
        for first in range(0, rows, BLOCK):
            mine = pointer(values, at + first * c)
            block_sums(mine, pivot, pointer(partial, 3 * sample * c), c, min(BLOCK, rows - first))
            add_block(partial, sums, sample, first)
        for group in range(groups):
            first, last = group * width, (group + 1) * width
            mean, variance = group_moments(partial, sums, sample, rows, first, last)
            inverse = 1.0 / math.sqrt(variance + epsilon)
            affine[sample, 0, first] = mean
            center = affine[sample, 0, first]  # rounded
            moments[sample, 0, group] = beyond = mean - center
            moments[sample, 1, group] = inverse
            for j in range(first, last):
                scale = gamma[j] * inverse
                affine[sample, 0, j] = center
                affine[sample, 1, j] = scale
                affine[sample, 2, j] = beta[j] - beyond * scale
        has_skip = int(skip.shape[0] > 0)
        normalize_rows(
            pointer(values, at),
            pointer(skip, at * has_skip),
            has_skip,
            pointer(affine, 3 * sample * c),
            floor,
            pointer(out, at),
            c,
            c,
            rows,
        )


@njit(parallel=True, **KERNEL)
def _group_normalize_backward(gradient, values, gamma, floor, statistics, out):
    samples, rows, c = values.shape
    affine, moments, partial, sums = statistics
    groups = moments.shape[2]
    width = c // groups
    for sample in prange(samples):
        at = sample * rows * c
        for first in range(0, rows, BLOCK):
            block_gradient_sums(
                pointer(gradient, at + first * c),
                pointer(values, at + first * c),
                pointer(affine, 3 * sample * c),
                floor,
                pointer(partial, 3 * sample * c),
                c,
                min(BLOCK, rows - first),
            )
            add_block(partial, sums, sample, first)
        for group in range(groups):
            beyond, inverse = moments[sample, 0, group], moments[sample, 1, group]
            total = products = 0.0
            for j in range(group * width, (group + 1) * width):
                sums[sample, 1, j] = inverse * (sums[sample, 1, j] - beyond * sums[sample, 0, j])
                total += gamma[j] * sums[sample, 0, j]
                products += gamma[j] * sums[sample, 1, j]
            share = inverse / (rows * width)
            for j in range(group * width, (group + 1) * width):
                partial[sample, 0, j] = -share * inverse * products
                partial[sample, 1, j] = share * (inverse * products * beyond - total)
        normalize_backward_rows(
            pointer(gradient, at),
            pointer(values, at),
            pointer(affine, 3 * sample * c),
            floor,
            pointer(partial, 3 * sample * c),
            pointer(out, at),
            c,
            c,
            rows,
        )


@njit(**KERNEL)
def _add_samples(sums, gamma_gradient, beta_gradient):
    for j in range(gamma_gradient.size):
        slope = total = 0.0
        for sample in range(sums.shape[0]):
            total += sums[sample, 0, j]
            slope += sums[sample, 1, j]
        gamma_gradient[j], beta_gradient[j] = slope, total


def group_normalize(
    values: np.ndarray,
    parameters: tuple[np.ndarray, np.ndarray, float],
    skip: np.ndarray,
    code: int,
    statistics: GroupStatistics,
    out: np.ndarray,
) -> None:
    """Write the normalised values plus skip, behind the activation `code`, to out, and leave the
    statistics for the gradient.

    values, out (n, rows, c); parameters: gamma (c), beta (c) and epsilon; skip (n, rows, c), or
    (0, rows, c) for none.
    """
    gamma, beta, epsilon = parameters
    floor = floor_of(code, gamma.dtype)
    _group_normalize(values, gamma, beta, epsilon, skip, floor, statistics, out)


def group_normalize_backward(
    gradient: np.ndarray,
    values: np.ndarray,
    gamma: np.ndarray,
    code: int,
    statistics: GroupStatistics,
    out: np.ndarray,
) -> None:
    """Write the gradient of the values to out (n, rows, c), which may be `gradient`, given that of
    the outputs behind the activation `code`.

    It leaves in `statistics.sums` what `group_parameter_gradients` adds up.
    """
    floor = floor_of(code, gamma.dtype)
    _group_normalize_backward(gradient, values, gamma, floor, statistics, out)


def group_parameter_gradients(
    statistics: GroupStatistics, gamma_gradient: np.ndarray, beta_gradient: np.ndarray
) -> None:
    """Write the gradients of gamma and beta (c) from the sums of `group_normalize_backward`."""
    _add_samples(statistics.sums, gamma_gradient, beta_gradient)
