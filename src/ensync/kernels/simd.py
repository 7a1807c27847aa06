"""What a vector is on this host, and LLVM code for what numba has no words for: addresses,
transposes, prefetches, tiny numbers.

The form of vectors follows the host (AVX-512, AVX2, NEON, plain); the environment variable
ENSYNC_SIMD forces one of them.
"""

import os

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ensync.core.errors import EnsyncError

# Bytes of a vector.
VECTOR_BYTES = {"avx512": 64, "avx2": 32, "neon": 16, "plain": 16}
# Rows and vectors of the tile for wide results: it fills the registers (32, 16, 32, 16 of them)
# with sums.
WIDE_TILE = {"avx512": (8, 3), "avx2": (4, 3), "neon": (8, 3), "plain": (4, 2)}

# Rows of the tile of one vector, for narrow results and remainders: a multiple of the wide tile's
# rows.
NARROW_ROWS = {"avx512": 16, "avx2": 8, "neon": 16, "plain": 8}

CACHE_LINE = 64  # bytes, of nearly all processors

INT32, INT64 = ir.IntType(32), ir.IntType(64)


def detect() -> str:
    """Return the widest form this host executes: "avx512", "avx2", "neon" or "plain"."""
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512vl") and features.get("avx512dq"):
        return "avx512"
    if features.get("avx2") and features.get("fma"):
        return "avx2"
    return "neon" if architecture() == "aarch64" else "plain"


def choose(forced: str | None) -> str:
    """Return the form to compile for: `forced` when given, else what the host has.

    Raises EnsyncError when `forced` is not a form. A form the host lacks still computes correctly:
    LLVM splits its vectors.
    """
    if forced and forced not in VECTOR_BYTES:
        raise EnsyncError(
            f"ENSYNC_SIMD={forced}",
            f"one of {', '.join(VECTOR_BYTES)}",
            "unset it or choose one of them",
        )
    return forced or detect()


SIMD = choose(os.environ.get("ENSYNC_SIMD"))


def bf16_missing() -> str:
    """Return why products of bf16 numbers cannot be computed here, nothing where they can.

    Only AVX512-BF16 is written: 32 products and 16 sums to an instruction, twice the rate of
    float32 on AMD Zen 4 and 5.
    """
    if SIMD != "avx512":
        return f"this process computes with {SIMD} vectors"
    return (
        ""
        if llvmlite.binding.get_host_cpu_features().get("avx512bf16")
        else "this CPU has no AVX512-BF16 instructions"
    )


class BrainFloat(ir.Type):
    """LLVM's bfloat: the upper half of a float32."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BrainFloat)

    def __hash__(self) -> int:
        return hash(BrainFloat)


def bytes_of(dtype: types.Type) -> int:
    """Return the bytes of a number of this numba type in a register: bf16 numbers, in memory
    uint16 because numpy has no such type, are float32 there.
    """
    return 4 if dtype == types.uint16 else dtype.bitwidth // 8


def lanes_of(itemsize: int, simd: str = SIMD) -> int:
    """Return how many elements of `itemsize` bytes a vector holds."""
    return VECTOR_BYTES[simd] // itemsize


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


def architecture() -> str:
    """Return the processor's family as LLVM names it, "x86_64" or "aarch64" for instance."""
    family = llvmlite.binding.get_process_triple().split("-")[0]
    return "aarch64" if family == "arm64" else family


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


def call(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list):
    """Call the LLVM intrinsic `name`."""
    declared = builder.module.globals.get(name)
    if declared is None:
        declared = ir.Function(
            builder.module, ir.FunctionType(result, [x.type for x in arguments]), name
        )
    return builder.call(declared, arguments)


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


class Vectors:
    """Vector operations on one element type and width, written through an LLVM builder."""

    def __init__(
        self, module: ir.Module, builder: ir.IRBuilder, element: ir.Type, lane_count: int
    ) -> None:
        self.module, self.builder, self.element, self.lanes = module, builder, element, lane_count
        self.type = ir.VectorType(element, lane_count)
        self.suffix = f"v{lane_count}f{32 if isinstance(element, ir.FloatType) else 64}"
        self.zero = ir.Constant(self.type, [0.0] * lane_count)

    def call(self, name: str, result: ir.Type, arguments: list):
        """Call the LLVM intrinsic `name`."""
        return call(self.builder, name, result, arguments)

    def splat(self, scalar):
        """Return a vector whose lanes all hold `scalar`."""
        vector_type = ir.VectorType(scalar.type, self.lanes)
        undefined = ir.Constant(vector_type, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
        return self.builder.shuffle_vector(
            first, undefined, ir.Constant(ir.VectorType(INT32, self.lanes), [0] * self.lanes)
        )

    def mask(self, count, first: int):
        """Return the lanes whose column `first` + lane lies below `count`."""
        columns = ir.Constant(
            ir.VectorType(INT64, self.lanes), [first + lane for lane in range(self.lanes)]
        )
        return self.builder.icmp_signed("<", columns, self.splat(count))

    def load(self, address, mask=None):
        """Load a vector; lanes outside `mask` become 0 and are not read."""
        address = self.builder.bitcast(address, self.type.as_pointer())
        if mask is None:
            loaded = self.builder.load(address)
            loaded.align = self.element_bytes
            return loaded
        alignment = ir.Constant(INT32, self.element_bytes)
        return self.call(
            f"llvm.masked.load.{self.suffix}.p0", self.type, [address, alignment, mask, self.zero]
        )

    def store(self, value, address, mask=None) -> None:
        """Store a vector; lanes outside `mask` are not written."""
        address = self.builder.bitcast(address, self.type.as_pointer())
        if mask is None:
            self.builder.store(value, address).align = self.element_bytes
        else:
            alignment = ir.Constant(INT32, self.element_bytes)
            self.call(
                f"llvm.masked.store.{self.suffix}.p0",
                ir.VoidType(),
                [value, address, alignment, mask],
            )

    def store_rounded(self, value, address) -> None:
        """Store float32 numbers as bf16, to the nearest."""
        kind = ir.VectorType(BrainFloat(), self.lanes)
        self.builder.store(
            self.builder.fptrunc(value, kind), self.builder.bitcast(address, kind.as_pointer())
        ).align = 2

    @property
    def element_bytes(self) -> int:
        return 4 if isinstance(self.element, ir.FloatType) else 8

    def prefetch(self, address) -> None:
        """Ask for a line of the first cache; any address will do."""
        address = self.builder.bitcast(address, ir.IntType(8).as_pointer())
        read, keep, data = (ir.Constant(INT32, value) for value in (0, 3, 1))
        self.call("llvm.prefetch.p0", ir.VoidType(), [address, read, keep, data])

    def multiply_add(self, x, y, z):
        """Return x * y + z, fused where the host can."""
        return self.call(f"llvm.fmuladd.{self.suffix}", self.type, [x, y, z])

    def add_pairs(self, x, y, z):
        """Return z + x0 * y0 + x1 * y1, each lane of x and y being two bf16 numbers and z a
        float32.
        """
        pairs = ir.VectorType(BrainFloat(), 2 * self.lanes)
        x, y = self.builder.bitcast(x, pairs), self.builder.bitcast(y, pairs)
        return self.call(f"llvm.x86.avx512bf16.dpbf16ps.{32 * self.lanes}", self.type, [z, x, y])

    def at_least(self, x, floor):
        """Return max(x, floor), x where x is NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, floor), floor, x)
