"""A network whose layers lie on several ranks, one stage after the other, through which the parts
of a batch go one behind the other (a pipeline).

Each stage computes forward parts until the last stage has one, then one back and one forward in
turn, then what is left back: one-forward-one-backward (Narayanan et al. 2021, arXiv 2104.04473,
section 2.2.1). So a stage keeps the values of as many parts as there are stages from it to the
last, however many parts a batch has. Gradients are added up in the order of the parts.
"""

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from time import perf_counter
from typing import NamedTuple

import numpy as np

from ensync.core.timeline import Kind
from ensync.nn.layers.base import Layer, Shape, Step, walk
from ensync.nn.layers.dropout import Dropout
from ensync.nn.loss import Loss, Partners
from ensync.nn.memory import Workspace, empty
from ensync.nn.network import Network, NetworkOptions, Piece, added
from ensync.nn.sequential import Sequential
from ensync.nn.split.exchange import Links
from ensync.nn.split.stages import Elsewhere, StageParts, stages_of


def one_forward_one_backward(stage: int, stages: int, count: int) -> Iterator[tuple[bool, int]]:
    """Yield in its order what a stage does with `count` parts of a batch: whether it is forward,
    and the part.
    """
    ahead = min(stages - 1 - stage, count)
    for number in range(ahead):
        yield True, number
    for number in range(count - ahead):
        yield True, ahead + number
        yield False, number
    for number in range(count - ahead, count):
        yield False, number


class Plan(NamedTuple):
    """What a stage is made of: all layers of the network, the number of parts of a batch, and the
    links with the other stages.
    """

    layers: Sequence[Layer]
    micro_batches: int
    links: Links


class Slot(NamedTuple):
    """The stage's layers with buffers of their own, for a part that is on its way, and its inputs
    `(rows, *shape)`.
    """

    layers: Sequence[Layer]
    inputs: np.ndarray


class Flight(NamedTuple):
    """A part on its way from forward to back: what it is, where, and its outputs here."""

    piece: Piece
    slot: Slot
    outputs: np.ndarray


