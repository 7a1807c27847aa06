"""Layers of which a rank holds a part, or that move values between the ranks' parts.

Values are whole (all channels on every rank), split (a block of neighbouring channels on each), or
partial sums. A layer inside is an ordinary one, smaller than that of the whole network; what is
around it moves its inputs forward, and their gradient back by the adjoint:

    layer       inputs           forward            backward
    Gathered    split -> whole   allgather          reduce-scatter
    Spread      whole            nothing            allreduce
    Summed      split            allreduce of the partial sums of outputs, nothing
    Bordered    split            the neighbours' nearest channels, and back
    PartDropout split            nothing            nothing

(Krizhevsky et al. 2012, section 3.2; the pairs of Shoeybi et al. 2019, arXiv 1909.08053.)
"""

from dataclasses import replace
from math import prod

import numpy as np

from ensync.kernels.elementwise import activations, dropout
from ensync.nn.layers.activations import Activated
from ensync.nn.layers.base import Layer, Shape, Step, Views
from ensync.nn.layers.dense import Dense
from ensync.nn.layers.dropout import Dropout
from ensync.nn.layers.response import LocalResponseNormalization
from ensync.nn.memory import Workspace, empty
from ensync.nn.split.exchange import Exchange


class Around(Layer):
    """A layer inside another: its parameters and statistics are those of the outer one, by the
    same names.
    """

    def __init__(self, inner: Layer, exchange: Exchange) -> None:
        self.inner, self.exchange, self.layers = inner, exchange, [inner]

    def take(self, shape: Shape) -> Shape:
        """Build the inner layer on inputs of this shape, and return that of its outputs."""
        outputs = self.inner.build(shape)
        self.parameters, self.statistics = self.inner.parameters, self.inner.statistics
        return outputs

    def build(self, shape: Shape) -> Shape:
        return self.take(shape)

    def bind(self, values: Views, gradients: Views) -> None:
        self.inner.bind(values, gradients)

    def operations(self, shape: Shape) -> int:
        return self.inner.operations(shape)

    def describe(self) -> str:
        return f"{self.inner.describe()} (of {self.exchange.ranks} parts)"


