"""Vector operations written through an LLVM builder, for the intrinsics of this package."""

from llvmlite import ir

INT32, INT64 = ir.IntType(32), ir.IntType(64)


class BrainFloat(ir.Type):
    """LLVM's bfloat: the upper half of a float32."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BrainFloat)

    def __hash__(self) -> int:
        return hash(BrainFloat)


def call(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list):
    """Call the LLVM intrinsic `name`."""
    declared = builder.module.globals.get(name)
    if declared is None:
        declared = ir.Function(
            builder.module, ir.FunctionType(result, [x.type for x in arguments]), name
        )
    return builder.call(declared, arguments)


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
