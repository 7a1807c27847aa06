"""Activations and their gradients, and softmax: in place, vectorised."""

import numba
import numpy as np

from ensync.kernels.elementwise.functions import exponential, hyperbolic_tangent, logistic
from ensync.kernels.elementwise.gelu import gelu, gelu_gradient
from ensync.kernels.options import INNER, KERNEL

IDENTITY, RELU, TANH, LOGISTIC, GELU = range(5)
ACTIVATIONS: dict[str, int] = {
    "identity": IDENTITY,
    "relu": RELU,
    "tanh": TANH,
    "logistic": LOGISTIC,
    "gelu": GELU,
}

BLOCK = 1 << 13  # elements of one task
SERIAL_BELOW = 1 << 15  # elements; less work than this is done before other threads have started


@numba.njit(**INNER)
def activate_block(code, values):
    """Apply an activation other than GELU to a flat stretch, in place."""
    zero = values.dtype.type(0)
    if code == RELU:
        for i in range(values.size):
            values[i] = zero if values[i] < zero else values[i]
    elif code == TANH:
        for i in range(values.size):
            values[i] = hyperbolic_tangent(values[i])
    elif code == LOGISTIC:
        for i in range(values.size):
            values[i] = logistic(values[i])


@numba.njit(parallel=True, **KERNEL)
def _activate(code, values):
    flat = values.reshape(-1)
    blocks = (flat.size + BLOCK - 1) // BLOCK
    if flat.size < SERIAL_BELOW:
        activate_block(code, flat)
    else:
        for block in numba.prange(blocks):
            activate_block(code, flat[block * BLOCK : (block + 1) * BLOCK])


@numba.njit(**INNER)
def gradient_block(code, outputs, gradient):
    """Multiply a flat stretch of the gradient by the derivative of an activation other than GELU,
    written as a function of its output.
    """
    zero, one = gradient.dtype.type(0), gradient.dtype.type(1)
    if code == RELU:
        for i in range(gradient.size):
            gradient[i] = gradient[i] if outputs[i] > zero else zero
    elif code == TANH:
        for i in range(gradient.size):
            gradient[i] *= one - outputs[i] * outputs[i]
    elif code == LOGISTIC:
        for i in range(gradient.size):
            gradient[i] *= outputs[i] * (one - outputs[i])


@numba.njit(parallel=True, **KERNEL)
def _activation_gradient(code, outputs, gradient):
    flat_outputs, flat = outputs.reshape(-1), gradient.reshape(-1)
    blocks = (flat.size + BLOCK - 1) // BLOCK
    if flat.size < SERIAL_BELOW:
        gradient_block(code, flat_outputs, flat)
    else:
        for block in numba.prange(blocks):
            gradient_block(
                code,
                flat_outputs[block * BLOCK : (block + 1) * BLOCK],
                flat[block * BLOCK : (block + 1) * BLOCK],
            )


def activate(code: int, values: np.ndarray) -> None:
    """Apply the activation `code` (see ACTIVATIONS) to every element, in place; NaN stays NaN."""
    if code == GELU:
        gelu(values, values)
    else:
        _activate(code, values)


def activation_gradient(code: int, kept: np.ndarray, gradient: np.ndarray) -> None:
    """Multiply `gradient` by the activation's derivative, in place; any one shape for both.

    kept: the outputs, of which the derivative is a function; of GELU, what it was taken of.
    """
    if code == GELU:
        gelu_gradient(kept, gradient)
    else:
        _activation_gradient(code, kept, gradient)


@numba.njit(**INNER)
def softmax_row(logits, out):
    """Write the softmax of one row; the largest logit is subtracted first. Return that logit and
    the sum of exponentials.
    """
    largest = logits[0]
    for i in range(1, logits.size):
        largest = largest if logits[i] <= largest else logits[i]
    total = logits.dtype.type(0)
    for i in range(logits.size):
        out[i] = exponential(logits[i] - largest)
    for i in range(logits.size):
        total += out[i]
    factor = logits.dtype.type(1) / total
    for i in range(logits.size):
        out[i] *= factor
    return largest, total


@numba.njit(parallel=True, **KERNEL)
def softmax(logits: np.ndarray, out: np.ndarray) -> None:
    """Write the softmax of each row of `logits` (n, classes) to `out` (n, classes), which may be
    `logits` itself.
    """
    if logits.size < SERIAL_BELOW:
        for row in range(logits.shape[0]):
            softmax_row(logits[row], out[row])
    else:
        for row in numba.prange(logits.shape[0]):
            softmax_row(logits[row], out[row])


@numba.njit(**KERNEL)
def softmax_gradient(outputs: np.ndarray, gradient: np.ndarray) -> None:
    """Turn the gradient at softmax's outputs (n, classes) into the one at its logits, in place:
    o * (g - sum(g * o)).
    """
    for row in range(outputs.shape[0]):
        total = gradient.dtype.type(0)
        for i in range(outputs.shape[1]):
            total += gradient[row, i] * outputs[row, i]
        for i in range(outputs.shape[1]):
            gradient[row, i] = outputs[row, i] * (gradient[row, i] - total)
