"""Which layers of a network the stages of a pipeline hold, and how whole vectors are cut by them.

A network of a stage has as many layers as the whole one, of which those of other stages are
`Elsewhere`: numbers and names of layers are those of the whole network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensync.core.errors import EnsyncError, plural
from ensync.nn.layers.base import Layer, Parameter, Shape, Step
from ensync.nn.sequential import Sequential
from ensync.nn.split.exchange import Links
from ensync.nn.split.parts import Cut, Cuts, Parts


@dataclass(frozen=True)
class Stage:
    """The layers from `first` to before `stop`, how many parameters these have, and their share of
    the arithmetic of a forward pass.
    """

    first: int
    stop: int
    parameters: int
    share: float

    def __str__(self) -> str:
        last = self.stop - 1
        layers = f"layers {self.first}-{last}" if last > self.first else f"layer {last}"
        return f"{layers}, {self.parameters:,} parameters, {self.share:.0%} of the arithmetic"


def stages_of(layers: Sequence[Layer], shapes: Sequence[Shape], count: int) -> list[Stage]:
    """Cut built layers, with outputs of these shapes, into so many stages with about as much
    arithmetic each.

    A stage begins with a layer that has weights: normalisation, pooling and dropout stay with the
    one before, whose outputs nobody then passes on twice as large. Errors: EnsyncError for more
    stages than such layers.
    """
    weighted = [number for number, layer in enumerate(layers) if _has_weights(layer)]
    if count > len(weighted):
        raise EnsyncError(
            f"parallel.stages = {count} for a network of "
            f"{plural(len(weighted), 'layer')} with weights",
            "a layer with weights for each stage",
            f"set parallel.stages = {max(len(weighted), 1)}",
        )
    starts = [0, *weighted[1:], len(layers)]
    costs = [layer.operations(shape) for layer, shape in zip(layers, shapes, strict=True)]
    pieces = [sum(costs[a:b]) for a, b in zip(starts, starts[1:], strict=False)]
    borders = [starts[place] for place in [*balanced(pieces, count), len(pieces)]]
    whole = max(sum(costs), 1)
    return [
        Stage(a, b, sum(p.size for x in layers[a:b] for p in x.parameters), sum(costs[a:b]) / whole)
        for a, b in zip(borders, borders[1:], strict=False)
    ]


def _has_weights(layer: Layer) -> bool:
    return any(parameter.start == "weights" for parameter in layer.parameters)


def balanced(costs: Sequence[int], count: int) -> list[int]:
    """Return where each of `count` neighbourhoods of costs begins, none of them empty, so that
    the largest sum is as small as can be.
    """
    sums = np.concatenate([[0], np.cumsum(costs)]).tolist()
    # best[i]: of the first i costs in so many parts, the largest sum, the sum of all squares, and
    # where the parts begin
    best = {0: (0, 0, [0] * 0)}
    for parts in range(1, count + 1):
        found = {}
        for stop in range(parts, len(costs) - (count - parts) + 1):
            found[stop] = min(
                (max(most, own := sums[stop] - sums[start]), squares + own**2, [*begins, start])
                for start, (most, squares, begins) in best.items()
                if start < stop
            )
        best = found
    return best[len(costs)][2]


class Elsewhere(Layer):
    """A layer that another stage holds."""

    def __init__(self, layer: Layer, outputs: Shape) -> None:
        self.layer, self.outputs = layer, outputs

    def build(self, shape: Shape) -> Shape:
        return self.outputs

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        raise AssertionError("another stage has this layer")

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray:
        raise AssertionError("another stage has this layer")

    def describe(self) -> str:
        return self.layer.describe()


class StageCuts(Cuts):
    """How a flat vector is cut into those of the stages, one after the other."""

    def __init__(self, whole: Sequence[Parameter], part: Sequence[Parameter]) -> None:
        self.each = {own.name: Cut(own, 1, 1, own.size, 1) for own in part}
        self.size = sum(parameter.size for parameter in whole)
        names = [parameter.name for parameter in whole]
        self.first = names.index(part[0].name) if part else len(names)
        self.start = sum(parameter.size for parameter in whole[: self.first])
        self.stop = self.start + sum(own.size for own in part)

    def everywhere(self, own: np.ndarray) -> list[np.ndarray]:
        """Return nothing: every array is on one rank."""
        return []

    def own(self, values: np.ndarray, rank: int) -> np.ndarray:
        """Return the part of a stage of a whole vector. One of another size is returned as it
        is.
        """
        return values[self.start : self.stop] if values.shape == (self.size,) else values

    def joined(self, parts: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the whole vector of all stages' parts."""
        return np.concatenate(parts)


class StageParts(Parts):
    """How the vectors of a network are cut into those of its stages.

    stages: all of them.
    """

    def __init__(
        self, whole: Sequential, part: Sequential, stages: Sequence[Stage], links: Links
    ) -> None:
        parameters = StageCuts(whole.parameters, part.parameters)
        statistics = StageCuts(whole.statistics, part.statistics)
        super().__init__(parameters, statistics, whole.shapes, links)
        self.first, self.stages = parameters.first, stages
