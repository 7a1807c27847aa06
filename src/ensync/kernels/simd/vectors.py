"""Values as wide as the machine's vector registers, usable as plain variables inside numba kernels.

`load(address, index, count)` reads `count` neighbours into a vector (the other lanes are 0), `+ - *
/`, `fma`, `maximum` and `choose(mask, a, b)` work on all lanes, `store(address, index, vector,
count)` writes `count` lanes. An address comes from `pointer`: an array as the argument of an inner
function would cost two atomic reference counts per call. With a constant `count` of all lanes no
mask is emitted. An address of uint16 is one of bf16 numbers: `load` widens them to float32, `store`
rounds to the nearest.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

from ensync.kernels.simd.builder import BrainFloat
from ensync.kernels.simd.host import lanes_of
from ensync.kernels.simd.intrinsics import bytes_of

INDEX = ir.IntType(64)


class Vector(types.Type):
    """The numba type of `lanes` numbers of type `dtype` in one register; `types.boolean` makes a
    mask.
    """

    def __init__(self, dtype: types.Type, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_default(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, ir.VectorType(_element(vector.dtype), vector.lanes))


def _element(dtype: types.Type) -> ir.Type:
    if dtype is types.float32:
        return ir.FloatType()
    if dtype is types.float64:
        return ir.DoubleType()
    return ir.IntType(1) if dtype is types.boolean else ir.IntType(dtype.bitwidth)


def _vector_of(dtype: types.Type) -> Vector:
    """The register of numbers that memory holds in this type."""
    return Vector(types.float32 if dtype == types.uint16 else dtype, lanes_of(bytes_of(dtype)))


def _splat(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    kind = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(
        ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
    )
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


def _mask(builder: ir.IRBuilder, first: ir.Value, count: ir.Value, lanes: int) -> ir.Value:
    """Lanes first <= lane < count, both at most a few times the lanes: they are compared in 32
    bits.
    """
    numbers = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(lanes)))
    first, count = (
        _splat(builder, builder.trunc(bound, ir.IntType(32)), lanes) for bound in (first, count)
    )
    return builder.and_(
        builder.icmp_signed("<", numbers, count), builder.icmp_signed(">=", numbers, first)
    )


def _call(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list) -> ir.Value:
    kind = ir.FunctionType(result, [a.type for a in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def _suffix(kind: ir.VectorType) -> str:
    letter = {"float": "f32", "double": "f64"}.get(str(kind.element)) or str(kind.element)
    return f"v{kind.count}{letter}"


def _pointer(builder, address, index, kind):
    return builder.bitcast(builder.gep(address, [index]), kind.as_pointer())


def _load(builder, dtype, lanes, address, index, first, count):
    """Lanes first <= lane < count; a whole vector, as most are, without a mask: with one that is
    full steps of networks take a tenth longer on AMD Zen 5.
    """
    kind, align = ir.VectorType(_element(dtype), lanes), dtype.bitwidth // 8
    pointer = _pointer(builder, address, index, kind)
    with builder.if_else(
        builder.and_(
            builder.icmp_signed(">=", count, ir.Constant(INDEX, lanes)),
            builder.icmp_signed("<=", first, ir.Constant(INDEX, 0)),
        ),
        likely=True,
    ) as (whole, part):
        with whole:
            whole_vector, whole_end = builder.load(pointer, align=align), builder.block
        with part:
            mask, nothing = _mask(builder, first, count, lanes), ir.Constant(kind, None)
            arguments = [pointer, ir.Constant(ir.IntType(32), align), mask, nothing]
            some_lanes = _call(builder, f"llvm.masked.load.{_suffix(kind)}.p0", kind, arguments)
            part_end = builder.block
    loaded = builder.phi(kind)
    loaded.add_incoming(whole_vector, whole_end)
    loaded.add_incoming(some_lanes, part_end)
    return _widened(builder, loaded) if dtype == types.uint16 else loaded


def _widened(builder: ir.IRBuilder, halves: ir.Value) -> ir.Value:
    """bf16 numbers, given as the 16 bits of each, as float32."""
    wide = ir.VectorType(ir.IntType(32), halves.type.count)
    bits = builder.shl(builder.zext(halves, wide), ir.Constant(wide, [16] * wide.count))
    return builder.bitcast(bits, ir.VectorType(ir.FloatType(), wide.count))


@intrinsic
def advance(context, address, elements):
    """The address `elements` further on."""

    def generate(target, builder, sig, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return address(address, types.int64), generate


@intrinsic
def as_bf16(context, address):
    """The same address, of bf16 numbers."""
    narrow = types.CPointer(types.uint16)

    def generate(target, builder, sig, arguments):
        return builder.bitcast(arguments[0], ir.IntType(16).as_pointer())

    return narrow(address), generate


@intrinsic
def copied(context, source, target, elements):
    """Copy so many elements where both addresses are of one type; return whether they are."""
    same = source.dtype == target.dtype

    def generate(frame, builder, sig, arguments):
        given, kept, count = arguments
        if same:
            cgutils.raw_memcpy(builder, kept, given, count, source.dtype.bitwidth // 8)
        return ir.Constant(ir.IntType(1), same)

    return types.boolean(source, target, types.int64), generate


@intrinsic
def load(context, address, index, count):
    """Elements index .. index + count of an address, the lanes from `count` on being 0."""
    vector = _vector_of(address.dtype)

    def generate(target, builder, sig, arguments):
        return _load(
            builder,
            address.dtype,
            vector.lanes,
            arguments[0],
            arguments[1],
            ir.Constant(INDEX, 0),
            arguments[2],
        )

    return vector(address, types.int64, types.int64), generate


@intrinsic
def load_between(context, address, index, first, count):
    """As `load`, with the lanes before `first` 0 and not read either."""
    vector = _vector_of(address.dtype)

    def generate(target, builder, sig, arguments):
        return _load(builder, address.dtype, vector.lanes, *arguments)

    return vector(address, types.int64, types.int64, types.int64), generate


@intrinsic
def load_as(context, like, address, index, count):
    """As `load`, with as many lanes as the vector `like` has: for codes that go along with
    floats (not uint16, which is bf16).
    """
    vector = Vector(address.dtype, like.lanes)

    def generate(target, builder, sig, arguments):
        return _load(
            builder,
            vector.dtype,
            vector.lanes,
            arguments[1],
            arguments[2],
            ir.Constant(INDEX, 0),
            arguments[3],
        )

    return vector(like, address, types.int64, types.int64), generate


@intrinsic
def store(context, address, index, vector, count):
    """Write the first `count` lanes to address[index : index + count]."""

    def generate(target, builder, sig, arguments):
        value = _halves(builder, arguments[2]) if address.dtype == types.uint16 else arguments[2]
        kind, align = value.type, address.dtype.bitwidth // 8
        pointer = _pointer(builder, arguments[0], arguments[1], kind)

        def masked():
            mask = _mask(builder, ir.Constant(INDEX, 0), arguments[3], vector.lanes)
            _call(
                builder,
                f"llvm.masked.store.{_suffix(kind)}.p0",
                ir.VoidType(),
                [value, pointer, ir.Constant(ir.IntType(32), align), mask],
            )

        with builder.if_else(
            builder.icmp_signed(">=", arguments[3], ir.Constant(INDEX, vector.lanes)),
            likely=True,
        ) as (whole, part):
            with whole:
                builder.store(value, pointer).align = align
            with part:
                masked()
        return target.get_dummy_value()

    return types.void(address, types.int64, vector, types.int64), generate


def _halves(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Round float32 to bf16, to the nearest, and give the 16 bits of each as an integer."""
    count = value.type.count
    rounded = builder.fptrunc(value, ir.VectorType(BrainFloat(), count))
    return builder.bitcast(rounded, ir.VectorType(ir.IntType(16), count))


