"""GELU (Hendrycks and Gimpel 2016) in its exact form, PyTorch's default: x times the share of the
standard normal distribution that lies below x.

    gelu(x) = x F(x),   gelu'(x) = x f(x) + F(x),   F(x) = (1 + erf(x / sqrt 2)) / 2,
    f(x) = exp(-x^2 / 2) / sqrt(2 pi)

It has one value at two places, so that its slope is a function of x and not of its own output.
float32 takes the exponential once, times a polynomial for the tail; float64 calls the C library.
"""

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic, overload

from ensync.kernels.flags import Flag, FlagType
from ensync.kernels.options import INNER, KERNEL
from ensync.kernels.simd.builder import INT32, call
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.vectors import choose, fma, greater, load, maximum, store

BLOCK = 1 << 13  # elements of one task
# e**a = 2**n e**r, n = round(a / ln 2), r = a - n ln 2 with ln 2 in two parts (Cody and Waite);
# e**r by the polynomial of Cephes' expf, the highest power first.
LOWEST = -87.3  # of a; below it e**a is taken as there, 1e-38
LOG2_E, LN2_HIGH, LN2_LOW = 1.44269504, 0.693359375, -2.12194440e-4
ROUND = 1.5 * 2**23  # adding it leaves the nearest whole number in the low bits
POWERS = (
    *(1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3),
    *(4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1),
)
# 1 - F(x) = exp(-x^2 / 2) t P(t), t = 1 / (1 + NEAR x): the form of Abramowitz and Stegun 7.1.26.
# P is of degree 8, the highest power first, fitted to the relative error over 0 <= x <= 13.3, which
# is 6e-8 with these float32 numbers.
NEAR = 0.27
TAIL = (
    *(0.028826894, -0.12580928, 0.16833135, -0.067472085, 0.106565416),
    *(0.07261544, 0.10165731, 0.10756573, 0.10771922),
)
DENSITY = 0.3989422804014327  # 1 / sqrt(2 pi)


@intrinsic
def lifted(context, like, number):
    """The number in every lane of a vector like this one."""

    def generate(target, builder, sig, arguments):
        kind = target.get_value_type(like)
        value = target.cast(builder, arguments[1], number, like.dtype)
        undefined, zero = ir.Constant(kind, ir.Undefined), ir.Constant(INT32, 0)
        first = builder.insert_element(undefined, value, zero)
        order = ir.Constant(ir.VectorType(INT32, like.lanes), [0] * like.lanes)
        return builder.shuffle_vector(first, undefined, order)

    return like(like, number), generate


