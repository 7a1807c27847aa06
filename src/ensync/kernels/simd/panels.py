"""The lean microkernel for packed operands: whole register tiles only, no bias, no edges.

    C[p, j] = (S[p * s_row + j] if started) + sum over i < inner of A[p * a_row + i * a_inner] * B[i
    * b_inner + j]

for ROWS rows and `width` = VECTORS vectors of columns. S may be C, to add to it, or a bias with
s_row = 0. Where `tiles.tile` would spend a fifth of a short sum on edges and epilogue, the caller
pads its scratch instead.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ensync.kernels.options import KERNEL
from ensync.kernels.simd.builder import INT64, Vectors
from ensync.kernels.simd.host import SIMD, lanes_of

ROWS, VECTORS = {"avx512": (14, 2), "avx2": (6, 2), "neon": (12, 2), "plain": (4, 2)}[SIMD]


class Strides(NamedTuple):
    """Elements from one row, or term of the sum (inner), to the next in the operands of a panel."""

    a_row: int
    a_inner: int
    b_inner: int
    s_row: int
    c_row: int


@njit(**KERNEL)
def panel_width(columns, full):
    """Return the columns of a panel of `columns` in all, `full` lanes: one vector where it holds
    all.
    """
    return full if columns <= full else VECTORS * full


@functools.cache
def panel(started: bool, rows: int = ROWS, vectors: int = VECTORS, in_lanes: bool = False):
    """Return kernel(a, b, s, c, inner, strides, bf16) for addresses of one type, c also of bf16;
    inner is at least 1.

    With bf16 the elements of A and B are pairs of bf16 numbers, neighbours in the sum
    (operands.py).
    in_lanes: not more rows than a vector has lanes (float64 in 16 bytes: 2).
    """

    @intrinsic
    def kernel(typing_context, a, b, s, c, inner, strides, bf16):
        lane_count = lanes_of(a.dtype.bitwidth // 8)

        def generate(context, builder, signature, arguments):
            vector = Vectors(builder.module, builder, context.get_value_type(a.dtype), lane_count)
            *operands, fields, _ = arguments
            numbers = [
                context.cast(builder, value, kind, types.int64)
                for value, kind in zip(
                    cgutils.unpack_tuple(builder, fields), strides.types, strict=True
                )
            ]
            _write(
                vector,
                operands,
                Strides(*numbers),
                started,
                (min(rows, lane_count) if in_lanes else rows, vectors),
                vector.multiply_add if bf16 is types.none else vector.add_pairs,
            )
            return context.get_dummy_value()

        return types.void(a, b, s, c, types.int64, strides, bf16), generate

    return kernel


def _write(
    vector: Vectors,
    operands: list,
    strides: Strides,
    started: bool,
    size: tuple[int, int],
    multiply_add: Callable,
) -> None:
    """Write the code of a panel of size (rows, vectors)."""
    (a, b, s, c, inner), (rows, vectors), builder = operands, size, vector.builder
    columns = [INT64(v * vector.lanes) for v in range(vectors)]
    row_starts = [builder.mul(INT64(p), strides.a_row) for p in range(rows)]

    def addresses(start, step):
        row_addresses = [builder.gep(start, [builder.mul(INT64(p), step)]) for p in range(rows)]
        return [builder.gep(row, [column]) for row in row_addresses for column in columns]

    sums = (
        [vector.load(address) for address in addresses(s, strides.s_row)]
        if started
        else [vector.zero] * (rows * vectors)
    )
    before, block = builder.block, builder.append_basic_block("sum")
    builder.branch(block)
    builder.position_at_end(block)
    i, at, b_at = builder.phi(INT64), builder.phi(a.type), builder.phi(b.type)
    held = [builder.phi(vector.type) for _ in sums]
    factors = [vector.load(builder.gep(b_at, [column])) for column in columns]
    following = [
        builder.add(i, INT64(1)),
        builder.gep(at, [strides.a_inner]),
        builder.gep(b_at, [strides.b_inner]),
    ]
    for p, start in enumerate(row_starts):
        factor = vector.splat(builder.load(builder.gep(at, [start])))
        following += [multiply_add(factor, x, held[p * vectors + v]) for v, x in enumerate(factors)]
    for state, first, later in zip(
        [i, at, b_at, *held], [INT64(0), a, b, *sums], following, strict=True
    ):
        state.add_incoming(first, before)
        state.add_incoming(later, block)
    after = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed("<", following[0], inner), block, after)
    builder.position_at_end(after)
    store = vector.store if c.type == a.type else vector.store_rounded
    for address, value in zip(addresses(c, strides.c_row), following[3:], strict=True):
        store(value, address)
