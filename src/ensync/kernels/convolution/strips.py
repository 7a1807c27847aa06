"""Matrix products on a strip of an image, whose operands lie in the caches: rows are pixels, the
shared matrix is packed in panels.

What the next strip will need is prefetched meanwhile (`Ahead`), in equal parts by the calls of a
product, so that it comes from memory while the processor multiplies. `bf16`: simd/operands.py.
"""

from typing import NamedTuple

from numba import njit

from ensync.kernels.options import INNER
from ensync.kernels.simd import panels
from ensync.kernels.simd.host import SIMD
from ensync.kernels.simd.intrinsics import lanes, line, pointer
from ensync.kernels.simd.operands import pair_rows
from ensync.kernels.simd.panels import VECTORS, Strides, panel
from ensync.kernels.simd.vectors import advance, fetch, fetch_to_write

# Of a tile: few lines of an image are whole tiles, so that a strip and what it needs stay in the
# second cache.
ROWS = {"avx512": 8}.get(SIMD, panels.ROWS)
# Of a tile of the weights' gradient; where channels are no multiple, some have fewer.
FILTER_ROWS, FEW_ROWS = {"avx512": 8, "avx2": 6}.get(SIMD, 4), 4
PANEL, BIAS_PANEL = panel(False, ROWS), panel(True, ROWS)
ADD_PANEL, ADD_FEW = panel(True, FILTER_ROWS), panel(True, FEW_ROWS)
# Pixels of one product of the weights' gradient, so that its operands stay in the first cache.
STRETCH = {"avx2": 96, "avx512": 48}.get(SIMD, 64)


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
def multiply(a, packed, bias, has_bias, target, size, ahead, bf16):
    """Write A (rows, terms) times packed panels, plus bias, to target (rows, columns), also of
    bf16; the last tile may repeat rows. ahead: its second array is to be written.
    """
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
def add_product(a, b, target, rows, c, k, pitches, ahead, bf16):
    """Add A' B, of A (rows, c) and B (rows, k), to target (c, k); pitches: elements between the
    rows of A and of B. c is a multiple of 8.
    """
    width, call = VECTORS * lanes(a), 0
    shares = _shares(ahead, -(-rows // STRETCH) * (k // width) * -(-c // FILTER_ROWS))
    strides = Strides(1, pitches[0], pitches[1], k, k)
    for start in range(0, rows, STRETCH):
        for first in range(0, k, width):
            row, terms = 0, min(STRETCH, rows - start)
            while row < c:
                few = (c - row) % FILTER_ROWS > 0 and c - row <= 2 * FEW_ROWS
                left = advance(a, start * pitches[0] + row)
                right = advance(b, start * pitches[1] + first)
                to = advance(target, row * k + first)
                if few:
                    ADD_FEW(left, right, to, to, terms, strides, bf16)
                else:
                    ADD_PANEL(left, right, to, to, terms, strides, bf16)
                _prefetch(ahead, shares, call, False)
                call += 1
                row += FEW_ROWS if few else FILTER_ROWS