class Gathered(Around):
    """A layer with all channels as inputs, of which each rank has a block.

    block: channels of a rank; behind a flatten there are several stretches of so many values.
    """

    def __init__(self, inner: Layer, exchange: Exchange, block: int) -> None:
        super().__init__(inner, exchange)
        self.block = block

    def build(self, shape: Shape) -> Shape:
        self.points = prod(shape) // self.block
        self.shape, self.whole = shape, (*shape[:-1], shape[-1] * self.exchange.ranks)
        return self.take(self.whole)

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.inner.allocate(rows, dtype, workspace, first)
        self.inputs = empty((rows, *self.whole), dtype)
        self.moved = empty(rows * prod(self.whole), dtype)
        self.inputs_gradient = empty((rows, *self.shape), dtype)

    def _parts(self, rows: int) -> np.ndarray:
        """Return room for every rank's block of so many rows, `(ranks, values)`."""
        count = rows * prod(self.whole)
        return self.moved[:count].reshape(self.exchange.ranks, count // self.exchange.ranks)

    def _by_rank(self, values: np.ndarray) -> np.ndarray:
        """Return a view of whole values `(rows, *whole)` as `(ranks, rows, points, block)`."""
        cut = values.reshape(len(values), self.points, self.exchange.ranks, self.block)
        return np.moveaxis(cut, 2, 0)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        parts, whole = self._parts(len(inputs)), self.inputs[: len(inputs)]
        self.exchange.gather(np.ascontiguousarray(inputs).reshape(-1), parts)
        by_rank = self._by_rank(whole)
        by_rank[...] = parts.reshape(by_rank.shape)
        return self.inner.forward(whole, step)

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        found = self.inner.backward(gradient, step)
        if found is None:
            return None
        parts, own = self._parts(len(found)), self.inputs_gradient[: len(found)]
        by_rank = self._by_rank(found)
        parts.reshape(by_rank.shape)[...] = by_rank
        self.exchange.scatter(parts, own.reshape(-1))
        return own


class Spread(Around):
    """A layer whose inputs every rank has whole, and of whose outputs each has a part: the
    gradients of its inputs are partial sums.
    """

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.inner.allocate(rows, dtype, workspace, first)
        self.first = first

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        return self.inner.forward(inputs, step)

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        found = self.inner.backward(gradient, step)
        if self.first or found is None:
            return None
        self.exchange.sum(found.reshape(-1))
        return found


class Summed(Around):
    """A dense layer of which each rank has the rows of weights for its own inputs, and whose
    outputs, whole on every rank, are the sums of all. Bias and activation come after the sum.

    block: channels of a rank, as in `Gathered`.
    """

    inner: Dense

    def __init__(self, whole: Dense, exchange: Exchange, block: int) -> None:
        inner = Dense(whole.units, "identity", False, whole.initializer)
        super().__init__(inner, exchange)
        self.block, self.bias_of = block, whole.parameters[1:]
        self.activation = Activated(whole.activation.name)

    def build(self, shape: Shape) -> Shape:
        outputs = self.take(shape)
        (weights,) = self.inner.parameters
        stretches = prod(shape) // self.block
        self.parameters = (replace(weights, stretches=stretches), *self.bias_of)
        return outputs

    def bind(self, values: Views, gradients: Views) -> None:
        self.inner.bind({"weights": values["weights"]}, {"weights": gradients["weights"]})
        self.bias, self.bias_gradient = values.get("bias"), gradients.get("bias")

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.inner.allocate(rows, dtype, workspace, first)
        self.activation.allocate((rows, self.inner.units), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.kept = self.activation.sums[: len(inputs)]
        self.kept[...] = self.inner.forward(inputs, step)
        self.exchange.sum(self.kept.reshape(-1))
        if self.bias is not None:
            self.kept += self.bias
        activations.activate(self.activation.in_kernel, self.kept)
        return self.activation.finish(self.kept)

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        if self.activation.code:
            activations.activation_gradient(self.activation.code, self.kept, gradient)
        if self.bias_gradient is not None:
            gradient.sum(axis=0, out=self.bias_gradient)
        return self.inner.backward(gradient, step)


class Bordered(Around):
    """Response normalisation over channels of which each rank has a block: it also reads the
    nearest channels of the neighbours.
    """

    inner: LocalResponseNormalization

    def build(self, shape: Shape) -> Shape:
        self.width, self.reach = shape[-1], self.inner.n // 2
        before = self.reach * (self.exchange.rank > 0)
        after = self.reach * (self.exchange.rank + 1 < self.exchange.ranks)
        self.own = slice(before, before + self.width)
        self.wide = (*shape[:-1], before + self.width + after)
        self.take(self.wide)
        return shape

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.inner.allocate(rows, dtype, workspace, first)
        self.inputs, self.gradient = (
            empty((rows, *self.wide), dtype),
            empty((rows, *self.wide), dtype),
        )
        self.outputs = empty((rows, *self.wide[:-1], self.width), dtype)
        self.inputs_gradient = empty((rows, *self.wide[:-1], self.width), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        rows, reach, own = len(inputs), self.reach, self.own
        wide = self.inputs[:rows]
        before, after = self._swap(inputs[..., :reach], inputs[..., self.width - reach :])
        wide[..., : own.start] = before[..., : own.start]
        wide[..., own] = inputs
        wide[..., own.stop :] = after[..., : wide.shape[-1] - own.stop]
        self.outputs[:rows] = self.inner.forward(wide, step)[..., own]
        return self.outputs[:rows]

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        rows, reach, own = len(gradient), self.reach, self.own
        wide, out = self.gradient[:rows], self.inputs_gradient[:rows]
        wide[...] = 0
        wide[..., own] = gradient
        found = self.inner.backward(wide, step)
        assert found is not None, "which it always makes"
        out[...] = found[..., own]
        none = np.zeros((*out.shape[:-1], reach), out.dtype)
        low = found[..., : own.start] if own.start else none
        high = found[..., own.stop :] if found.shape[-1] > own.stop else none
        before, after = self._swap(low, high)
        out[..., :reach] += before
        out[..., self.width - reach :] += after
        return out

    def _swap(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the ranks before and after have for this one, zeros where there are none."""
        before, after = np.zeros((2, *low.shape), low.dtype)
        self.exchange.swap(
            *(np.ascontiguousarray(values).reshape(-1) for values in (low, high)),
            *(values.reshape(-1) for values in (before, after)),
        )
        return before, after


class PartDropout(Dropout):
    """Dropout of a block of the channels by the mask of all: the same values are dropped for any
    number of ranks.

    block: channels of a rank, as in `Gathered`.
    """

    def __init__(self, rate: float, exchange: Exchange, block: int) -> None:
        super().__init__(rate)
        self.exchange, self.block = exchange, block

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        super().allocate(rows, dtype, workspace, first)
        self.masks = empty((rows, self.width * self.exchange.ranks), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        if not step.training:
            return inputs
        rows, points = len(inputs), self.width // self.block
        masks = self.masks[:rows]
        masks[...] = 1
        dropout.dropout_gradient(masks, self.rate, self._key(step), step.first_row)
        cut = masks.reshape(rows, points, self.exchange.ranks, self.block)
        self.mask = cut[:, :, self.exchange.rank].reshape(inputs.shape)
        out = self.outputs[:rows].reshape(inputs.shape)
        np.multiply(inputs, self.mask, out=out)
        return out

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        gradient *= self.mask
        return gradient
