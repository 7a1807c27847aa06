"""Matrix products on a strip of an image, whose operands lie in the caches: rows are pixels, the
shared matrix is packed in panels.

`ahead` = (address, count, address, count): elements that the next strip will need, the second ones
in `multiply` to be written. The calls of a product ask for them in equal parts, so that they come
from memory while the processor multiplies. `bf16`: as in separable.py.
"""

from numba import njit

from ensync.kernels.options import INNER
from ensync.kernels.simd import panels
from ensync.kernels.simd.host import SIMD
from ensync.kernels.simd.intrinsics import lanes, line, pointer
from ensync.kernels.simd.panels import VECTORS, panel
from ensync.kernels.simd.vectors import advance, fetch, fetch_to_write, load, pair, store, zeros

ROWS = {"avx512": 8}.get(
    SIMD,
    panels.ROWS,
    # of a tile: few lines of an image are whole tiles, so that a strip and what it needs stay in
    # the second cache
)
FILTER_ROWS, FEW_ROWS = (
    {"avx512": 8, "avx2": 6}.get(SIMD, 4),
    4,
)  # of a tile of the weights' gradient; where channels are no multiple, some have fewer
PANEL, BIAS_PANEL, ADD_PANEL, ADD_FEW = (
    panel(False, ROWS),
    panel(True, ROWS),
    panel(True, FILTER_ROWS),
    panel(True, FEW_ROWS),
)
PAIRS_PANEL, PAIRS_BIAS_PANEL, PAIRS_ADD_PANEL = (
    panel(False, ROWS, pairs=True),
    panel(True, ROWS, pairs=True),
    panel(True, FILTER_ROWS, pairs=True),
)
STRETCH = {"avx2": 96, "avx512": 48}.get(
    SIMD, 64
)  # pixels of one product of the weights' gradient, so that its operands stay in the first cache


@njit(**INNER)
def pair_rows(values, rows, width):
    """Make each two rows of `width` float32 numbers one row of pairs of bf16, in place; an odd
    last row is paired with zeros.
    """
    full = lanes(values)
    for row in range(0, rows, 2):
        for j in range(0, width, full):
            below = load(values, (row + 1) * width + j, full) if row + 1 < rows else zeros(values)
            store(
                values, row // 2 * width + j, pair(load(values, row * width + j, full), below), full
            )


@njit(**INNER)
def pack_panels(weights, c, k, turned, target, bf16):
    """Write weights (c, k), or their transposed, as panels (panels, rows, width)."""
    (rows, columns), width = (k, c) if turned else (c, k), VECTORS * lanes(target)
    for first in range(0, columns, width):
        for i in range(rows):
            for j in range(width):
                value = weights[first + j, i] if turned else weights[i, first + j]
                target[first * rows + i * width + j] = value
    if bf16 is not None:
        pair_rows(pointer(target, 0), c * k // width, width)


@njit(forceinline=True, **INNER)
def _shares(ahead, calls):
    """Return how many of the elements ahead = (address, count, address, count) each of `calls`
    calls asks for, whole lines.
    """
    first, second = line(ahead[0]), line(ahead[2])
    return -(-ahead[1] // (first * calls)) * first, -(-ahead[3] // (second * calls)) * second


@njit(forceinline=True, **INNER)
def _fetch(ahead, shares, call, writes):
    """Ask for the share of one call."""
    for at in range(call * shares[0], min(ahead[1], (call + 1) * shares[0]), line(ahead[0])):
        fetch(ahead[0], at)
    for at in range(call * shares[1], min(ahead[3], (call + 1) * shares[1]), line(ahead[2])):
        if writes:
            fetch_to_write(ahead[2], at)
        else:
            fetch(ahead[2], at)


@njit(forceinline=True, **INNER)
def _panel(a, b, bias, has_bias, to, inner, a_pitch, width, pitch, bf16):
    if bf16 is None:
        if has_bias:
            BIAS_PANEL(a, b, bias, to, inner, a_pitch, 1, width, 0, pitch)
        else:
            PANEL(a, b, to, to, inner, a_pitch, 1, width, 0, pitch)
    elif has_bias:
        PAIRS_BIAS_PANEL(a, b, bias, to, inner, a_pitch, 1, width, 0, pitch)
    else:
        PAIRS_PANEL(a, b, to, to, inner, a_pitch, 1, width, 0, pitch)


@njit(**INNER)
def multiply(a, packed, bias, has_bias, target, rows, inner, columns, pitches, ahead, bf16):
    """Write A (rows, inner) times packed panels, plus bias, to target (rows, columns), also of
    bf16; the last tile may repeat rows.

    pitches: elements between the rows of A and of the target.
    """
    width, call, (a_pitch, pitch) = VECTORS * lanes(a), 0, pitches
    shares = _shares(ahead, -(-rows // ROWS) * (columns // width))
    for block in range(0, rows, 8 * ROWS):
        for first in range(0, columns, width):
            for row in range(block, min(rows, block + 8 * ROWS), ROWS):
                at = min(row, rows - ROWS)
                left, b, to = (
                    advance(a, at * a_pitch),
                    advance(packed, first * inner),
                    advance(target, at * pitch + first),
                )
                _panel(
                    left, b, advance(bias, first), has_bias, to, inner, a_pitch, width, pitch, bf16
                )
                _fetch(ahead, shares, call, True)
                call += 1


@njit(forceinline=True, **INNER)
def _add_panel(left, right, to, terms, few, pitches, k, bf16):
    if bf16 is not None:
        PAIRS_ADD_PANEL(left, right, to, to, terms, 1, pitches[0], pitches[1], k, k)
    elif few:
        ADD_FEW(left, right, to, to, terms, 1, pitches[0], pitches[1], k, k)
    else:
        ADD_PANEL(left, right, to, to, terms, 1, pitches[0], pitches[1], k, k)


@njit(**INNER)
def add_product(a, b, target, rows, c, k, pitches, ahead, bf16):
    """Add A' B, of A (rows, c) and B (rows, k), to target (c, k); pitches: elements between the
    rows of A and of B. c is a multiple of 8.
    """
    width, call = VECTORS * lanes(a), 0
    shares = _shares(ahead, -(-rows // STRETCH) * (k // width) * -(-c // FILTER_ROWS))
    for start in range(0, rows, STRETCH):
        for first in range(0, k, width):
            row = 0
            while row < c:
                few = (c - row) % FILTER_ROWS > 0 and c - row <= 2 * FEW_ROWS
                _add_panel(
                    advance(a, start * pitches[0] + row),
                    advance(b, start * pitches[1] + first),
                    advance(target, row * k + first),
                    min(STRETCH, rows - start),
                    few,
                    pitches,
                    k,
                    bf16,
                )
                _fetch(ahead, shares, call, False)
                call += 1
                row += FEW_ROWS if few else FILTER_ROWS
