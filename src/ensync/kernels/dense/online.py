"""One sample per step: plain stochastic gradient descent on a dense network, one update per sample.

The obvious program reads and writes every weight for every sample. This one applies the updates of
`BLOCK` samples together; until then they are pending. With W the weights at the start of a block,
x[s] the inputs and d[s] the deltas (gradient before the activation) of its samples, sample t sees

    weights        W[t] = W - rate * sum over s < t of x[s] d[s]'
    forward        x[t] W[t] = x[t] W - rate * sum over s < t of (x[t] . x[s]) d[s]
    backward       W[t] d[t] = W d[t] - rate * sum over s < t of (d[s] . d[t]) x[s]

which is the same sequence of steps, not a batch: only the order of additions differs. The inputs of
the first layer are known beforehand, so its x[t] W and x[t] . x[s] are matrix products, and the
pending updates of all layers another: one pass over the weights applies the last block's updates
and computes the next block's products. A bias is the weight of an input that is always 1. Calls cut
at the same samples give the same bits, whatever the number of threads; cut at multiples of BLOCK
they give those of one call.

Threads share the pass, and within a sample the product with a layer that is larger than a core's
cache, by prange. A barrier that spins would never end where a threading layer runs two pieces on
one thread. Measured on two AVX-512 cores, microseconds per sample on 1 / 2 threads:
784-100-100-10 5.2 / 5.4 with a shared pass (2.7 of it is the pass, which two cores do in 1.9 to
2.3, and they then fetch each other's results), hence SERIAL_PASS; 784-500-500-10 44 / 46 with
shared layers, hence SERIAL_LAYER; 784-1000-500-10 158 / 102.
"""

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from ensync.kernels.dense.online_layout import (
    BLOCK,
    aligned_zeros,
    lay_out,
    prepare_inputs,
    views,
)
from ensync.kernels.dense.online_pass import begin_block, pass_over
from ensync.kernels.dense.online_products import (
    dots,
    dots_by_threads,
    row_times,
    row_times_by_threads,
)
from ensync.kernels.elementwise.activations import activate_block, gradient_block
from ensync.kernels.elementwise.losses import cross_entropy_rows, squared_error_rows

# Weights of the network below which one thread passes over them, and of a layer below which it
# multiplies a sample by them.
SERIAL_PASS, SERIAL_LAYER = 1 << 17, 3 << 17
CROSS_ENTROPY, SQUARED_ERROR = 0, 1


class Layers(NamedTuple):
    """A dense network: sizes int64 (layers + 1,), the widths from the pixels to the classes; codes
    int64 (layers,), `activations.ACTIVATIONS`.
    """

    sizes: np.ndarray
    codes: np.ndarray


class Loss(NamedTuple):
    """CROSS_ENTROPY after a softmax (the last activation is not used), or SQUARED_ERROR: factor *
    sum of squared differences from a target that is `high` at the label and `low` elsewhere.
    """

    kind: int
    low: float
    high: float
    factor: float


