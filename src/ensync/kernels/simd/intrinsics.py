"""LLVM code for what numba cannot express: addresses, transposes, subnormal numbers."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ensync.kernels.simd.builder import INT32, INT64, Vectors, call
from ensync.kernels.simd.host import CACHE_LINE, architecture, lanes_of


def bytes_of(dtype: types.Type) -> int:
    """Return the bytes of a number of this numba type in a register: bf16 numbers, in memory
    uint16 because numpy has no such type, are float32 there.
    """
    return 4 if dtype == types.uint16 else dtype.bitwidth // 8


@intrinsic
def lanes(typing_context, array):
    """Return the number of elements of `array`'s type in a vector, a constant of the compiled
    code.
    """
    count = lanes_of(bytes_of(array.dtype))

    def generate(context, builder, signature, arguments):
        return context.get_constant(types.int64, count)

    return types.int64(array), generate


@intrinsic
def line(typing_context, address):
    """Return the number of elements of the address's type in a cache line, a constant of the
    compiled code.
    """
    count = 8 * CACHE_LINE // address.dtype.bitwidth

    def generate(context, builder, signature, arguments):
        return context.get_constant(types.int64, count)

    return types.int64(address), generate


@intrinsic
def pointer(typing_context, array, offset):
    """Return the address of the element `offset` of a C-contiguous array counted flat; no bounds
    are checked.
    """

    def generate(context, builder, signature, arguments):
        array_struct = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.gep(array_struct.data, [arguments[1]])

    return types.CPointer(array.dtype)(array, types.int64), generate


@intrinsic
def flush_tiny_numbers(typing_context):
    """Let this thread's results and operands below the normal range be 0; return the state for
    `restore`.

    A moment that decays below 1e-38 would otherwise stay there, and each operation on it costs a
    hundred cycles. Around a kernel's body and not for the whole process: numpy warns where tiny
    numbers are gone.
    """

    def generate(context, builder, signature, arguments):
        state = control(builder)
        if state is None:
            return context.get_constant(types.int64, 0)
        control(builder, builder.or_(state, ir.Constant(INT64, CONTROL_BITS[architecture()])))
        return state

    return types.int64(), generate


@intrinsic
def restore(typing_context, state):
    """Undo `flush_tiny_numbers`."""

    def generate(context, builder, signature, arguments):
        control(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate


# Flush-to-zero, and on x86 denormals-are-zero, in the control register of the floating-point unit.
CONTROL_BITS = {"x86_64": 0x8040, "aarch64": 1 << 24}


def control(builder: ir.IRBuilder, state=None):
    """Write code that reads the control register, or sets it to `state`; None and no code on
    families other than two.
    """
    family, nothing = architecture(), ir.VoidType()
    if family == "x86_64":
        slot = builder.alloca(INT32)
        if state is not None:
            builder.store(builder.trunc(state, INT32), slot)
        address = builder.bitcast(slot, ir.IntType(8).as_pointer())
        call(builder, f"llvm.x86.sse.{'st' if state is None else 'ld'}mxcsr", nothing, [address])
        return builder.zext(builder.load(slot), INT64)
    if family == "aarch64":
        if state is None:
            return call(builder, "llvm.aarch64.get.fpcr", INT64, [])
        return call(builder, "llvm.aarch64.set.fpcr", nothing, [state])
    return None


@intrinsic
def transpose_block(typing_context, source, source_row, target, target_row):
    """Write a square of `lanes` x `lanes` elements transposed; rows are source_row and
    target_row elements apart.
    """
    element = source.dtype
    count = lanes_of(element.bitwidth // 8)

    def generate(context, builder, signature, arguments):
        start, start_row, end, end_row = arguments
        vector = Vectors(builder.module, builder, context.get_value_type(element), count)
        halves = [
            [i // 2 + count * (i % 2) + offset for i in range(count)] for offset in (0, count // 2)
        ]
        orders = [ir.Constant(ir.VectorType(INT32, count), order) for order in halves]
        rows = []
        for _ in range(count):
            rows.append(vector.load(start))
            start = builder.gep(start, [start_row])
        for _ in range(
            count.bit_length() - 1
        ):  # each round interleaves row i with row i + count / 2
            pairs = zip(rows[: count // 2], rows[count // 2 :], strict=True)
            rows = [builder.shuffle_vector(x, y, order) for x, y in pairs for order in orders]
        for row in rows:
            vector.store(row, end)
            end = builder.gep(end, [end_row])
        return context.get_dummy_value()

    return types.void(source, types.int64, target, types.int64), generate
