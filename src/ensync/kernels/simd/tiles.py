"""Vector microkernels: one register tile serves every heavy operation, because only its strides
change.

A tile computes, for `rows` rows and `columns` columns of C,

    C[p, j] = max(floor, bias[j] + (C[p, j] if accumulate) + sum_o sum_i A[o, p, i] * B[o, i, j])

with the sums held in registers: `tile(rows, vectors)` has rows x vectors accumulators of `lanes`
columns each. Where A is bf16, its terms are pairs of neighbours, and the elements of B are pairs,
too (operands.py).
"""

import functools
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ensync.kernels.simd.builder import INT64, Vectors
from ensync.kernels.simd.host import SIMD, lanes_of

# Terms of the sum between a prefetch of B and its use: with B in the second cache, 8 % faster when
# packed, 15-20 % when strided.
PREFETCH = 8


class TileGeometry(NamedTuple):
    """Sizes and strides of a tile, in elements.

    outer, inner: lengths of the two sums, at least 1 (with 0 nothing is defined). a_outer, a_inner,
    b_outer, b_inner: from one term to the next. a_row: from one row of A to the next within a group
    of `group` rows (pixels of one image line); a_group: from one group's first row to the next
    one's; skipped: rows of the first group before the first one, below group. A plain matrix is one
    group: group = row_count. c_row: from one row of C to the next.
    Columns of B and C are adjacent.
    row_count, column_count: the rows and columns that exist, at least 1; nothing beyond them is
    read or written. Columns fit into the tile; more rows than the tile's are computed tile after
    tile, and then need a plain matrix.
    has_bias: whether to add the bias, which is not read otherwise. accumulate: whether to add to C.
    """

    outer: int
    inner: int
    a_outer: int
    a_row: int
    a_group: int
    a_inner: int
    b_outer: int
    b_inner: int
    c_row: int
    row_count: int
    group: int
    skipped: int
    column_count: int
    has_bias: bool
    accumulate: bool


@functools.cache
def tile(rows: int, vectors: int, simd: str = SIMD):
    """Return the microkernel of `rows` rows and `vectors` vectors of columns, to be called in
    compiled code: kernel(a, b, c, bias, geometry, floor).

    a, b, c, bias: from `pointer`, all of one type, float32 or float64, or a of bf16 (uint16), whose
    strides count its own elements; give any address as the bias where there is none. geometry: a
    TileGeometry. floor: 0 is ReLU, -inf is none; NaN passes through.
    """

    @intrinsic
    def kernel(typing_context, a, b, c, bias, geometry, floor):
        element, in_pairs = b.dtype, a.dtype == types.uint16
        signature = types.void(a, b, c, bias, geometry, element)

        def generate(context, builder, signature, arguments):
            *addresses, fields, lowest = arguments
            numbers = [
                context.cast(builder, value, kind, types.int64)
                for value, kind in zip(
                    cgutils.unpack_tuple(builder, fields), geometry.types, strict=True
                )
            ]
            function = tile_function(
                builder.module, context.get_value_type(element), rows, vectors, simd, in_pairs
            )
            builder.call(function, [*addresses, *numbers, lowest])
            return context.get_dummy_value()

        return signature, generate

    return kernel


