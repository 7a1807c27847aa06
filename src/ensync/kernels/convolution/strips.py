"""Matrix products on a strip of an image, whose operands lie in the caches: rows are pixels, the
shared matrix is packed in panels.

What the next strip will need is prefetched meanwhile (`Ahead`), in equal parts by the calls of a
product, so that it comes from memory while the processor multiplies. `bf16`: simd/operands.py; with
BF16_TILES the processor's matrix tiles multiply.
"""

from typing import NamedTuple

from numba import njit
from numba.extending import overload

from ensync.kernels.options import INNER
from ensync.kernels.simd import matrix_tiles, panels
from ensync.kernels.simd.host import SIMD
from ensync.kernels.simd.intrinsics import lanes, line, pointer, transpose_block
from ensync.kernels.simd.matrix_tiles import (
    SIDE,
    TERMS,
    end_tiles,
    start_tiles,
    tile_product,
)
from ensync.kernels.simd.operands import BF16_TILES, numbers_per_term, pair_rows
from ensync.kernels.simd.panels import VECTORS, Strides, panel
from ensync.kernels.simd.vectors import (
    advance,
    as_bf16,
    fetch,
    fetch_to_write,
    load,
    pair,
    store,
    zeros,
)

# Of a tile: few lines of an image are whole tiles, so that a strip and what it needs stay in the
# second cache.
ROWS = {"avx512": 8}.get(SIMD, panels.ROWS)
# Of a tile of the weights' gradient; where channels are no multiple, some have fewer.
FILTER_ROWS, FEW_ROWS = {"avx512": 8, "avx2": 6}.get(SIMD, 4), 4
PANEL, BIAS_PANEL = panel(False, ROWS), panel(True, ROWS)
ADD_PANEL, ADD_FEW = panel(True, FILTER_ROWS), panel(True, FEW_ROWS)
# Pixels of one product of the weights' gradient, so that its operands stay in the first cache.
STRETCH = {"avx2": 96, "avx512": 48}.get(SIMD, 64)
TILE_PRODUCT, SHORT_PRODUCT = tile_product(False), tile_product(False, 1)
ADD_TILES = tile_product(True)
ROOM = (2 * SIDE) ** 2  # elements that products by tiles need beside their operands


class Size(NamedTuple):
    """Of a product: rows, terms of the sums and columns, then the elements between the rows of A
    and of the target.
    """

    rows: int
    terms: int
    columns: int
    a_pitch: int
    pitch: int


class Ahead(NamedTuple):
    """Two arrays to prefetch: the address and number of the elements of each."""

    first: int
    first_count: int
    second: int
    second_count: int


