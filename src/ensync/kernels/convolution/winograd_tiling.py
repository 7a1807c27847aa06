"""How tiles of 4x4, 3x4, 4x3 and 3x3 outputs cover images, and the order in which Winograd's
algorithm takes them.

Outputs along a dimension are covered by as few tiles as can be, by four and then by three, as many
by three as that allows: 7 = 4 + 3, 14 = 4 + 4 + 3 + 3. Three need one point less than four
(`winograd_transforms`): 30 places for tiles of 3x4, 25 for 3x3 instead of 36. The tiles of all
images follow each other by kind: short ones (three high, four wide), whole ones, narrow ones (four
high, three wide), and those both short and narrow. So the tiles that need a place (all, those not
short, those not narrow, or the whole ones) are neighbours, and nothing is multiplied for the
others. A `block` is (first tile, count, *tiling).
"""

import numpy as np
from numba import njit

from ensync.kernels.convolution.winograd_transforms import DROPPED
from ensync.kernels.options import INNER


@njit(**INNER)
def _cover(size):
    """Return the tiles of four and of three outputs that cover so many."""
    tiles = (size + 3) // 4
    threes = min(tiles, 4 * tiles - size)
    return tiles - threes, threes


@njit(**INNER)
def tiling_of(n, oh, ow):
    """Return the tiling of n images: all tiles, those before the whole, the narrow, and the
    short and narrow ones, and an image's in each dimension.
    """
    (high, short), (wide, narrow) = _cover(oh), _cover(ow)
    whole_from = n * short * wide
    narrow_from = whole_from + n * high * wide
    both_from = narrow_from + n * high * narrow
    return (
        both_from + n * short * narrow,
        whole_from,
        narrow_from,
        both_from,
        high,
        short,
        wide,
        narrow,
    )


@njit(forceinline=True, **INNER)
def _quotient(a, b):
    """Return a // b of numbers from 0 to 2^32 - 1 (tiles of a batch, each of 16 values or more),
    in less time than // takes to mind signs.
    """
    return np.int64(np.uint32(a) // np.uint32(b))


@njit(forceinline=True, **INNER)
def tile_at(number, block):
    """Return the image, y, x, whether short, whether narrow, and `below` of a block's tile.

    below: lines to the tile of its kind below; from the last one, back to the first, 0 or less: the
    next image's is as many lines on as images have.
    """
    start, _, _, whole_from, narrow_from, both_from, high, shorts, wide, narrows = block
    tile = start + number
    short, narrow = tile < whole_from or tile >= both_from, tile >= narrow_from
    if narrow:
        tile -= both_from if short else narrow_from
    elif not short:
        tile -= whole_from
    down, across, side = shorts if short else high, narrows if narrow else wide, 3 if short else 4
    lines = _quotient(tile, across)
    image, column = _quotient(lines, down), tile - lines * across
    row = lines - image * down
    y, x = row * side + (4 * high if short else 0), 4 * wide + 3 * column if narrow else 4 * column
    return image, y, x, short, narrow, side if row + 1 < down else -side * row


@njit(forceinline=True, **INNER)
def tiles_with(place, block):
    """Return which of a block's tiles need a place, 6 times the vertical point plus the
    horizontal: the first, and the end, not behind it where none do.
    """
    start, count, _, whole_from, narrow_from, both_from, _, _, _, _ = block
    not_short, not_narrow = place // 6 == DROPPED, place % 6 == DROPPED
    first, end = (
        whole_from if not_short else 0,
        narrow_from if not_narrow else both_from if not_short else start + count,
    )
    return max(first - start, 0), min(end - start, count)
