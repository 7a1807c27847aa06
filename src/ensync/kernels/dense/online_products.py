"""Products of a vector and a matrix in the scratch array of one-sample training, given by their
offsets.
"""

from numba import njit, prange

from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.rows import CHAINS, dots_row, row_1, row_2, row_4, row_8


@njit(error_model="numpy")
def row_times(work, a, b, c, b_row, depth, width):
    """c (width) += a (depth) B (depth, width); depth is rounded up to what is padded with zeros."""
    lane_count = lanes(work)
    depth = (depth + CHAINS - 1) // CHAINS * CHAINS
    column = 0
    while column < width:
        vectors = (width - column) // lane_count
        x, y, z = pointer(work, a), pointer(work, b + column), pointer(work, c + column)
        if vectors >= 8:
            row_8(x, y, z, 0, 1, b_row, depth)
            column += 8 * lane_count
        elif vectors >= 4:
            row_4(x, y, z, 0, 1, b_row, depth)
            column += 4 * lane_count
        elif vectors >= 2:
            row_2(x, y, z, 0, 1, b_row, depth)
            column += 2 * lane_count
        else:
            row_1(x, y, z, 0, 1, b_row, depth)
            column += lane_count


@njit(error_model="numpy")
def dots(work, a, b, c, a_row, count, width):
    """c (count) = A (count, width) b (width); count is rounded up as `row_times` will read c."""
    for first in range(0, (count + CHAINS - 1) // CHAINS * CHAINS, lanes(work)):
        dots_row(
            pointer(work, a + first * a_row),
            pointer(work, b),
            pointer(work, c + first),
            a_row,
            0,
            0,
            width,
        )


@njit(error_model="numpy", parallel=True)
def row_times_by_threads(work, a, b, c, b_row, depth, width):
    """`row_times` on several threads, eight vectors of columns at a time each."""
    strip = 8 * lanes(work)
    for index in prange((width + strip - 1) // strip):
        first = index * strip
        row_times(work, a, b + first, c + first, b_row, depth, min(strip, width - first))


@njit(error_model="numpy", parallel=True)
def dots_by_threads(work, a, b, c, a_row, count, width):
    """`dots` on several threads, 64 rows at a time each."""
    strip = 64
    for index in prange((count + strip - 1) // strip):
        first = index * strip
        dots(work, a + first * a_row, b, c + first, a_row, min(strip, count - first), width)