@njit(**INNER)
def pack_panels(weights, c, k, transposed, target, bf16):
    """Write weights (c, k), or their transposed, as panels (panels, rows, width)."""
    (rows, columns), width = (k, c) if transposed else (c, k), VECTORS * lanes(target)
    for first in range(0, columns, width):
        for i in range(rows):
            for j in range(width):
                value = weights[first + j, i] if transposed else weights[i, first + j]
                target[first * rows + i * width + j] = value
    pair_rows(pointer(target, 0), c * k // width, width, bf16)


@njit(forceinline=True, **INNER)
def _shares(ahead, calls):
    """Return how many elements of each array one of `calls` calls prefetches, whole lines."""
    first, second = line(ahead.first), line(ahead.second)
    return (
        -(-ahead.first_count // (first * calls)) * first,
        -(-ahead.second_count // (second * calls)) * second,
    )


@njit(forceinline=True, **INNER)
def _prefetch(ahead, shares, call, writes):
    """Prefetch the share of one call; the second array to be written where `writes`."""
    start, end = call * shares[0], min(ahead.first_count, (call + 1) * shares[0])
    for at in range(start, end, line(ahead.first)):
        fetch(ahead.first, at)
    start, end = call * shares[1], min(ahead.second_count, (call + 1) * shares[1])
    for at in range(start, end, line(ahead.second)):
        if writes:
            fetch_to_write(ahead.second, at)
        else:
            fetch(ahead.second, at)


@njit(**INNER)
def _multiply_by_vectors(a, packed, bias, has_bias, target, size, ahead, room, bf16):
    rows, terms, columns, a_pitch, pitch = size
    width, call = VECTORS * lanes(a), 0
    shares = _shares(ahead, -(-rows // ROWS) * (columns // width))
    strides = Strides(a_pitch, 1, width, 0, pitch)
    for block in range(0, rows, 8 * ROWS):
        for first in range(0, columns, width):
            for row in range(block, min(rows, block + 8 * ROWS), ROWS):
                at = min(row, rows - ROWS)
                left, b = advance(a, at * a_pitch), advance(packed, first * terms)
                to = advance(target, at * pitch + first)
                if has_bias:
                    BIAS_PANEL(left, b, advance(bias, first), to, terms, strides, bf16)
                else:
                    PANEL(left, b, to, to, terms, strides, bf16)
                _prefetch(ahead, shares, call, True)
                call += 1


@njit(**INNER)
def _multiply_by_tiles(a, packed, bias, has_bias, target, size, ahead, room, bf16):
    rows, terms, columns, a_pitch, pitch = size
    if rows < SIDE:
        _multiply_by_vectors(a, packed, bias, has_bias, target, size, ahead, room, bf16)
        return
    width, full, call = VECTORS * lanes(a), lanes(a), 0
    height = 2 * SIDE if rows >= 2 * SIDE else SIDE
    shares = _shares(ahead, -(-rows // height) * (columns // width))
    strides = matrix_tiles.Strides(1, terms // SIDE, 0, 2 * a_pitch, 0, width, width)
    start_tiles()
    for row in range(0, rows, height):
        at = min(row, rows - height)
        left = as_bf16(advance(a, at * a_pitch))
        for first in range(0, columns, width):
            if height == SIDE:
                SHORT_PRODUCT(left, advance(packed, first * terms), room, strides)
            else:
                TILE_PRODUCT(left, advance(packed, first * terms), room, strides)
            for j in range(0, width, full):
                add = load(bias, first + j, full) if has_bias else zeros(bias)
                for i in range(height):
                    to = (at + i) * pitch + first + j
                    store(target, to, load(room, i * width + j, full) + add, full)
            _prefetch(ahead, shares, call, True)
            call += 1
    end_tiles()


def multiply(a, packed, bias, has_bias, target, size, ahead, room, bf16):
    """Write A (rows, terms) times packed panels, plus bias, to target (rows, columns), also of
    bf16; the last tile may repeat rows. ahead: its second array is to be written. room: ROOM
    elements.
    """
    return _multiply_by_vectors(a, packed, bias, has_bias, target, size, ahead, room, bf16)


@overload(multiply, jit_options={"error_model": "numpy"})
def _choose_multiply(a, packed, bias, has_bias, target, size, ahead, room, bf16):
    chosen = _multiply_by_tiles if bf16 == BF16_TILES.type else _multiply_by_vectors

    def call(a, packed, bias, has_bias, target, size, ahead, room, bf16):
        return chosen(a, packed, bias, has_bias, target, size, ahead, room, bf16)

    return call


@njit(**INNER)
def _add_product_by_vectors(a, b, target, size, k_pitch, ahead, room, bf16):
    pixels, c, k, pitch, _ = size
    pair_rows(a, pixels, c, bf16)
    rows = -(-pixels // numbers_per_term(bf16))
    width, call = VECTORS * lanes(a), 0
    shares = _shares(ahead, -(-rows // STRETCH) * (k // width) * -(-c // FILTER_ROWS))
    strides = Strides(1, pitch, k_pitch, k, k)
    for start in range(0, rows, STRETCH):
        for first in range(0, k, width):
            row, terms = 0, min(STRETCH, rows - start)
            while row < c:
                few = (c - row) % FILTER_ROWS > 0 and c - row <= 2 * FEW_ROWS
                left = advance(a, start * pitch + row)
                right = advance(b, start * k_pitch + first)
                to = advance(target, row * k + first)
                if few:
                    ADD_FEW(left, right, to, to, terms, strides, bf16)
                else:
                    ADD_PANEL(left, right, to, to, terms, strides, bf16)
                _prefetch(ahead, shares, call, False)
                call += 1
                row += FEW_ROWS if few else FILTER_ROWS


@njit(**INNER)
def _add_product_by_tiles(a, b, target, size, k_pitch, ahead, room, bf16):
    pixels, c, k, pitch, _ = size
    full, whole = lanes(a), (pixels + TERMS - 1) // TERMS * TERMS
    row = whole // 2 + SIDE  # not a power of two
    turned, nothing = advance(room, ROOM), zeros(a)
    for first in range(0, whole, TERMS):
        for channel in range(0, c, full):
            for i in range(SIDE):
                at = first + 2 * i
                above, below = (
                    load(a, at * pitch + channel, full if at < pixels else 0),
                    load(a, (at + 1) * pitch + channel, full if at + 1 < pixels else 0),
                )
                store(room, i * full, pair(above, below), full)
            transpose_block(room, full, advance(turned, channel * row + first // 2), row)
    for at in range((pixels + 1) // 2 * k_pitch, whole // 2 * k_pitch, full):
        store(b, at, nothing, full)
    shares, call = _shares(ahead, c // TERMS * (k // TERMS)), 0
    strides = matrix_tiles.Strides(1, whole // TERMS, 0, 2 * row, 0, k_pitch, k)
    start_tiles()
    for first in range(0, k, TERMS):
        for channel in range(0, c, TERMS):
            left = as_bf16(advance(turned, channel * row))
            to = advance(target, channel * k + first)
            ADD_TILES(left, advance(b, first), to, strides)
            _prefetch(ahead, shares, call, False)
            call += 1
    end_tiles()


def add_product(a, b, target, size, k_pitch, ahead, room, bf16):
    """Add A' B to target (c, k), of A (pixels, c) and B, with bf16 pairs of its rows (pixels / 2,
    k), and room for as many as TERMS pixels more. size: a Size whose `terms` are c and `columns` k;
    k_pitch: elements between the rows of B. A is used up. room: ROOM elements, with bf16 and
    c * (pixels / 2 + 2 * SIDE) more. c is a multiple of 8.
    """
    return _add_product_by_vectors(a, b, target, size, k_pitch, ahead, room, bf16)


@overload(add_product, jit_options={"error_model": "numpy"})
def _choose_add_product(a, b, target, size, k_pitch, ahead, room, bf16):
    chosen = _add_product_by_tiles if bf16 == BF16_TILES.type else _add_product_by_vectors

    def call(a, b, target, size, k_pitch, ahead, room, bf16):
        return chosen(a, b, target, size, k_pitch, ahead, room, bf16)

    return call