def tile_function(
    module: ir.Module, element: ir.Type, rows: int, vectors: int, simd: str, in_pairs: bool
) -> ir.Function:
    """Return the module's function of a tile, written at the first call: one body however many
    callers there are. in_pairs: of bf16 numbers.
    """
    name = f"ensync_tile_{element}{'_pairs' * in_pairs}_{rows}x{vectors}_{simd}"
    if name in module.globals:
        return module.globals[name]
    address = element.as_pointer()
    of_a = ir.IntType(16).as_pointer() if in_pairs else address
    numbers = [INT64] * len(TileGeometry._fields)
    kind = ir.FunctionType(ir.VoidType(), [of_a, *[address] * 3, *numbers, element])
    function = ir.Function(module, kind, name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    lane_count = lanes_of(4 if isinstance(element, ir.FloatType) else 8, simd)
    writer = TileWriter(Vectors(module, builder, element, lane_count), function, rows, vectors)
    # Whole rows of the tile have a body of their own: a masked load takes one of the two
    # multiply-add ports (AVX-512: 10 %).
    with builder.if_else(
        builder.icmp_signed(
            "<", writer.geometry.column_count, ir.Constant(INT64, vectors * lane_count)
        )
    ) as (part, whole):
        for branch, masked in ((part, True), (whole, False)):
            with branch:
                writer.write(masked)
    builder.unreachable()
    return function


class TileWriter:
    """Writes the body of one tile's function."""

    def __init__(self, vector: Vectors, function: ir.Function, rows: int, vectors: int) -> None:
        self.vector, self.builder, self.function, self.rows, self.vectors = (
            vector,
            vector.builder,
            function,
            rows,
            vectors,
        )
        self.a, self.b, self.c, self.bias, *numbers, self.floor = function.args
        self.geometry = TileGeometry(*numbers)
        self.row_count = self.geometry.row_count
        self.start = self.row_count, self.a, self.c

    def write(self, masked: bool) -> None:
        """Write one tile after another down the rows, each with its sums and stores, and return
        from the function.
        """
        builder, width = self.builder, self.vector.lanes
        self.masks = [
            self.vector.mask(self.geometry.column_count, v * width) if masked else None
            for v in range(self.vectors)
        ]
        before, block, self.following = (
            builder.block,
            self.function.append_basic_block("tile"),
            self.function.append_basic_block("next"),
        )
        builder.branch(block)
        builder.position_at_end(block)
        states = self.row_count, self.a, self.c = [builder.phi(first.type) for first in self.start]
        self.store(self.sums(self.row_offsets()))
        builder.position_at_end(self.following)
        rows = ir.Constant(INT64, self.rows)
        nexts = [
            builder.sub(self.row_count, rows),
            builder.gep(self.a, [builder.mul(rows, self.geometry.a_row)]),
            builder.gep(self.c, [builder.mul(rows, self.geometry.c_row)]),
        ]
        for state, first, later in zip(states, self.start, nexts, strict=True):
            state.add_incoming(first, before)
            state.add_incoming(later, self.following)
        finished = self.function.append_basic_block("finished")
        builder.cbranch(builder.icmp_signed(">", nexts[0], ir.Constant(INT64, 0)), block, finished)
        builder.position_at_end(finished)
        builder.ret_void()

    def row_offsets(self) -> list:
        """Return the offset of each row of A; rows beyond row_count repeat the last one, so that
        they read what exists.
        """
        builder, one = self.builder, ir.Constant(INT64, 1)
        offset, line = ir.Constant(INT64, 0), self.geometry.skipped
        start = builder.neg(builder.mul(line, self.geometry.a_row))
        offsets = [offset]
        for row in range(1, self.rows):
            next_line = builder.add(line, one)
            wraps = builder.icmp_signed("==", next_line, self.geometry.group)
            exists = builder.icmp_signed("<", ir.Constant(INT64, row), self.row_count)
            start = builder.select(wraps, builder.add(start, self.geometry.a_group), start)
            line = builder.select(wraps, ir.Constant(INT64, 0), next_line)
            advanced = builder.select(wraps, start, builder.add(offset, self.geometry.a_row))
            offset = builder.select(exists, advanced, offset)
            offsets.append(offset)
        return offsets

    def loop(self, count, pointers_and_steps: list, sums: list, body):
        """Write a loop of `count` >= 1 rounds that carries pointers and sums through `body`;
        return the last sums.
        """
        builder, before = self.builder, self.builder.block
        block = self.function.append_basic_block("loop")
        builder.branch(block)
        builder.position_at_end(block)
        carried = [(ir.Constant(INT64, 0), ir.Constant(INT64, 1)), *pointers_and_steps]
        states = [builder.phi(start.type) for start, _ in carried]
        held = [builder.phi(self.vector.type) for _ in sums]
        for state, (start, _) in zip(
            states + held, carried + [(x, None) for x in sums], strict=True
        ):
            state.add_incoming(start, before)
        updated = body(states[1:], held)
        following = [builder.add(states[0], carried[0][1])]
        following += [
            builder.gep(state, [step])
            for state, (_, step) in zip(states[1:], pointers_and_steps, strict=True)
        ]
        for state, value in zip(states + held, following + updated, strict=True):
            state.add_incoming(value, builder.block)
        finished = self.function.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("<", following[0], count), block, finished)
        builder.position_at_end(finished)
        return updated

    def sums(self, offsets: list) -> list:
        """Write both sums; return the accumulators, row by row."""
        builder, vector, geometry = self.builder, self.vector, self.geometry
        distance = builder.mul(geometry.b_inner, ir.Constant(INT64, PREFETCH))

        def term(pointers, sums):
            a, b = pointers
            vector.prefetch(
                builder.gep(a, [builder.mul(geometry.a_inner, ir.Constant(INT64, PREFETCH))])
            )
            columns, ahead = [], builder.gep(b, [distance])
            for v, mask in enumerate(self.masks):
                place = [ir.Constant(INT64, v * vector.lanes)]
                columns.append(vector.load(builder.gep(b, place), mask))
                vector.prefetch(builder.gep(ahead, place))
            updated = []
            in_pairs = a.type != b.type
            multiply_add = vector.add_pairs if in_pairs else vector.multiply_add
            for row, offset in enumerate(offsets):
                place = builder.bitcast(builder.gep(a, [offset]), b.type)
                number = builder.load(place, align=2 if in_pairs else vector.element_bytes)
                factor = vector.splat(number)
                updated += [
                    multiply_add(factor, x, sums[row * self.vectors + v])
                    for v, x in enumerate(columns)
                ]
            return updated

        def stretch(pointers, sums):
            a, b = pointers
            return self.loop(
                self.geometry.inner,
                [(a, self.geometry.a_inner), (b, self.geometry.b_inner)],
                sums,
                term,
            )

        zeros = [vector.zero] * (self.rows * self.vectors)
        return self.loop(
            self.geometry.outer,
            [(self.a, self.geometry.a_outer), (self.b, self.geometry.b_outer)],
            zeros,
            stretch,
        )

    def store(self, sums: list) -> None:
        """Write the epilogue and the stores, with and without accumulation."""
        builder, width = self.builder, self.vector.lanes
        columns = [ir.Constant(INT64, v * width) for v in range(self.vectors)]
        with builder.if_else(self.true(self.geometry.has_bias)) as (given, missing):
            with given:
                addresses = [builder.gep(self.bias, [column]) for column in columns]
                loaded = [
                    self.vector.load(address, mask)
                    for address, mask in zip(addresses, self.masks, strict=True)
                ]
                given_end = builder.block
            with missing:
                missing_end = builder.block
        bias = [builder.phi(self.vector.type) for _ in loaded]
        for term, value in zip(bias, loaded, strict=True):
            term.add_incoming(value, given_end)
            term.add_incoming(self.vector.zero, missing_end)
        floor = self.vector.splat(self.floor)
        with builder.if_then(self.true(self.geometry.accumulate)):
            self.store_rows(sums, bias, floor, columns, accumulate=True)
        self.store_rows(sums, bias, floor, columns, accumulate=False)

    def store_rows(self, sums: list, bias: list, floor, columns: list, accumulate: bool) -> None:
        """Write the stores of the rows that exist; return from the function after the last, go
        on to the next tile after a full one.
        """
        builder, vector = self.builder, self.vector
        c = self.c
        for row in range(self.rows):
            for v, mask in enumerate(self.masks):
                address = builder.gep(c, [columns[v]])
                value = builder.fadd(sums[row * self.vectors + v], bias[v])
                if accumulate:
                    value = builder.fadd(value, vector.load(address, mask))
                vector.store(vector.at_least(value, floor), address, mask)
            if row + 1 < self.rows:
                with builder.if_then(
                    builder.icmp_signed("<=", self.row_count, ir.Constant(INT64, row + 1))
                ):
                    builder.ret_void()
                c = builder.gep(c, [self.geometry.c_row])
        builder.branch(self.following)

    def true(self, flag):
        """Return whether an integer flag is set."""
        return self.builder.icmp_signed("!=", flag, ir.Constant(INT64, 0))
