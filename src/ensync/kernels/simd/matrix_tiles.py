"""Products of bf16 numbers by the matrix tiles of AMX: 16 rows of 16 pairs times 16 pairs of 16
columns to an instruction, in 16 cycles (Intel, Software Developer's Manual, TDPBF16PS).

    C[p, j] = (C[p, j] if added) + sum over o < outer, i < 32 * inner of A[o, p, i] * B[o, i, j]

A is bf16, its terms neighbours; of B a word of 32 bits holds two terms of a column; C is float32.
The eight tiles of the processor have fixed roles: four hold sums, two rows of A, two columns of B.
Every instruction names its tiles, so that LLVM has no registers to choose.
"""

import functools
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ensync.kernels.simd.builder import INT64, call

SIDE = 16  # rows of a tile, and words in a row of 64 bytes
TERMS = 2 * SIDE  # of a sum that are taken together
INT8 = ir.IntType(8)
SUMS, ROW_TILES, COLUMN_TILES = ((0, 1), (2, 3)), (4, 5), (6, 7)
# Of 64 bytes: palette 1, then of each tile the bytes of a row, and the rows (manual, LDTILECFG).
CONFIGURATION = bytes([1]).ljust(16, b"\0") + bytes([4 * SIDE, 0] * 8).ljust(32, b"\0")
CONFIGURATION += bytes([SIDE] * 8).ljust(16, b"\0")


class Strides(NamedTuple):
    """Sizes of a product: rounds of the outer sum, and steps of TERMS terms in each, at least 1.

    a_outer, a_row: elements of A, two bytes, from round to round and from row to row. b_outer,
    b_row: words of B from round to round and from one pair of terms to the next. c_row: elements
    of C from row to row.
    """

    outer: int
    inner: int
    a_outer: int
    a_row: int
    b_outer: int
    b_row: int
    c_row: int


@intrinsic
def start_tiles(typing_context):
    """Let this thread use the tiles, until `end_tiles`."""

    def generate(context, builder, signature, arguments):
        module, kind = builder.module, ir.ArrayType(INT8, len(CONFIGURATION))
        constant = module.globals.get("ensync_tiles")
        if constant is None:
            constant = ir.GlobalVariable(module, kind, "ensync_tiles")
            constant.linkage, constant.global_constant, constant.align = "internal", True, 64
            constant.initializer = ir.Constant(kind, bytearray(CONFIGURATION))
        address = builder.bitcast(constant, INT8.as_pointer())
        call(builder, "llvm.x86.ldtilecfg", ir.VoidType(), [address])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def end_tiles(typing_context):
    """Undo `start_tiles`: of a thread that keeps tiles the system has 8 KiB more to save."""

    def generate(context, builder, signature, arguments):
        call(builder, "llvm.x86.tilerelease", ir.VoidType(), [])
        return context.get_dummy_value()

    return types.void(), generate


@functools.cache
def tile_product(added: bool, row_tiles: int = 2, column_tiles: int = 2):
    """Return kernel(a, b, c, strides) for `row_tiles` times `column_tiles` tiles of C, to be
    called between `start_tiles` and `end_tiles`.

    a: an address of bf16 numbers (uint16); b, c: of float32, in b words.
    """

    @intrinsic
    def kernel(typing_context, a, b, c, strides):
        def generate(context, builder, signature, arguments):
            *addresses, fields = arguments
            numbers = [
                context.cast(builder, value, kind, types.int64)
                for value, kind in zip(
                    cgutils.unpack_tuple(builder, fields), strides.types, strict=True
                )
            ]
            writer = _ProductWriter(builder, Strides(*numbers), row_tiles, column_tiles)
            writer.write(*addresses, added)
            return context.get_dummy_value()

        return types.void(a, b, c, strides), generate

    return kernel


class _ProductWriter:
    """Writes the code of a product."""

    def __init__(
        self, builder: ir.IRBuilder, strides: Strides, row_tiles: int, column_tiles: int
    ) -> None:
        self.builder, self.strides = builder, strides
        self.rows, self.columns = range(row_tiles), range(column_tiles)
        # Bytes between the rows of a tile.
        self.a_bytes = builder.mul(strides.a_row, INT64(2))
        self.b_bytes, self.c_bytes = (
            builder.mul(x, INT64(4)) for x in (strides.b_row, strides.c_row)
        )

    def write(self, a, b, c, added: bool) -> None:
        """Write the product."""
        places = [
            (SUMS[row][column], self.place(c, row, self.strides.c_row, column))
            for row in self.rows
            for column in self.columns
        ]
        for tile, place in places:
            if added:
                self.move("tileloadd64", tile, place, self.c_bytes)
            else:
                self.on_tiles("tilezero", tile)
        self.sums(a, b)
        for tile, place in places:
            self.move("tilestored64", tile, place, self.c_bytes)

    def sums(self, a, b) -> None:
        """Write both sums."""
        builder, s = self.builder, self.strides
        b_step = builder.mul(INT64(SIDE), s.b_row)

        def stretch(at, b_at):
            self.loop(s.inner, [(at, INT64(TERMS)), (b_at, b_step)], self.step)

        self.loop(s.outer, [(a, s.a_outer), (b, s.b_outer)], stretch)

    def loop(self, count, starts_and_steps: list, body) -> None:
        """Write a loop of `count` rounds, at least 1, whose addresses move by their steps."""
        builder, before = self.builder, self.builder.block
        block, after = (
            builder.append_basic_block("tiles"),
            builder.append_basic_block("after_tiles"),
        )
        builder.branch(block)
        builder.position_at_end(block)
        starts = [INT64(0), *[start for start, _ in starts_and_steps]]
        states = [builder.phi(start.type) for start in starts]
        body(*states[1:])
        later = [builder.add(states[0], INT64(1))]
        later += [
            builder.gep(state, [step])
            for state, (_, step) in zip(states[1:], starts_and_steps, strict=True)
        ]
        for state, start, following in zip(states, starts, later, strict=True):
            state.add_incoming(start, before)
            state.add_incoming(following, builder.block)
        builder.cbranch(builder.icmp_signed("<", later[0], count), block, after)
        builder.position_at_end(after)

    def step(self, a, b) -> None:
        """Write the products of TERMS terms."""
        for column in self.columns:
            place = self.builder.gep(b, [INT64(SIDE * column)])
            self.move("tileloadd64", COLUMN_TILES[column], place, self.b_bytes)
        for row in self.rows:
            place = self.place(a, row, self.strides.a_row, 0)
            self.move("tileloadd64", ROW_TILES[row], place, self.a_bytes)
            for column in self.columns:
                self.on_tiles("tdpbf16ps", SUMS[row][column], ROW_TILES[row], COLUMN_TILES[column])

    def place(self, start, row_tile: int, row_step, column_tile: int):
        """Return the address of a tile in a matrix."""
        builder = self.builder
        offset = builder.mul(INT64(SIDE * row_tile), row_step)
        return builder.gep(start, [builder.add(offset, INT64(SIDE * column_tile))])

    def move(self, name: str, tile: int, place, row_bytes) -> None:
        """Load or store a tile whose rows are row_bytes apart."""
        address = self.builder.bitcast(place, INT8.as_pointer())
        arguments = [ir.Constant(INT8, tile), address, row_bytes]
        call(self.builder, f"llvm.x86.{name}", ir.VoidType(), arguments)

    def on_tiles(self, name: str, *tiles: int) -> None:
        """Call an instruction that takes tiles alone."""
        arguments = [ir.Constant(INT8, tile) for tile in tiles]
        call(self.builder, f"llvm.x86.{name}", ir.VoidType(), arguments)