class StageNetwork(Network):
    """One stage of a network: its layers, and of the flat vectors what belongs to them.

    All stages make the same calls with the same rows. The first one takes the inputs, the last one
    the labels, and all get the outputs, and the metrics of a step. Layers do not know of it: there
    are as many copies of them, over the same parameters, as parts may be on their way.
    """

    def __init__(
        self,
        plan: Plan,
        shape: Shape,
        loss: Loss,
        rows: int,
        options: NetworkOptions,
        workspace: Workspace | None = None,
    ) -> None:
        whole, self.links = Sequential(plan.layers), plan.links
        whole.build(shape)
        dropouts = [layer for layer in walk(plan.layers) if isinstance(layer, Dropout)]
        for number, layer in enumerate(dropouts):
            layer.index = number + 1
        stages = stages_of(plan.layers, whole.shapes, plan.links.ranks)
        self.stage, self.micro_batches = stages[plan.links.rank], plan.micro_batches
        own = slice(self.stage.first, self.stage.stop)
        ahead = min(plan.links.ranks - plan.links.rank, plan.micro_batches) - 1
        copies = [deepcopy(plan.layers[own]) for _ in range(ahead)]
        self.bodies: list[Sequential] = []
        layers = self._around(plan.layers[own], whole)
        super().__init__(layers, shape, loss, rows, options, workspace)
        self.parts = StageParts(whole, self.body, stages, plan.links)
        for number, layer in enumerate(dropouts):
            layer.index = number + 1
        self.given = (shape, *whole.shapes)[own.start]
        self.handed = whole.shapes[own.stop - 1]
        self.slots = [Slot(self.layers[own], empty((self.rows, *self.given), self.dtype))]
        for copy in copies:
            self.bodies.append(self._copy(self._around(copy, whole), rows, options))
            inputs = empty((rows, *self.given), self.dtype)
            self.slots.append(Slot(self.bodies[-1].layers[own], inputs))
        self.bind_message(self.message)
        self.outputs = empty((self.rows, self.classes), self.dtype)
        self.received = empty((0 if self.is_last else rows, *self.handed), self.dtype)

    def _around(self, own: Sequence[Layer], whole: Sequential) -> list[Layer]:
        """Return as many layers as the whole network has, with these in the stage's place."""
        found: list[Layer] = [
            Elsewhere(layer, shape) for layer, shape in zip(whole.layers, whole.shapes, strict=True)
        ]
        found[self.stage.first : self.stage.stop] = own
        return found

    def _copy(self, layers: Sequence[Layer], rows: int, options: NetworkOptions) -> Sequential:
        """Return layers that are built, with buffers of their own for so many rows."""
        for layer in walk(layers):
            layer.bf16 = options.bf16 or None
        body = Sequential(layers)
        body.build(self.shape)
        if options.bf16:
            body.store_bf16()
        self._bind(body)
        body.allocate(rows, self.dtype, self.workspace, first=True)
        return body

    @property
    def is_first(self) -> bool:
        """Whether this stage takes the images."""
        return self.links.rank == 0

    @property
    def is_last(self) -> bool:
        """Whether this stage computes the loss."""
        return self.links.rank == self.links.ranks - 1

    def bind_message(self, message: np.ndarray) -> None:
        super().bind_message(message)
        for body in self.bodies:
            self._bind(body)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        """Return the outputs `(rows, classes)` of inputs `(rows, features)`, the same on all
        stages. Collective over them. In parts, but for what batch normalisation takes together.
        """
        rows, slot = len(inputs), self.slots[0]
        outputs = self.outputs[:rows]
        at_once = rows if step.training else -(-rows // self.micro_batches)
        for first in range(0, rows, at_once) if rows else (0,) if step.allreduce else ():
            part = slice(first, first + at_once)
            found = self._ahead(inputs[part], slot, step)
            if self.is_last:
                outputs[part] = found
        self.links.finish()
        self.links.from_last(outputs)
        return outputs

    def backward(
        self,
        inputs: np.ndarray,
        labels: np.ndarray,
        global_batch: int,
        step: Step,
        partners: Partners | None = None,
    ) -> None:
        """Fill the message of this stage, of rows that all stages have. Collective over them."""
        self.accumulate([Piece(inputs, labels, step, partners)], 1, global_batch)

    def accumulate(self, pieces: Iterable[Piece], count: int, global_batch: int) -> None:
        """Fill the message of this stage with the sums over some pieces of a batch. Collective
        over the stages.
        """
        total, given = None, iter(pieces)
        flying: dict[int, Flight] = {}
        for ahead, number in one_forward_one_backward(self.links.rank, self.links.ranks, count):
            if ahead:
                slot = self.slots[number % len(self.slots)]
                flying[number] = self._begin(next(given), slot)
                continue
            self._end(flying.pop(number), global_batch)
            if count > 1:
                total = added(total, self.message)
        if total is not None:
            self.message[:] = total
        self.links.finish()
        self.links.from_last(self.metrics)

    def _begin(self, piece: Piece, slot: Slot) -> Flight:
        """Take a piece forward through this stage."""
        if not len(piece.labels) and piece.step.allreduce is None:
            return Flight(piece, slot, self.outputs[:0])
        return Flight(piece, slot, self._ahead(piece.inputs, slot, piece.step))

    def _ahead(self, images: np.ndarray, slot: Slot, step: Step) -> np.ndarray:
        """Take rows forward, from the images or the stage before, and hand the outputs on."""
        values = slot.inputs[: len(images)]
        if self.is_first:
            values[...] = images.reshape(values.shape)
        elif len(values):
            self.links.receive(values, self.links.rank - 1)
        for number, layer in enumerate(slot.layers, self.stage.first):
            start = perf_counter()
            values = layer.forward(values, step)
            self._note(Kind.FORWARD, start, number)
        if not self.is_last and len(values):
            self.links.send(values, self.links.rank + 1)
        return values

    def _end(self, flight: Flight, global_batch: int) -> None:
        """Take a piece back through this stage, and fill the message."""
        piece, rows = flight.piece, len(flight.piece.labels)
        if not rows and piece.step.allreduce is None:
            self.message[:] = 0.0
            return
        self.metrics[:] = 0.0
        if self.is_last:
            gradient = self.outputs_gradient[:rows]
            self.metrics[:2] = self.loss.of_mixed(
                flight.outputs, piece.labels, piece.partners, 1.0 / global_batch, gradient
            )
        else:
            gradient = self.received[:rows]
            if rows:
                self.links.receive(gradient, self.links.rank + 1)
        for number in reversed(range(self.stage.first, self.stage.stop)):
            start = perf_counter()
            layer = flight.slot.layers[number - self.stage.first]
            gradient = layer.backward(gradient, piece.step)
            self._note(Kind.BACKWARD, start, number)
        if not self.is_first and rows:
            self.links.send(gradient, self.links.rank - 1)
        if not rows:  # this rank only took part in the sums of the batch normalisations
            self.message[:] = 0.0

    def _note(self, kind: Kind, start: float, number: int) -> None:
        """Note the time of a layer where it is wanted, and move on what is on its way."""
        if self.timeline is not None and self.timeline.on:
            self.timeline.add(kind, start, perf_counter(), number)
        self.links.look()