@intrinsic
def store_halves(context, address, index, vector):
    """Write all lanes as bf16 to address[index : index + lanes / 2]: each place of a float32
    takes two neighbours.
    """

    def generate(target, builder, sig, arguments):
        halves = _halves(builder, arguments[2])
        builder.store(halves, _pointer(builder, arguments[0], arguments[1], halves.type)).align = 4
        return target.get_dummy_value()

    return types.void(address, types.int64, vector), generate


@intrinsic
def pair(context, a, b):
    """Lanes that hold a and b as bf16 in the places of a float32, a in front."""

    def generate(target, builder, sig, arguments):
        wide = ir.VectorType(ir.IntType(32), a.lanes)
        low, high = (builder.zext(_halves(builder, value), wide) for value in arguments)
        shift = ir.Constant(wide, [16] * a.lanes)
        return builder.bitcast(builder.or_(low, builder.shl(high, shift)), arguments[0].type)

    return a(a, b), generate


@intrinsic
def load_pair(context, like, address, above, below):
    """As `pair`, of the bf16 numbers from address[above] and address[below] on, in as many lanes
    as a vector of the address `like` has.
    """
    vector = _vector_of(like.dtype)

    def generate(target, builder, sig, arguments):
        _, at, *places = arguments
        kind = ir.VectorType(ir.IntType(16), vector.lanes)
        wide = ir.VectorType(ir.IntType(32), vector.lanes)
        low, high = (
            builder.zext(builder.load(_pointer(builder, at, place, kind), align=2), wide)
            for place in places
        )
        bits = builder.or_(low, builder.shl(high, ir.Constant(wide, [16] * vector.lanes)))
        return builder.bitcast(bits, ir.VectorType(_element(vector.dtype), vector.lanes))

    return vector(like, address, types.int64, types.int64), generate


