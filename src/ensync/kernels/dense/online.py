"""One sample per step: plain stochastic gradient descent on a dense network, one update per sample.

The obvious program reads and writes every weight for every sample. This one lets `BLOCK` updates
wait: with W the weights at the start of a block, x[s] the inputs and d[s] the deltas (gradient
before the activation) of its samples, sample t sees

    weights        W[t] = W - rate * sum over s < t of x[s] d[s]'
    forward        x[t] W[t] = x[t] W - rate * sum over s < t of (x[t] . x[s]) d[s]
    backward       W[t] d[t] = W d[t] - rate * sum over s < t of (d[s] . d[t]) x[s]

which is the same sequence of steps, not a batch: only the order of additions differs. The inputs of
the first layer are known beforehand, so its x[t] W and x[t] . x[s] are matrix products, and the
waiting updates of all layers another: one pass over the weights applies the last block's updates
and computes the next block's products. A bias is the weight of an input that is always 1. Calls cut
at the same samples give the same bits, whatever the number of threads; cut at multiples of BLOCK
they give those of one call.

Threads share the pass, and within a sample the product with a layer that is larger than a core's
cache, by prange: a barrier of our own that spins would wait for ever where a threading layer runs
two pieces on one thread. Measured on two AVX-512 cores, microseconds per sample on 1 / 2 threads:
784-100-100-10 5.2 / 5.4 with a shared pass (2.7 of it is the pass, which two cores do in 1.9 to
2.3, and they then fetch each other's results), hence SERIAL_PASS; 784-500-500-10 44 / 46 with
shared layers, hence SERIAL_LAYER; 784-1000-500-10 158 / 102.
"""

import numpy as np
from numba import njit, prange

from ensync.kernels.dense.online_layout import (
    BLOCK,
    PIECE,
    aligned_zeros,
    lay_out,
    prepare_inputs,
    views,
)
from ensync.kernels.elementwise.activations import activate_block, gradient_block
from ensync.kernels.elementwise.losses import cross_entropy_rows, squared_error_rows
from ensync.kernels.simd.intrinsics import lanes, pointer
from ensync.kernels.simd.rows import (
    CHAINS,
    TILE_ROWS,
    dots_row,
    dots_square,
    row_1,
    row_2,
    row_4,
    row_8,
    square_of,
    tile_1,
    tile_2,
    tile_3,
)

# Weights of the network below which one thread passes over them, and of a layer below which it
# multiplies a sample by them.
SERIAL_PASS, SERIAL_LAYER = 1 << 17, 3 << 17
CROSS_ENTROPY = 0


def train_online(
    parameters: np.ndarray,
    sizes: np.ndarray,
    codes: np.ndarray,
    loss: int,
    images: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    mean: np.ndarray,
    inverse_std: np.ndarray,
    learning_rate: float,
    low: float,
    high: float,
    factor: float,
) -> tuple[float, int]:
    """Take one step of plain SGD per sample of `rows`, in that order; return the sum of losses and
    the number of correct ones.

    parameters: flat, float32 or float64, updated in place; per layer weights (inputs, outputs),
    then bias (outputs,). sizes: int64 (layers + 1,), widths from the pixels to the classes; codes:
    int64 (layers,), activations.ACTIVATIONS. loss: 0 softmax and cross-entropy (the last code is
    not used), 1 factor * sum of squared differences from a target that is `high` at the label and
    `low` elsewhere. Both are taken before the sample's own update. images: uint8 (N, features),
    features = height * width * channels; labels: int64 (N,); rows: int64 (n,), n may be 0. mean,
    inverse_std: (period,), where period divides features: a pixel enters as (pixel - mean) *
    inverse_std.
    """
    plan, room, pieces, elements = lay_out(
        tuple(sizes.tolist()), tuple(codes.tolist()), parameters.itemsize
    )
    work = aligned_zeros(elements, parameters.dtype)
    weights = views(work, plan)
    starts = np.concatenate([[0], np.cumsum([view.size for view in weights])])
    for view, start in zip(weights, starts, strict=False):
        view[:] = parameters[start : start + view.size].reshape(view.shape)
    prepare_inputs(work, plan, room, mean, inverse_std)
    scalars = np.array([learning_rate, low, high, factor], parameters.dtype)
    result = _train(work, plan, room, pieces, images, labels, rows, loss, *scalars)
    for view, start in zip(weights, starts, strict=False):
        parameters[start : start + view.size].reshape(view.shape)[:] = view
    return result


@njit(parallel=True, cache=True, error_model="numpy", nogil=True)
def _train(work, plan, room, pieces, images, labels, rows, loss, rate, low, high, factor):
    """Passes over the weights and steps in turn; the last pass applies what still waits."""
    loss_sum, correct = 0.0, 0
    for first in range(0, len(rows) + BLOCK, BLOCK):
        block = rows[first : first + BLOCK]
        if room[0].weights < SERIAL_PASS:
            for index in range(len(pieces)):
                _pass(work, plan, room[0], pieces, index, images, block)
        else:
            for index in prange(len(pieces)):
                _pass(work, plan, room[0], pieces, index, images, block)
        _begin_block(work, plan, room[0])
        for t in range(len(block)):
            sample_loss, hit = _step(
                work,
                plan,
                room[0],
                t,
                labels[block[t] : block[t] + 1],
                loss,
                rate,
                low,
                high,
                factor,
            )
            loss_sum += sample_loss
            correct += hit
    return loss_sum, correct