class Samples(NamedTuple):
    """Samples in the order of their steps: images uint8 (N, features), features = height * width *
    channels; labels int64 (N,); rows int64 (n,), n may be 0.

    mean, inverse_std: (period,), where period divides features: a pixel enters as (pixel - mean) *
    inverse_std.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    mean: np.ndarray
    inverse_std: np.ndarray


def train_online(
    parameters: np.ndarray, layers: Layers, loss: Loss, samples: Samples, learning_rate: float
) -> tuple[float, int]:
    """Take one step of plain SGD per sample; return the sum of losses and the number of correct
    ones, both taken before the sample's own update.

    parameters: flat, float32 or float64, updated in place; per layer weights (inputs, outputs),
    then bias (outputs,).
    """
    plan, room, pieces, elements = lay_out(
        tuple(layers.sizes.tolist()), tuple(layers.codes.tolist()), parameters.itemsize
    )
    work = aligned_zeros(elements, parameters.dtype)
    weights = views(work, plan)
    starts = np.concatenate([[0], np.cumsum([view.size for view in weights])])
    for view, start in zip(weights, starts, strict=False):
        view[:] = parameters[start : start + view.size].reshape(view.shape)
    prepare_inputs(work, plan, room, samples.mean, samples.inverse_std)
    number = parameters.dtype.type
    typed = Loss(loss.kind, number(loss.low), number(loss.high), number(loss.factor))
    result = _train(
        work,
        plan,
        room,
        pieces,
        samples.images,
        samples.labels,
        samples.rows,
        typed,
        number(learning_rate),
    )
    for view, start in zip(weights, starts, strict=False):
        parameters[start : start + view.size].reshape(view.shape)[:] = view
    return result


@njit(parallel=True, cache=True, error_model="numpy", nogil=True)
def _train(work, plan, room, pieces, images, labels, rows, loss, rate):
    """Passes over the weights and steps in turn; the last pass applies the last updates."""
    loss_sum, correct = 0.0, 0
    for first in range(0, len(rows) + BLOCK, BLOCK):
        block = rows[first : first + BLOCK]
        if room[0].weights < SERIAL_PASS:
            for index in range(len(pieces)):
                pass_over(work, plan, room[0], pieces, index, images, block)
        else:
            for index in prange(len(pieces)):
                pass_over(work, plan, room[0], pieces, index, images, block)
        begin_block(work, plan, room[0])
        for t in range(len(block)):
            label = labels[block[t] : block[t] + 1]
            sample_loss, hit = _step(work, plan, room[0], t, label, loss, rate)
            loss_sum += sample_loss
            correct += hit
    return loss_sum, correct


@njit(error_model="numpy")
def _step(work, plan, room, t, label, loss, rate):
    """One step on sample t of the block; its update becomes pending. Return the loss and 1 if the
    answer was correct.
    """
    _forward_first(work, plan[0], room, t)
    for index in range(1, len(plan)):
        _activate(work, plan[index - 1], room, plan[index].values + t * plan[index].rows)
        _forward(work, plan[index], room, t)
    result = _loss(work, plan[len(plan) - 1], room, label, loss)
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
def _loss(work, layer, room, label, loss):
    """Loss of a sample and 1 if it was correct; writes the last layer's delta."""
    shape = (1, layer.outputs)
    delta = work[room.delta : room.delta + layer.outputs]
    if loss.kind == CROSS_ENTROPY:
        logits = work[room.sums : room.sums + layer.outputs]
        return cross_entropy_rows(
            logits.reshape(shape), label, work.dtype.type(1), 0.0, delta.reshape(shape)
        )
    _activate(work, layer, room, room.outputs)
    outputs = work[room.outputs : room.outputs + layer.outputs]
    result = squared_error_rows(
        outputs.reshape(shape), label, loss.low, loss.high, loss.factor, 1.0, delta.reshape(shape)
    )
    gradient_block(layer.activation, outputs, delta)
    return result


@njit(error_model="numpy")
def _forward_first(work, layer, room, t):
    """Sums of the first layer: the block's products, corrected by the pending updates."""
    products = room.products + t * layer.columns
    work[room.sums : room.sums + layer.columns] = work[products : products + layer.columns]
    row_times(
        work, room.inner + t * BLOCK, layer.deltas, room.sums, layer.columns, t, layer.columns
    )


@njit(error_model="numpy")
def _forward(work, layer, room, t):
    """Sums of a later layer: the weights' own, corrected by the pending updates."""
    values = layer.values + t * layer.rows
    work[room.sums : room.sums + layer.columns] = 0
    multiply = (work, values, layer.weights, room.sums, layer.columns, layer.rows, layer.columns)
    if layer.rows * layer.columns < SERIAL_LAYER:
        row_times(*multiply)
    else:
        row_times_by_threads(*multiply)
    dots(work, layer.values, values, room.factors, layer.rows, t, layer.rows)
    row_times(work, room.factors, layer.deltas, room.sums, layer.columns, t, layer.columns)


@njit(error_model="numpy")
def _backward(work, layer, room, t, rate):
    """Gradient of a later layer's inputs, and its pending update."""
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
        dots(*multiply)
    else:
        dots_by_threads(*multiply)
    dots(work, layer.deltas, room.delta, room.factors, layer.columns, t, layer.columns)
    row_times(work, room.factors, layer.values, room.gradient, layer.rows, t, layer.rows)
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