def _prefetch(address, writes: int, cache: int):
    def generate(target, builder, sig, arguments):
        place = _pointer(builder, arguments[0], arguments[1], ir.IntType(8))
        hints = [ir.Constant(ir.IntType(32), value) for value in (writes, cache, 1)]  # 1: data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [place, *hints])
        return target.get_dummy_value()

    return types.void(address, types.int64), generate


@intrinsic
def fetch(context, address, index):
    """Ask for the cache line of address[index] in the second cache; any address will do."""
    return _prefetch(address, 0, 2)


@intrinsic
def fetch_to_write(context, address, index):
    """Ask for the cache line of address[index], to be written (x86 knows only the first cache
    for that).
    """
    return _prefetch(address, 1, 3)


@intrinsic
def zeros(context, address):
    """A vector of zeros of the address's type."""
    vector = _vector_of(address.dtype)

    def generate(target, builder, sig, arguments):
        return ir.Constant(ir.VectorType(_element(vector.dtype), vector.lanes), None)

    return vector(address), generate


@intrinsic
def splat(context, address, scalar):
    """The number in every lane of a vector of the address's type."""
    vector = _vector_of(address.dtype)

    def generate(target, builder, sig, arguments):
        return _splat(builder, arguments[1], vector.lanes)

    return vector(address, vector.dtype), generate


@intrinsic
def splat_as(context, like, address, scalar):
    """The whole number, cut to the bits of the address's type, in as many lanes as the vector
    `like` has.
    """
    vector = Vector(address.dtype, like.lanes)

    def generate(target, builder, sig, arguments):
        number = builder.trunc(arguments[2], _element(vector.dtype))
        return _splat(builder, number, vector.lanes)

    return vector(like, address, types.int64), generate


@intrinsic
def fma(context, a, b, c):
    """a * b + c, rounded once."""

    def generate(target, builder, sig, arguments):
        return _call(
            builder, f"llvm.fma.{_suffix(arguments[0].type)}", arguments[0].type, list(arguments)
        )

    return a(a, a, a), generate


@intrinsic
def square_root(context, a):
    """The square root of every lane."""

    def generate(target, builder, sig, arguments):
        return _call(
            builder, f"llvm.sqrt.{_suffix(arguments[0].type)}", arguments[0].type, list(arguments)
        )

    return a(a), generate


@intrinsic
def power(context, a, b):
    """a ** b per lane, by the C library: slow."""

    def generate(target, builder, sig, arguments):
        return _call(
            builder, f"llvm.pow.{_suffix(arguments[0].type)}", arguments[0].type, list(arguments)
        )

    return a(a, a), generate


@intrinsic
def greater(context, a, b):
    """The mask a > b."""

    def generate(target, builder, sig, arguments):
        return builder.fcmp_ordered(">", *arguments)

    return Vector(types.boolean, a.lanes)(a, a), generate


@intrinsic
def greater_or_nan(context, a, b):
    """The mask a > b, or a is not a number."""

    def generate(target, builder, sig, arguments):
        a_value, _ = arguments
        return builder.or_(
            builder.fcmp_ordered(">", *arguments),
            builder.fcmp_unordered("uno", a_value, a_value),
        )

    return Vector(types.boolean, a.lanes)(a, a), generate


@intrinsic
def equal(context, a, b):
    """The mask a == b of two integer vectors."""

    def generate(target, builder, sig, arguments):
        return builder.icmp_unsigned("==", *arguments)

    return Vector(types.boolean, a.lanes)(a, a), generate


@intrinsic
def choose(context, mask, a, b):
    """a where the mask holds, b elsewhere."""

    def generate(target, builder, sig, arguments):
        return builder.select(*arguments)

    return a(mask, a, a), generate


@intrinsic
def maximum(context, a, b):
    """The larger of two numbers per lane, b where a is not a number."""

    def generate(target, builder, sig, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return a(a, a), generate


def _define(operation, instruction: str) -> None:
    @infer_global(operation)
    class _(AbstractTemplate):
        def generic(self, arguments, keywords):
            if (
                len(arguments) == 2
                and isinstance(arguments[0], Vector)
                and arguments[0] == arguments[1]
            ):
                return signature(arguments[0], *arguments)

    @lower_builtin(operation, Vector, Vector)
    def lower(context, builder, sig, arguments):
        return getattr(builder, instruction)(*arguments)


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define(_operation, _instruction)
