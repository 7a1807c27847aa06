"""Activations and their gradients, softmax, dropout: in place, vectorised, without a library
call per element.
"""

import math

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic, overload

from ensync.kernels.options import INNER, KERNEL

IDENTITY, RELU, TANH, LOGISTIC = 0, 1, 2, 3
ACTIVATIONS: dict[str, int] = {
    "identity": IDENTITY,
    "relu": RELU,
    "tanh": TANH,
    "logistic": LOGISTIC,
}

BLOCK = 1 << 13  # elements of one task
SERIAL_BELOW = 1 << 15  # elements; less work than this is done before other threads have started


@intrinsic
def as_float32(typing_context, bits):
    """Return the float32 with these 32 bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@intrinsic
def as_bits(typing_context, value):
    """Return the 32 bits of a float32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


def exponential(x):
    """Return e**x, to be called in compiled code; float32 to 1e-7 relative from -87.3 to 88.3,
    held there beyond.
    """
    raise NotImplementedError("only in compiled code")


def hyperbolic_tangent(x):
    """Return tanh x, to be called in compiled code; float32 to 3e-7 absolute."""
    raise NotImplementedError("only in compiled code")


def logistic(x):
    """Return 1 / (1 + e**-x), to be called in compiled code; float32 to 2e-7 absolute."""
    raise NotImplementedError("only in compiled code")


@overload(exponential)
def _exponential(x):
    return exponential32 if x == types.float32 else lambda x: math.exp(x)


@overload(hyperbolic_tangent)
def _hyperbolic_tangent(x):
    return hyperbolic_tangent32 if x == types.float32 else lambda x: math.tanh(x)


@overload(logistic)
def _logistic(x):
    return logistic32 if x == types.float32 else lambda x: 1.0 / (1.0 + math.exp(-x))


EXP_LOW, EXP_HIGH = np.float32(-87.3), np.float32(88.3)
LOG2_E, LN2_HIGH, LN2_LOW = (
    np.float32(1.44269504),
    np.float32(0.693359375),
    np.float32(-2.12194440e-4),
)
ROUND = np.float32(1.5 * 2**23)  # adding it leaves the nearest whole number in the low bits
E0, E1, E2, E3, E4, E5 = map(
    np.float32,
    (
        5.0000001201e-1,
        1.6666665459e-1,
        4.1665795894e-2,
        8.3334519073e-3,
        1.3981999507e-3,
        1.9875691500e-4,
    ),
)
ONE, HALF = np.float32(1), np.float32(0.5)


def exponential32(x):
    """e**x = 2**n * e**r: n = round(x / ln 2), r = x - n ln 2 in two parts (Cody and Waite),
    e**r by the polynomial of Cephes' expf.
    """
    x = EXP_LOW if x < EXP_LOW else x
    x = EXP_HIGH if x > EXP_HIGH else x
    rounded = x * LOG2_E + ROUND
    n = rounded - ROUND
    r = x - n * LN2_HIGH - n * LN2_LOW
    power = ((((E5 * r + E4) * r + E3) * r + E2) * r + E1) * r + E0
    return (power * r * r + r + ONE) * as_float32(
        np.uint32((as_bits(rounded) + np.uint32(127)) << np.uint32(23))
    )


TANH_LIMIT = np.float32(7.9053111)  # tanh is 1 - 3e-7 here; the formula is held to its value
P1, P3, P5, P7, P9, P11, P13 = map(
    np.float32,
    (
        4.89352455891786e-03,
        6.37261928875436e-04,
        1.48572235717979e-05,
        5.12229709037114e-08,
        -8.60467152213735e-11,
        2.00018790482477e-13,
        -2.76076847742355e-16,
    ),
)
Q0, Q2, Q4, Q6 = map(
    np.float32,
    (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06),
)


def hyperbolic_tangent32(x):
    """tanh x = x P(x^2) / Q(x^2), a minimax quotient (the one of Eigen's ptanh)."""
    x = -TANH_LIMIT if x < -TANH_LIMIT else x
    x = TANH_LIMIT if x > TANH_LIMIT else x
    y = x * x
    above = x * ((((((P13 * y + P11) * y + P9) * y + P7) * y + P5) * y + P3) * y + P1)
    return above / (((Q6 * y + Q4) * y + Q2) * y + Q0)


def logistic32(x):
    """1 / (1 + e**-x) = (1 + tanh(x / 2)) / 2."""
    return HALF * hyperbolic_tangent(HALF * x) + HALF


@numba.njit(**INNER)
def activate_block(code, values):
    """Apply an activation to a flat stretch, in place."""
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
def activate(code: int, values: np.ndarray) -> None:
    """Apply the activation `code` (see ACTIVATIONS) to every element, in place; NaN stays NaN."""
    flat = values.reshape(-1)
    blocks = (flat.size + BLOCK - 1) // BLOCK
    if flat.size < SERIAL_BELOW:
        activate_block(code, flat)
    else:
        for block in numba.prange(blocks):
            activate_block(code, flat[block * BLOCK : (block + 1) * BLOCK])


@numba.njit(**INNER)
def gradient_block(code, outputs, gradient):
    """Multiply a flat stretch of the gradient by the activation's derivative, written as a
    function of its output.
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
def activation_gradient(code: int, outputs: np.ndarray, gradient: np.ndarray) -> None:
    """Multiply `gradient` by the activation's derivative at the point whose outputs are given,
    in place; any one shape for both.
    """
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