@njit(error_model="numpy")
def _pass(work, plan, room, pieces, index, images, block):
    """Apply the waiting updates to a piece of weights; in the first layer also compute the
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
        work[room.mean + first : room.mean + last],
        work[room.scale + first : room.scale + last],
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
def _begin_block(work, plan, room):
    """Add what the pieces computed to the first one's, in order, and forget the updates that
    have been applied.
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


@njit(error_model="numpy")
def _step(work, plan, room, t, label, loss, rate, low, high, factor):
    """One step on sample t of the block; its update waits. Return the loss and 1 if it was
    correct.
    """
    _forward_first(work, plan[0], room, t)
    for index in range(1, len(plan)):
        _activate(work, plan[index - 1], room, plan[index].values + t * plan[index].rows)
        _forward(work, plan[index], room, t)
    result = _loss(work, plan[len(plan) - 1], room, label, loss, low, high, factor)
    for index in range(len(plan) - 1, 0, -1):
        layer, below = plan[index], plan[index - 1]
        _backward(work, layer, room, t, rate)
        delta = work[room.delta : room.delta + below.outputs]
        delta[:] = work[room.gradient : room.gradient + below.outputs]
        values = layer.values + t * layer.rows
        gradient_block(below.activation, work[values : values + below.outputs], delta)
    _keep_delta(work, plan[0], room, t, rate)
    return result


@njit(error_model="numpy")
def _loss(work, layer, room, label, loss, low, high, factor):
    """Loss of a sample and 1 if it was correct; writes the last layer's delta."""
    shape = (1, layer.outputs)
    delta = work[room.delta : room.delta + layer.outputs]
    if loss == CROSS_ENTROPY:
        logits = work[room.sums : room.sums + layer.outputs]
        return cross_entropy_rows(
            logits.reshape(shape), label, work.dtype.type(1), 0.0, delta.reshape(shape)
        )
    _activate(work, layer, room, room.outputs)
    outputs = work[room.outputs : room.outputs + layer.outputs]
    result = squared_error_rows(
        outputs.reshape(shape), label, low, high, factor, 1.0, delta.reshape(shape)
    )
    gradient_block(layer.activation, outputs, delta)
    return result


@njit(error_model="numpy")
def _forward_first(work, layer, room, t):
    """Sums of the first layer: the block's products, corrected by the updates that wait."""
    products = room.products + t * layer.columns
    work[room.sums : room.sums + layer.columns] = work[products : products + layer.columns]
    _row_times(
        work, room.inner + t * BLOCK, layer.deltas, room.sums, layer.columns, t, layer.columns
    )


@njit(error_model="numpy")
def _forward(work, layer, room, t):
    """Sums of a later layer: the weights' own, corrected by the updates that wait."""
    values = layer.values + t * layer.rows
    work[room.sums : room.sums + layer.columns] = 0
    multiply = (work, values, layer.weights, room.sums, layer.columns, layer.rows, layer.columns)
    if layer.rows * layer.columns < SERIAL_LAYER:
        _row_times(*multiply)
    else:
        _row_times_wide(*multiply)
    _dots(work, layer.values, values, room.factors, layer.rows, t, layer.rows)
    _row_times(work, room.factors, layer.deltas, room.sums, layer.columns, t, layer.columns)


@njit(error_model="numpy")
def _backward(work, layer, room, t, rate):
    """Gradient of a later layer's inputs, and its update kept for later."""
    work[room.delta + layer.outputs : room.delta + layer.columns] = 0
    multiply = (
        work,
        layer.weights,
        room.delta,
        room.gradient,
        layer.columns,
        layer.rows,
        layer.columns,
    )
    if layer.rows * layer.columns < SERIAL_LAYER:
        _dots(*multiply)
    else:
        _dots_wide(*multiply)
    _dots(work, layer.deltas, room.delta, room.factors, layer.columns, t, layer.columns)
    _row_times(work, room.factors, layer.values, room.gradient, layer.rows, t, layer.rows)
    _keep_delta(work, layer, room, t, rate)


@njit(error_model="numpy")
def _keep_delta(work, layer, room, t, rate):
    kept = work[layer.deltas + t * layer.columns :][: layer.outputs]
    delta = work[room.delta :][: layer.outputs]
    for j in range(layer.outputs):
        kept[j] = -rate * delta[j]


@njit(error_model="numpy")
def _activate(work, layer, room, to):
    outputs = work[to : to + layer.outputs]
    outputs[:] = work[room.sums : room.sums + layer.outputs]
    activate_block(layer.activation, outputs)


@njit(error_model="numpy")
def _row_times(work, a, b, c, b_row, depth, width):
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
def _dots(work, a, b, c, a_row, count, width):
    """c (count) = A (count, width) b (width); count is rounded up as `_row_times` will read c."""
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
def _row_times_wide(work, a, b, c, b_row, depth, width):
    """`_row_times` on several threads, each a strip of columns at a time."""
    strip = 8 * lanes(work)
    for index in prange((width + strip - 1) // strip):
        first = index * strip
        _row_times(work, a, b + first, c + first, b_row, depth, min(strip, width - first))


@njit(error_model="numpy", parallel=True)
def _dots_wide(work, a, b, c, a_row, count, width):
    """`_dots` on several threads, each a strip of rows at a time."""
    strip = 64
    for index in prange((count + strip - 1) // strip):
        first = index * strip
        _dots(work, a + first * a_row, b, c + first, a_row, min(strip, count - first), width)
