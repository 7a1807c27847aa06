"""Exponential, hyperbolic tangent and logistic function of one number. Those of float32 are
polynomials, which LLVM vectorises: without a library call per element.
"""

import math

import numpy as np
from numba import types
from numba.extending import intrinsic, overload


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


def exponential(x: float) -> float:
    """Return e**x; float32 to 1e-7 relative from -87.3 to 88.3, clipped to this range beyond."""
    return exponential32(x) if isinstance(x, np.float32) else math.exp(x)


def hyperbolic_tangent(x: float) -> float:
    """Return tanh x; float32 to 3e-7 absolute."""
    return hyperbolic_tangent32(x) if isinstance(x, np.float32) else math.tanh(x)


def logistic(x: float) -> float:
    """Return 1 / (1 + e**-x); float32 to 2e-7 absolute."""
    return logistic32(x) if isinstance(x, np.float32) else 1.0 / (1.0 + math.exp(-x))


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
