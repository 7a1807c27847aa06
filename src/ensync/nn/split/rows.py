"""Layers of which every rank has all, for its own rows of a batch, before layers of which each has
a part, for all rows: convolutions have few parameters and many values, dense layers the reverse
(Krizhevsky 2014, arXiv 1404.5997).
"""

from dataclasses import replace
from math import prod

import numpy as np

from ensync.core.sharding import block
from ensync.nn.layers.base import Layer, Shape, Step, Views
from ensync.nn.memory import Workspace, empty, zeros
from ensync.nn.split.exchange import Exchange
from ensync.nn.split.layers import Around


class Rows:
    """The rows at hand, of which each rank of an exchange has a block; what the layers of a
    network have in common. total: how many all ranks have.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange, self.total = exchange, 0

    def of(self, rank: int) -> slice:
        """Return the rows of a rank."""
        return slice(*block(self.total, self.exchange.ranks, rank))

    @property
    def own(self) -> slice:
        """The rows of this rank."""
        return self.of(self.exchange.rank)

    def most(self, total: int) -> int:
        """Return the most rows that a rank has of so many."""
        return -(-total // self.exchange.ranks)


class OnRows(Around):
    """A layer on this rank's rows: the gradients of its parameters, and the statistics of a batch
    normalisation, are summed over the ranks.

    cuts: whether the inputs are all rows, of which it takes its own.
    """

    def __init__(self, inner: Layer, rows: Rows, cuts: bool) -> None:
        super().__init__(inner, rows.exchange)
        self.rows, self.cuts = rows, cuts

    def bind(self, values: Views, gradients: Views) -> None:
        self.inner.bind(values, gradients)
        self.gradients = list(gradients.values())

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.inner.allocate(self.rows.most(rows), dtype, workspace, first)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        if self.cuts:
            self.rows.total = len(inputs)
            inputs = inputs[self.rows.own]
        return self.inner.forward(inputs, self._step(step))

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        found = self.inner.backward(gradient, self._step(step))
        for own in self.gradients:
            self.exchange.sum(own.reshape(-1))
        return found

    def _step(self, step: Step) -> Step:
        """Return the step of this rank's rows."""
        before = step.allreduce

        def allreduce(vector: np.ndarray) -> None:
            self.exchange.sum(vector)
            if before is not None:
                before(vector)

        first = step.first_row + self.rows.own.start
        return replace(step, first_row=first, allreduce=allreduce)

    def describe(self) -> str:
        return f"{self.inner.describe()} (for its rows)"


class RowsGathered(Around):
    """A layer on all rows, of whose inputs each rank has its own, and finds partial sums of the
    gradients of all.
    """

    def __init__(self, inner: Layer, rows: Rows) -> None:
        super().__init__(inner, rows.exchange)
        self.rows = rows

    def build(self, shape: Shape) -> Shape:
        self.shape = shape
        return self.take(shape)

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.inner.allocate(rows, dtype, workspace, first)
        most = self.rows.most(rows)
        self.inputs = empty((rows, *self.shape), dtype)
        self.own = zeros(most * prod(self.shape), dtype)
        self.moved = zeros(self.exchange.ranks * most * prod(self.shape), dtype)

    def _room(self) -> tuple[np.ndarray, np.ndarray]:
        """Return room for as many rows as a rank has at most, for this rank `(rows, *shape)` and
        for all.
        """
        ranks, most = self.exchange.ranks, self.rows.most(self.rows.total)
        count = most * prod(self.shape)
        own = self.own[:count].reshape(most, *self.shape)
        return own, self.moved[: ranks * count].reshape(ranks, most, *self.shape)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        (own, parts), whole = self._room(), self.inputs[: self.rows.total]
        own[: len(inputs)] = inputs
        self.exchange.gather(own.reshape(-1), parts.reshape(len(parts), -1))
        for rank, part in enumerate(parts):
            rows = self.rows.of(rank)
            whole[rows] = part[: rows.stop - rows.start]
        return self.inner.forward(whole, step)

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray:
        found = self.inner.backward(gradient, step)
        own, parts = self._room()
        for rank, part in enumerate(parts):
            rows = self.rows.of(rank)
            part[: rows.stop - rows.start] = found[rows]
            part[rows.stop - rows.start :] = 0
        self.exchange.scatter(parts.reshape(len(parts), -1), own.reshape(-1))
        mine = self.rows.own
        return own[: mine.stop - mine.start]
