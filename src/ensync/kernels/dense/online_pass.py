"""The pass of one-sample training over the weights, once in a block of samples: it applies the
updates of the last block and computes the first layer's products with the inputs of the next.
"""

from numba import njit

from ensync.kernels.dense.online_layout import BLOCK, PIECE
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.rows import TILE_ROWS, dots_square, square_of, tile_1, tile_2, tile_3


@njit(error_model="numpy")
def pass_over(work, plan, room, pieces, index, images, block):
    """Apply the pending updates to a piece of the weights; in the first layer also compute the
    block's products with it.
    """
    layer, first, last = plan[pieces[index, 0]], pieces[index, 1], pieces[index, 2]
    weights = layer.weights + first * layer.columns
    values = layer.values + first
    _add_product(
        work,
        values,
        1,
        layer.rows,
        layer.deltas,
        layer.columns,
        weights,
        last - first,
        BLOCK,
        layer.columns,
    )
    if pieces[index, 0] == 0 and len(block) > 0:
        _normalize(work, layer, room, first, min(last, layer.inputs), images, block)
        slot = first // PIECE
        products = room.products + slot * BLOCK * layer.columns
        work[products : products + BLOCK * layer.columns] = 0
        _add_product(
            work,
            values,
            layer.rows,
            1,
            weights,
            layer.columns,
            products,
            BLOCK,
            last - first,
            layer.columns,
        )
        _inner_products(work, values, layer.rows, room.inner + slot * BLOCK * BLOCK, last - first)


@njit(error_model="numpy")
def _add_product(work, a, a_row, a_inner, b, b_row, c, height, depth, width):
    """C (height, width) += A (height, depth) B (depth, width), with C and B of the same row
    length.
    """
    lane_count = lanes(work)
    column = 0
    while column < width:
        vectors = (width - column) // lane_count
        vectors = 3 if vectors == 3 or vectors > 4 else min(vectors, 2)
        for row in range(0, height, TILE_ROWS):
            x, y, z = (
                pointer(work, a + row * a_row),
                pointer(work, b + column),
                pointer(work, c + row * b_row + column),
            )
            if vectors == 3:
                tile_3(x, y, z, a_row, a_inner, b_row, depth)
            elif vectors == 2:
                tile_2(x, y, z, a_row, a_inner, b_row, depth)
            else:
                tile_1(x, y, z, a_row, a_inner, b_row, depth)
        column += vectors * lane_count


@njit(error_model="numpy")
def _normalize(work, layer, room, first, last, images, block):
    """Write the block's inputs, without the bias's, of a stretch of pixels."""
    mean, scale = (
        work[room.means + first : room.means + last],
        work[room.scales + first : room.scales + last],
    )
    for t in range(len(block)):
        pixels = images[block[t], first:last]
        values = work[layer.values + t * layer.rows + first :][: last - first]
        for i in range(len(pixels)):
            values[i] = (pixels[i] - mean[i]) * scale[i]


@njit(error_model="numpy")
def _inner_products(work, values, row, inner, width):
    """Inner products [t, s] of the block's inputs over a stretch of pixels, for s <= t at least."""
    take_s, take_t = square_of(lanes(work))
    for t in range(0, BLOCK, take_t):
        for s in range(0, t + take_t, take_s):
            a, b = pointer(work, values + s * row), pointer(work, values + t * row)
            dots_square(a, b, pointer(work, inner + t * BLOCK + s), row, row, BLOCK, width)


@njit(error_model="numpy")
def begin_block(work, plan, room):
    """Add the products of the pieces in their order, and clear the updates that have been
    applied.
    """
    _add_pieces(work, room.products, BLOCK * plan[0].columns, room.pieces)
    _add_pieces(work, room.inner, BLOCK * BLOCK, room.pieces)
    for layer in plan:
        work[layer.deltas : layer.deltas + BLOCK * layer.columns] = 0


@njit(error_model="numpy")
def _add_pieces(work, start, size, pieces):
    total = work[start : start + size]
    for piece in range(1, pieces):
        part = work[start + piece * size : start + (piece + 1) * size]
        for i in range(size):
            total[i] += part[i]