def _constant(kind: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _name(operation: str, kind: ir.VectorType) -> str:
    return f"llvm.{operation}.v{kind.count}f{32 if kind.element == ir.FloatType() else 64}"


def _horner(builder: ir.IRBuilder, x: ir.Value, factors: tuple[float, ...]) -> ir.Value:
    total = _constant(x.type, float(np.float32(factors[0])))
    for factor in factors[1:]:
        addend = _constant(x.type, float(np.float32(factor)))
        total = call(builder, _name("fma", x.type), x.type, [total, x, addend])
    return total


@intrinsic
def exponential(context, a):
    """e**a of every lane, a <= 0: float32 to 2e-7 relative; NaN stays NaN."""

    def generate(target, builder, sig, arguments):
        (x,), kind = arguments, arguments[0].type
        if a.dtype == types.float64:
            return call(builder, _name("exp", kind), kind, [x])

        def number(value):
            return _constant(kind, float(np.float32(value)))

        lowest, name = number(LOWEST), _name("fma", kind)
        x = builder.select(builder.fcmp_ordered("<", x, lowest), lowest, x)
        rounded = call(builder, name, kind, [x, number(LOG2_E), number(ROUND)])
        n = builder.fsub(rounded, number(ROUND))
        r = call(builder, name, kind, [n, number(-LN2_HIGH), x])
        r = call(builder, name, kind, [n, number(-LN2_LOW), r])
        power = _horner(builder, r, POWERS)
        power = call(builder, name, kind, [builder.fmul(power, r), r, r])
        whole = ir.VectorType(INT32, a.lanes)
        bits = builder.add(builder.bitcast(rounded, whole), ir.Constant(whole, [127] * a.lanes))
        scale = builder.bitcast(builder.shl(bits, ir.Constant(whole, [23] * a.lanes)), kind)
        return call(builder, name, kind, [power, scale, scale])

    return a(a), generate


@intrinsic
def tail(context, x, power):
    """1 - F(|x|) of every lane, given the power exp(-x^2 / 2)."""

    def generate(target, builder, sig, arguments):
        (value, e), kind = arguments, arguments[0].type
        size = call(builder, _name("fabs", kind), kind, [value])
        if x.dtype == types.float64:
            place = builder.fmul(size, _constant(kind, 0.5**0.5))
            found = ir.Constant(kind, ir.Undefined)
            for lane in range(x.lanes):
                at = ir.Constant(INT32, lane)
                given = builder.extract_element(place, at)
                one = call(builder, "erfc", kind.element, [given])
                found = builder.insert_element(found, one, at)
            return builder.fmul(found, _constant(kind, 0.5))
        one = _constant(kind, 1.0)
        near = _constant(kind, float(np.float32(NEAR)))
        t = builder.fdiv(one, call(builder, _name("fma", kind), kind, [size, near, one]))
        return builder.fmul(builder.fmul(e, t), _horner(builder, t, TAIL))

    return x(x, power), generate


@njit(forceinline=True, **INNER)
def parts(x):
    """Return F(x) and exp(-x^2 / 2) of every lane."""
    power = exponential(x * x * lifted(x, -0.5))
    above = tail(x, power)
    return choose(greater(x, lifted(x, 0.0)), lifted(x, 1.0) - above, above), power


@njit(forceinline=True, **INNER)
def gelu_of(x):
    """Return gelu of every lane."""
    below, _ = parts(x)
    return x * below


@njit(forceinline=True, **INNER)
def slope_of(x):
    """Return gelu' of every lane."""
    below, power = parts(x)
    return fma(x * lifted(x, DENSITY), power, below)


def activated(value, floor):
    """Return max(floor, value) of every lane, where NaN stays NaN; or gelu(value), where a flag
    stands in the place of the floor.
    """
    return gelu_of(value) if isinstance(floor, Flag) else _floored(value, floor)


def passed(value, gradient, floor):
    """Return the gradient of what `activated` was given: 0 where it gave the floor, or times
    gelu'.
    """
    if isinstance(floor, Flag):
        return gradient * slope_of(value)
    return _cut(value, gradient, floor)


@njit(forceinline=True, **INNER)
def _floored(value, floor):
    return maximum(lifted(value, floor), value)


@njit(forceinline=True, **INNER)
def _cut(value, gradient, floor):
    return choose(greater(value, lifted(value, floor)), gradient, lifted(value, 0.0))


@overload(activated, jit_options={"forceinline": True})
def _activated(value, floor):
    if isinstance(floor, FlagType):
        return lambda value, floor: gelu_of(value)
    return lambda value, floor: _floored(value, floor)


@overload(passed, jit_options={"forceinline": True})
def _passed(value, gradient, floor):
    if isinstance(floor, FlagType):
        return lambda value, gradient, floor: gradient * slope_of(value)
    return lambda value, gradient, floor: _cut(value, gradient, floor)


@njit(parallel=True, **KERNEL)
def _gelu(values, out):
    for block in prange((values.size + BLOCK - 1) // BLOCK):
        source, target = pointer(values, 0), pointer(out, 0)
        for at in range(block * BLOCK, min(values.size, (block + 1) * BLOCK), lanes(source)):
            count = min(lanes(source), values.size - at)
            store(target, at, gelu_of(load(source, at, count)), count)


@njit(parallel=True, **KERNEL)
def _gelu_gradient(values, gradient):
    for block in prange((values.size + BLOCK - 1) // BLOCK):
        source, target = pointer(values, 0), pointer(gradient, 0)
        for at in range(block * BLOCK, min(values.size, (block + 1) * BLOCK), lanes(source)):
            count = min(lanes(source), values.size - at)
            slope = slope_of(load(source, at, count))
            store(target, at, load(target, at, count) * slope, count)


def gelu(values: np.ndarray, out: np.ndarray) -> None:
    """Write gelu of every element to `out`, of the same shape and any type of number that bf16
    (uint16) and float32 share, or float64; it may be `values` itself.
    """
    _gelu(values.reshape(-1), out.reshape(-1))


def gelu_gradient(values: np.ndarray, gradient: np.ndarray) -> None:
    """Multiply `gradient` by gelu' of the values, of the same shape, in place; types as for
    `gelu`.
    """
    _gelu_gradient(values.reshape(-1), gradient.reshape(-1))
