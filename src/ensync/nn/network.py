"""A network on one rank: layers in a row over one flat vector of parameters and one of
gradients.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from ensync.core.config.layers import WHITENING
from ensync.core.errors import EnsyncError
from ensync.core.sharding import Purpose, generator
from ensync.core.timeline import Timeline
from ensync.kernels.elementwise import activations
from ensync.nn import timing
from ensync.nn.early import Early
from ensync.nn.flat import views
from ensync.nn.initializers import BIASES_TOO, INITIALIZERS
from ensync.nn.layers.base import Layer, Parameter, Shape, Step, walk
from ensync.nn.layers.dropout import Dropout
from ensync.nn.layers.exit import Exit
from ensync.nn.loss import Loss, Partners
from ensync.nn.memory import Workspace, empty, zeros
from ensync.nn.sequential import Sequential
from ensync.nn.split.parts import Parts
from ensync.nn.step_metrics import CORRECT, LOSS_SUM, METRICS
from ensync.nn.whitening import Images, whitening

COUNTED = 1 << 24  # samples of a global batch that float32 counts exactly
AT_ONCE = 128  # rows of an evaluation, where the local batch has fewer and
BUFFERED = 1 << 22  # where so many rows do not have more values than this


class Piece(NamedTuple):
    """Some rows of a batch: inputs `(rows, features)`, valid until the next piece is asked for,
    labels int64 (rows,), their step, and what they were mixed with.
    """

    inputs: np.ndarray
    labels: np.ndarray
    step: Step
    partners: Partners | None = None


@dataclass(frozen=True)
class NetworkOptions:
    """How a network starts and computes.

    dtype: of parameters and arithmetic. bf16: operands of convolutions and dense layers, and
    what lies between layers that take it, in bf16. averages_statistics: the statistics are averaged
    over the ranks after each step, with the sum of the gradient; for batch normalisation within a
    rank.
    """

    dtype: np.dtype | type = np.float32
    bf16: bool = False
    initializer: str = "auto"
    averages_statistics: bool = False


class Network:
    """Layers over flat `parameters`, `gradient` and `statistics`; buffers for at least `rows`
    samples, allocated once.

    What ranks sum in a step is one vector, the `message`: the `gradient`, and behind it the `exact`
    part, of which every digit counts: the METRICS of the step, and the rank's share of the
    statistics where `averages_statistics`. The layers share a workspace: the network's own, or
    one that its owner gives to several networks of which only one computes at a time.
    timeline: where the times of the layers are noted in steps that are recorded. parts: how this
    network is cut from the whole one, of which other ranks hold the other parts. early: of a
    network with `exits`, when images leave it in a test.
    """

    timeline: Timeline | None = None
    parts: Parts | None = None
    early: Early | None = None

    def __init__(
        self,
        layers: Sequence[Layer],
        shape: Shape,
        loss: Loss,
        rows: int,
        options: NetworkOptions = NetworkOptions(),
        workspace: Workspace | None = None,
    ) -> None:
        self.body, self.shape, self.loss = Sequential(layers), shape, loss
        self.dtype, self.initializer = np.dtype(options.dtype), options.initializer
        self.averages_statistics = options.averages_statistics
        self.workspace = workspace or Workspace()
        for layer in walk(self.layers):
            layer.bf16 = options.bf16 or None
        shape = self.body.build(shape)
        if options.bf16:
            self.body.store_bf16()
        if len(shape) != 1:
            raise EnsyncError(
                f"a network with outputs of shape {' x '.join(map(str, shape))}",
                "one row of outputs, one for each class",
                "put a flatten layer before the last",
            )
        (self.classes,) = shape
        self.exits = [layer for layer in self.layers if isinstance(layer, Exit)]
        _check_exits(self.exits, self.classes)
        self.at_once = min(AT_ONCE, BUFFERED // sum(prod(s) for s in self.shapes))
        self.rows = max(rows, self.at_once)
        self.dropouts = [layer for layer in walk(self.layers) if isinstance(layer, Dropout)]
        for number, layer in enumerate(self.dropouts):
            layer.index = number + 1
        self.layout = [(p.name, p) for p in self.body.parameters]
        _check_whitening(self.layout)
        self.statistics_layout = [(p.name, p) for p in self.body.statistics]
        self._allocate()

    @property
    def layers(self) -> list[Layer]:
        """The layers of the body."""
        return self.body.layers

    @property
    def shapes(self) -> list[Shape]:
        """The shape of each layer's outputs."""
        return self.body.shapes

    def _allocate(self) -> None:
        size = sum(p.size for _, p in self.layout)
        self.parameters = zeros(size, self.dtype)
        self.statistics = np.zeros(sum(p.size for _, p in self.statistics_layout), self.dtype)
        self.bind_message(
            zeros(size + METRICS + self.averages_statistics * len(self.statistics), self.dtype)
        )
        self.body.allocate(self.rows, self.dtype, self.workspace, first=True)
        self.inputs = empty((self.rows, prod(self.shape)), self.dtype)
        self.scores = empty((self.rows, self.classes), self.dtype)
        self.outputs_gradient = empty((self.rows, self.classes), self.dtype)

    @property
    def synchronizes_statistics(self) -> bool:
        """Whether there is batch normalisation over the rows of all ranks, which sums within the
        forward and the backward pass.
        """
        return len(self.statistics) > 0 and not self.averages_statistics

    @property
    def normalizes(self) -> bool:
        """Whether there are statistics, on this rank or on another that holds a part."""
        size = len(self.statistics) if self.parts is None else self.parts.statistics.size
        return size > 0

    def bind_message(self, message: np.ndarray) -> None:
        """Let the message lie in this vector (as long as the one before), such as memory in
        which ranks sum fast.
        """
        self.message, size = message, len(self.parameters)
        self.gradient, self.exact = message[:size], message[size:]
        self.metrics, self.statistics_share = self.exact[:METRICS], self.exact[METRICS:]
        self._bind(self.body)

    def _bind(self, body: Sequential) -> None:
        """Give layers views of the flat vectors."""
        values = {
            **views(self.parameters, self.layout),
            **views(self.statistics, self.statistics_layout),
        }
        body.bind(values, views(self.gradient, self.layout))

    def bind_parameters(self, parameters: np.ndarray) -> None:
        """Take the parameters from now on from this array of their length, such as memory that
        other ranks can reach, with the values that it has.
        """
        self.parameters = parameters
        self.bind_message(self.message)

    def initialize(
        self, seed: int, member: int = 0, images: Callable[[], Images] | None = None
    ) -> None:
        """Draw the start values; every array has a stream of its own from (seed, member, its
        number).

        images: the training images, for filters that whiten them.
        """
        first = 0 if self.parts is None else self.parts.first
        arrays = views(self.parameters, self.layout)
        for index, (name, view) in enumerate(arrays.items(), first):
            cut = None if self.parts is None else self.parts.parameters.each[name]
            parameter = self.layout[index][1] if cut is None else cut.whole
            if parameter.initializer == WHITENING:
                assert images is not None, "whitening filters are made of the training images"
                height, width, channels, filters = parameter.shape
                values = whitening(images(), (height, width, channels, filters))
            else:
                values = self._start(generator(seed, Purpose.INITIAL, member, index), parameter)
            if self.parts is not None and cut is not None:
                values = cut.own(values, self.parts.rank).reshape(view.shape)
            view[...] = values
        for view, (_, parameter) in zip(
            views(self.statistics, self.statistics_layout).values(),
            self.statistics_layout,
            strict=True,
        ):
            view[...] = 1.0 if parameter.start == "ones" else 0.0

    def _start(self, random: np.random.Generator, p: Parameter) -> np.ndarray:
        name = p.initializer or self.initializer
        if p.start == "weights" or (p.start == "bias" and name in BIASES_TOO):
            if name == "auto":
                name = "he_normal" if p.before in ("relu", "gelu") else "glorot_uniform"
            return INITIALIZERS[name](random, p.shape, p.fan_in, p.fan_out)
        return np.full(p.shape, 1.0 if p.start == "ones" else 0.0)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        """Return the outputs `(rows, classes)` (logits under cross-entropy) of inputs `(rows,
        features)`.
        """
        images = inputs.reshape(inputs.shape[0], *self.shape)
        if self.early is not None and self.early.threshold is not None and not step.training:
            outputs = np.empty((len(images), self.classes), self.dtype)
            return self.early.forward(self.layers, images, outputs)
        if self.timeline is not None and self.timeline.on:
            return timing.forward(self.layers, images, step, self.timeline)
        return self.body.forward(images, step)

    def accumulate(self, pieces: Iterable[Piece], count: int, global_batch: int) -> None:
        """Fill the message with the sums over some pieces of a batch, `count` of them, each as
        `backward` finds it.
        """
        total = None
        for piece in pieces:
            self.backward(piece.inputs, piece.labels, global_batch, piece.step, piece.partners)
            if count > 1:
                total = added(total, self.message)
        if total is not None:
            self.message[:] = total

    def backward(
        self,
        inputs: np.ndarray,
        labels: np.ndarray,
        global_batch: int,
        step: Step,
        partners: Partners | None = None,
    ) -> None:
        """Fill the message: the gradient of the loss summed over these rows and divided by the
        global batch, loss sum and correct count. partners: what mixed inputs have besides.
        """
        if len(labels) == 0 and step.allreduce is None:
            self.message[:] = 0.0
            return
        outputs = self.forward(inputs, step)
        gradient = self.outputs_gradient[: len(labels)]
        loss_sum, correct = self.loss.of_mixed(
            outputs, labels, partners, 1.0 / global_batch, gradient
        )
        for exit_ in self.exits:
            loss, _ = self.loss.of_mixed(
                exit_.logits,
                labels,
                partners,
                exit_.weight / global_batch,
                exit_.gradient[: len(labels)],
            )
            loss_sum += exit_.weight * loss
        self.metrics[:] = 0.0
        self.metrics[LOSS_SUM], self.metrics[CORRECT] = loss_sum, correct
        after_layer = step.after_layer if len(labels) else None
        if self.timeline is not None and self.timeline.on:
            timing.backward(self.layers, gradient, step, self.timeline, after_layer)
        elif after_layer is not None:
            for number in range(len(self.layers) - 1, -1, -1):
                gradient = self.layers[number].backward(gradient, step)
                after_layer(number)
        else:
            self.body.backward(gradient, step)
        if len(labels) == 0:  # this rank only took part in the sums of the batch normalisations
            self.message[:] = 0.0

    def evaluate(self, inputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float, int]:
        """Return scores `(rows, classes)`, loss sum and correct count of inputs `(rows,
        features)`, as `judge` does.
        """
        return self.judge(self.forward(inputs, Step()), labels)

    def judge(self, outputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float, int]:
        """Return scores `(rows, classes)`, as `score` does, loss sum and correct count of outputs
        `(rows, classes)`.
        """
        loss_sum, correct = self.loss.of(outputs, labels, 1.0, self.outputs_gradient[: len(labels)])
        return self.score(outputs), loss_sum, correct

    def score(self, outputs: np.ndarray) -> np.ndarray:
        """Return scores `(rows, classes)` of outputs `(rows, classes)`: probabilities under
        cross-entropy, else the outputs; valid until the next call.
        """
        scores = self.scores[: len(outputs)]
        if self.loss.is_cross_entropy:
            activations.softmax(outputs, scores)
        else:
            scores[:] = outputs
        return scores

    def outputs_of(self, scores: np.ndarray) -> np.ndarray:
        """Return outputs `(rows, classes)` that have these scores: under cross-entropy logarithms
        of the probabilities.
        """
        if not self.loss.is_cross_entropy:
            return scores
        least = np.finfo(self.dtype).tiny  # whose logarithm is finite
        found: np.ndarray = np.log(np.maximum(scores, least))
        return found


def _check_exits(exits: Sequence[Exit], classes: int) -> None:
    """Refuse an exit that does not answer as the network does."""
    for each in exits:
        if each.classes != classes:
            raise EnsyncError(
                f"an exit with {each.classes} outputs for {classes} classes",
                "one output for each class",
                "leave the units of its last dense layer out",
            )


def added(total: np.ndarray | None, vector: np.ndarray) -> np.ndarray:
    """Return the total with a vector added to it in place; of the first, a copy."""
    return vector.copy() if total is None else np.add(total, vector, out=total)


def _check_whitening(layout: Sequence[tuple[str, Parameter]]) -> None:
    """Refuse whitening filters on other inputs than the images."""
    for name, parameter in layout:
        *numbers, _ = name.split(".")
        if parameter.initializer == WHITENING and set(numbers) != {"0"}:
            raise EnsyncError(
                f"initializer = 'whitening' of layer {'.'.join(numbers)}",
                "the first layer, number 0, whose inputs are the images",
                "leave it out there",
            )
