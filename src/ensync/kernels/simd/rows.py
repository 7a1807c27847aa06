"""Vector primitives of one-sample training: C += A B for one row or a few, and dot products of
rows.

Every width is padded to whole vectors, so that neither has an edge; short sums make tiles.tile's
epilogue too dear here. Both work for float32, float64 and any vector width.
"""

import itertools

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from ensync.kernels.simd.builder import INT64, Vectors
from ensync.kernels.simd.host import SIMD, WIDE_TILE, lanes_of

# Partial sums that hide the latency of a multiply-add.
CHAINS = 8


def _vectors(builder: ir.IRBuilder, address) -> Vectors:
    element = address.type.pointee
    return Vectors(
        builder.module, builder, element, lanes_of(4 if isinstance(element, ir.FloatType) else 8)
    )


def _accumulators(builder: ir.IRBuilder, vector: Vectors, count: int) -> list:
    """Return slots of memory set to zero, which LLVM turns into registers."""
    slots = [cgutils.alloca_once(builder, vector.type) for _ in range(count)]
    for slot in slots:
        builder.store(vector.zero, slot)
    return slots


def _multiply_add(builder: ir.IRBuilder, vector: Vectors, x, y, slot) -> None:
    builder.store(vector.multiply_add(x, y, builder.load(slot)), slot)


def make_product(rows: int, vectors: int):
    """Return kernel(a, b, c, a_row, a_step, b_row, depth): C[p, :] += sum over k of A[p, k] * B[k,
    :].

    p over `rows` rows, which are b_row elements apart in C as in B; columns: `vectors` vectors.
    a, b, c: addresses from pointer; A[p, k] lies p * a_row + k * a_step behind a.
    depth: number of k, a multiple of CHAINS (0 adds nothing).
    """
    splits = max(1, CHAINS // (rows * vectors))

    @intrinsic
    def kernel(typing_context, a, b, c, a_row, a_step, b_row, depth):
        def generate(context, builder, signature, arguments):
            a, b, c, a_row, a_step, b_row, depth = arguments
            vector = _vectors(builder, a)
            columns = [INT64(v * vector.lanes) for v in range(vectors)]
            sums = [
                [_accumulators(builder, vector, vectors) for _ in range(rows)]
                for _ in range(splits)
            ]
            with cgutils.for_range_slice(builder, INT64(0), depth, INT64(splits)) as (first, _):
                for split in range(splits):
                    k = builder.add(first, INT64(split))
                    right = [vector.load(_at(builder, b, k, b_row, column)) for column in columns]
                    for p in range(rows):
                        left = vector.splat(
                            builder.load(_at(builder, a, INT64(p), a_row, builder.mul(k, a_step)))
                        )
                        for v in range(vectors):
                            _multiply_add(builder, vector, left, right[v], sums[split][p][v])
            for p, v in itertools.product(range(rows), range(vectors)):
                to = _at(builder, c, INT64(p), b_row, columns[v])
                total = vector.load(to)
                for split in range(splits):
                    total = builder.fadd(total, builder.load(sums[split][p][v]))
                vector.store(total, to)
            return context.get_dummy_value()

        return types.void(a, b, c, *[types.int64] * 4), generate

    return kernel


def _shuffle(builder: ir.IRBuilder, x, y, order: list[int]):
    return builder.shuffle_vector(
        x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
    )


def _sums_of_lanes(builder: ir.IRBuilder, vectors: list, lane_count: int):
    """Return one vector whose lane i is the sum of the lanes of vectors[i], in log2(lanes)
    rounds that add halves.
    """
    segment = lane_count
    while segment > 1:
        segment //= 2
        low = [lane for lane in range(2 * lane_count) if lane // segment % 2 == 0]
        high = [lane + segment for lane in low]
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [
            builder.fadd(_shuffle(builder, x, y, low), _shuffle(builder, x, y, high))
            for x, y in pairs
        ]
    return vectors[0]


@register_jitable
def square_of(lane_count: int) -> tuple[int, int]:
    """Return how many rows of A and of B one call of `dots_square` takes: their product is the
    number of lanes.
    """
    return min(4, lane_count), max(1, lane_count // 4)


def make_dots(square: bool):
    """Return kernel(a, b, c, a_row, b_row, c_row, width): C[q, p] = sum over j of A[p, j] * B[q,
    j].

    p over `lanes` rows of A for one row q of B, or, if `square`, over the numbers of rows that
    `square_of` tells. width: number of j, a multiple of the lanes (0 stores zeros). a, b, c:
    addresses from pointer.
    """

    @intrinsic
    def kernel(typing_context, a, b, c, a_row, b_row, c_row, width):
        def generate(context, builder, signature, arguments):
            a, b, c, a_row, b_row, c_row, width = arguments
            vector = _vectors(builder, a)
            rows, queries = square_of(vector.lanes) if square else (vector.lanes, 1)
            products = _accumulators(builder, vector, vector.lanes)
            with cgutils.for_range_slice(builder, INT64(0), width, INT64(vector.lanes)) as (j, _):
                right = [vector.load(_at(builder, b, INT64(q), b_row, j)) for q in range(queries)]
                for p in range(rows):
                    left = vector.load(_at(builder, a, INT64(p), a_row, j))
                    for q in range(queries):
                        _multiply_add(builder, vector, left, right[q], products[q * rows + p])
            total = _sums_of_lanes(
                builder, [builder.load(product) for product in products], vector.lanes
            )
            for q in range(queries):
                part = _shuffle(builder, total, total, list(range(q * rows, (q + 1) * rows)))
                to = builder.bitcast(
                    _at(builder, c, INT64(q), c_row, INT64(0)), part.type.as_pointer()
                )
                builder.store(part, to).align = vector.element_bytes
            return context.get_dummy_value()

        return types.void(a, b, c, *[types.int64] * 4), generate

    return kernel


def _at(builder: ir.IRBuilder, base, row, stride, column):
    """Return the address of a row's element."""
    return builder.gep(base, [builder.add(builder.mul(row, stride), column)])


TILE_ROWS = WIDE_TILE[SIMD][0]
tile_3, tile_2, tile_1 = (make_product(TILE_ROWS, vectors) for vectors in (3, 2, 1))
row_8, row_4, row_2, row_1 = (make_product(1, vectors) for vectors in (8, 4, 2, 1))
dots_row, dots_square = make_dots(False), make_dots(True)
