"""A step divided by the root of accumulated squares: RMSprop and Adagrad."""

from typing import NamedTuple

import numba
import numpy as np

from ensync.kernels.elementwise.activations import BLOCK, SERIAL_BELOW
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.intrinsics import flush_tiny_numbers, restore


class Squares(NamedTuple):
    """How squares accumulate: s = keep * s + share * g^2; the root of s has epsilon added."""

    keep: float
    share: float
    epsilon: float


@numba.njit(fastmath={"contract"}, **INNER)
def scaled_block(parameters, gradient, square, rate, decay, numbers):
    """s = keep * s + share * g^2; p -= rate * g / (sqrt(s) + epsilon), with g + decay * p for g."""
    keep, share, epsilon = numbers
    state = flush_tiny_numbers()
    for i in range(parameters.size):
        slope = gradient[i] + decay * parameters[i]
        square[i] = keep * square[i] + share * (slope * slope)
        parameters[i] -= rate * slope / (np.sqrt(square[i]) + epsilon)
    restore(state)


@numba.njit(parallel=True, **KERNEL)
def scaled(
    parameters: np.ndarray,
    gradient: np.ndarray,
    square: np.ndarray,
    learning_rate: float,
    weight_decay: float,
    squares: Squares,
) -> None:
    """One step of RMSprop (keep = alpha, share = 1 - alpha; Tieleman and Hinton 2012) or Adagrad
    (both 1; Duchi, Hazan and Singer 2011), as PyTorch has them.

    (size,) vectors of one type; square: 0 before the first step.
    """
    kind = parameters.dtype.type
    rate, decay = kind(learning_rate), kind(weight_decay)
    numbers = (kind(squares.keep), kind(squares.share), kind(squares.epsilon))
    if parameters.size < SERIAL_BELOW:
        scaled_block(parameters, gradient, square, rate, decay, numbers)
    else:
        for block in numba.prange((parameters.size + BLOCK - 1) // BLOCK):
            part = slice(block * BLOCK, (block + 1) * BLOCK)
            scaled_block(parameters[part], gradient[part], square[part], rate, decay, numbers)
