"""Optimiser steps over flat vectors, one pass over memory each; PyTorch's formulas."""

import math
from typing import NamedTuple

import numba
import numpy as np

from ensync.kernels.elementwise.activations import BLOCK, SERIAL_BELOW
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.intrinsics import flush_tiny_numbers, restore


@numba.njit(fastmath={"contract"}, **INNER)
def sgd_block(parameters, gradient, rate, decay):
    """p -= rate * (g + decay * p)."""
    state = flush_tiny_numbers()
    for i in range(parameters.size):
        parameters[i] -= rate * (gradient[i] + decay * parameters[i])
    restore(state)


@numba.njit(parallel=True, **KERNEL)
def sgd(
    parameters: np.ndarray, gradient: np.ndarray, learning_rate: float, weight_decay: float
) -> None:
    """p -= learning_rate * (g + weight_decay * p); (size,) vectors of one type."""
    rate, decay = parameters.dtype.type(learning_rate), parameters.dtype.type(weight_decay)
    if parameters.size < SERIAL_BELOW:
        sgd_block(parameters, gradient, rate, decay)
    else:
        for block in numba.prange((parameters.size + BLOCK - 1) // BLOCK):
            part = slice(block * BLOCK, (block + 1) * BLOCK)
            sgd_block(parameters[part], gradient[part], rate, decay)


@numba.njit(fastmath={"contract"}, **INNER)
def momentum_block(parameters, gradient, velocity, rate, keep, decay, nesterov):
    """v = keep * v + g; p -= rate * (g + keep * v if nesterov else v), with g + decay * p for g."""
    new, old = (
        (parameters.dtype.type(1), keep)
        if nesterov
        else (parameters.dtype.type(0), parameters.dtype.type(1))
    )
    state = flush_tiny_numbers()
    for i in range(parameters.size):
        slope = gradient[i] + decay * parameters[i]
        velocity[i] = keep * velocity[i] + slope
        parameters[i] -= rate * (new * slope + old * velocity[i])
    restore(state)


@numba.njit(parallel=True, **KERNEL)
def momentum(
    parameters: np.ndarray,
    gradient: np.ndarray,
    velocity: np.ndarray,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """v = momentum * v + g; p -= learning_rate * v, or * (g + momentum * v) with nesterov; g
    includes weight_decay * p.

    (size,) vectors of one type; velocity starts at 0 (PyTorch's SGD, without dampening).
    """
    kind = parameters.dtype.type
    rate, keep, decay = kind(learning_rate), kind(momentum), kind(weight_decay)
    if parameters.size < SERIAL_BELOW:
        momentum_block(parameters, gradient, velocity, rate, keep, decay, nesterov)
    else:
        for block in numba.prange((parameters.size + BLOCK - 1) // BLOCK):
            part = slice(block * BLOCK, (block + 1) * BLOCK)
            momentum_block(
                parameters[part], gradient[part], velocity[part], rate, keep, decay, nesterov
            )


@numba.njit(fastmath={"contract"}, **INNER)
def adam_block(parameters, gradient, first, second, rate, weights, root, epsilon, coupled, kept):
    """First and second moments of g + coupled * p, then p = kept * p - rate * m / (sqrt(v) *
    root + epsilon).
    """
    beta1, rest1, beta2, rest2 = weights
    state = flush_tiny_numbers()
    for i in range(parameters.size):
        slope = gradient[i] + coupled * parameters[i]
        first[i] = beta1 * first[i] + rest1 * slope
        second[i] = beta2 * second[i] + rest2 * (slope * slope)
        parameters[i] = kept * parameters[i] - rate * first[i] / (
            np.sqrt(second[i]) * root + epsilon
        )
    restore(state)


class AdamSettings(NamedTuple):
    """Settings of Adam; with `decoupled` weight decay it is AdamW."""

    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    decoupled: bool


@numba.njit(parallel=True, **KERNEL)
def adam(
    parameters: np.ndarray,
    gradient: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    step: int,
    settings: AdamSettings,
) -> None:
    """One step of Adam (Kingma and Ba 2015), or of AdamW (Loshchilov and Hutter 2019) when weight
    decay is decoupled.

    (size,) vectors of one type; first, second: the moments, 0 before the first step; step: 1 at the
    first step.
    """
    kind, (learning_rate, beta1, beta2, epsilon, weight_decay, decoupled) = (
        parameters.dtype.type,
        settings,
    )
    rate, root = kind(learning_rate / (1 - beta1**step)), kind(1 / math.sqrt(1 - beta2**step))
    coupled = kind(0 if decoupled else weight_decay)
    kept = kind(1 - learning_rate * weight_decay if decoupled else 1)
    weights, small = (kind(beta1), kind(1 - beta1), kind(beta2), kind(1 - beta2)), kind(epsilon)
    if parameters.size < SERIAL_BELOW:
        adam_block(parameters, gradient, first, second, rate, weights, root, small, coupled, kept)
    else:
        for block in numba.prange((parameters.size + BLOCK - 1) // BLOCK):
            part = slice(block * BLOCK, (block + 1) * BLOCK)
            adam_block(
                parameters[part],
                gradient[part],
                first[part],
                second[part],
                rate,
                weights,
                root,
                small,
                coupled,
                kept,
            )


@numba.njit(parallel=True, **KERNEL)
def follow(parameters: np.ndarray, average: np.ndarray, share: float) -> None:
    """average += share * (parameters - average): one step of an exponential moving average,
    (size,) vectors of one type.
    """
    part = parameters.dtype.type(share)
    for block in numba.prange((parameters.size + BLOCK - 1) // BLOCK):
        for i in range(block * BLOCK, min(parameters.size, (block + 1) * BLOCK)):
            average[i] += part * (parameters[i] - average[i])


@numba.njit(fastmath={"reassoc", "contract"}, **INNER)
def squares_block(vector):
    """Return the sum of squares of a stretch."""
    total = 0.0
    for i in range(vector.size):
        total += np.float64(vector[i]) * np.float64(vector[i])
    return total


@numba.njit(parallel=True, **KERNEL)
def sum_of_squares(vector: np.ndarray) -> float:
    """Return the sum of squares of a (size,) vector in float64, blocks added in a fixed order;
    NaN or inf when one is inside.
    """
    blocks = (vector.size + BLOCK - 1) // BLOCK
    sums = np.zeros(blocks)
    for block in numba.prange(blocks):
        sums[block] = squares_block(vector[block * BLOCK : (block + 1) * BLOCK])
    return sums.sum()


def all_finite(vector: np.ndarray) -> bool:
    """Return whether no element of a (size,) vector is NaN or infinite (in float64, beyond
    1e154: its square is).
    """
    return math.isfinite(sum_of_squares(vector))
