"""What layers that are made of layers have in common."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from ensync.nn.layers.base import Layer, Parameter, Shape, Views

T = TypeVar("T")


def deal(layers: Sequence[T], values: Views, gradients: Views) -> Iterator[tuple[T, Views, Views]]:
    """Yield each layer with its own views of values and gradients; the views of all are named
    "3.weights", "0.2.gamma".
    """
    own: list[tuple[Views, Views]] = [({}, {}) for _ in layers]
    for kind, views in enumerate((values, gradients)):
        for name, view in views.items():
            number, _, rest = name.partition(".")
            own[int(number)][kind][rest] = view
    for layer, (value, gradient) in zip(layers, own, strict=True):
        yield layer, value, gradient


def numbered(owned: Sequence[tuple[Parameter, ...]]) -> tuple[Parameter, ...]:
    """Return the parameters or statistics of all layers, each named after the number of its layer:
    "3.weights".
    """
    return tuple(replace(p, name=f"{i}.{p.name}") for i, own in enumerate(owned) for p in own)


def store_bf16_between(layers: Sequence[Layer]) -> None:
    """Store arrays between two layers that both take bf16 as bf16."""
    for left, right in pairwise(layers):
        left.bf16_outputs = right.bf16_inputs = left.writes_bf16 and right.reads_bf16


class Composite(Layer):
    """Layers seen as one: their parameters and statistics are its own.

    layers: all of them; shapes: of the outputs of each, since `build`.
    """

    layers: list[Layer]
    shapes: list[Shape]

    def declare(self) -> None:
        """Set parameters and statistics, when all layers are built."""
        self.parameters = numbered([layer.parameters for layer in self.layers])
        self.statistics = numbered([layer.statistics for layer in self.layers])

    def bind(self, values: Views, gradients: Views) -> None:
        for layer, own, inner in deal(self.layers, values, gradients):
            layer.bind(own, inner)

    def store_bf16(self) -> None:
        """Store arrays inside these layers as bf16 where both sides take it. Call it between
        `build` and `allocate`.
        """
        for layer in self.layers:
            if isinstance(layer, Composite):
                layer.store_bf16()

    def operations(self, shape: Shape) -> int:
        return sum(
            layer.operations(inner) for layer, inner in zip(self.layers, self.shapes, strict=True)
        )

    def inside(self) -> list[tuple[str, Layer, Shape]]:
        return [("", layer, inner) for layer, inner in zip(self.layers, self.shapes, strict=True)]
