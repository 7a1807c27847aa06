"""How tiles of 4x4, 3x4, 4x3 and 3x3 outputs cover images, and the order in which Winograd's
algorithm takes them.

Outputs along a dimension are covered by as few tiles as can be, by four and then by three, as many
by three as that allows: 7 = 4 + 3, 14 = 4 + 4 + 3 + 3. Three need one point less than four
(`winograd_transforms`): 30 points for tiles of 3x4, 25 for 3x3 instead of 36. The tiles of all
images follow each other by kind: short ones (three high, four wide), whole ones, narrow ones (four
high, three wide), and those both short and narrow. So the tiles that need a point (all, those not
short, those not narrow, or the whole ones) are neighbours, and nothing is multiplied for the
others.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from ensync.kernels.convolution.winograd_transforms import DROPPED, Tile
from ensync.kernels.options import INNER


class Tiling(NamedTuple):
    """The tiles of a batch of images: all of them, those before the whole, the narrow, and the
    short and narrow ones, and an image's in each dimension.
    """

    tiles: int
    whole_from: int
    narrow_from: int
    both_from: int
    high: int
    short: int
    wide: int
    narrow: int


class Block(NamedTuple):
    """Neighbouring tiles: the first, and how many."""

    start: int
    count: int
    tiling: Tiling


@njit(**INNER)
def _cover(size):
    """Return the tiles of four and of three outputs that cover so many."""
    tiles = (size + 3) // 4
    threes = min(tiles, 4 * tiles - size)
    return tiles - threes, threes


@njit(**INNER)
def tiling_of(n, oh, ow):
    """Return the Tiling of n images of outputs (oh, ow)."""
    (high, short), (wide, narrow) = _cover(oh), _cover(ow)
    whole_from = n * short * wide
    narrow_from = whole_from + n * high * wide
    both_from = narrow_from + n * high * narrow
    tiles = both_from + n * short * narrow
    return Tiling(tiles, whole_from, narrow_from, both_from, high, short, wide, narrow)


@njit(forceinline=True, **INNER)
def _quotient(a, b):
    """Return a // b of numbers from 0 to 2^32 - 1 (tiles of a batch, each of 16 values or more),
    in less time than // takes to mind signs.
    """
    return np.int64(np.uint32(a) // np.uint32(b))


@njit(forceinline=True, **INNER)
def tile_at(number, block):
    """Return a block's Tile."""
    all_of, tile = block.tiling, block.start + number
    short, narrow = tile < all_of.whole_from or tile >= all_of.both_from, tile >= all_of.narrow_from
    if narrow:
        tile -= all_of.both_from if short else all_of.narrow_from
    elif not short:
        tile -= all_of.whole_from
    down, across = all_of.short if short else all_of.high, all_of.narrow if narrow else all_of.wide
    side, lines = 3 if short else 4, _quotient(tile, across)
    image, column = _quotient(lines, down), tile - lines * across
    row = lines - image * down
    y = row * side + (4 * all_of.high if short else 0)
    x = 4 * all_of.wide + 3 * column if narrow else 4 * column
    return Tile(image, y, x, short, narrow, side if row + 1 < down else -side * row)


@njit(forceinline=True, **INNER)
def tiles_with_point(point, block):
    """Return which of a block's tiles need a point, 6 times the vertical plus the horizontal one:
    the first, and the end, not behind it where none do.
    """
    start, count, tiling = block
    not_short, not_narrow = point // 6 == DROPPED, point % 6 == DROPPED
    first = tiling.whole_from if not_short else 0
    if not_narrow:
        end = tiling.narrow_from
    else:
        end = tiling.both_from if not_short else start + count
    return max(first - start, 0), min(end - start, count)
