"""Layers one after the other."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ensync.nn.layers.base import Layer, Parameter, Shape, Step, deal


def numbered(layers: Sequence[Layer], kind: str) -> tuple[Parameter, ...]:
    """Return the parameters or statistics of all layers, each name behind the number of its
    layer.
    """
    return tuple(
        replace(p, name=f"{i}.{p.name}")
        for i, layer in enumerate(layers)
        for p in getattr(layer, kind)
    )


class Sequential(Layer):
    """Layers one after the other, seen as one."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def build(self, shape: Shape) -> Shape:
        self.shapes = []
        for layer in self.layers:
            shape = layer.build(shape)
            self.shapes.append(shape)
        self.parameters, self.statistics = (
            numbered(self.layers, "parameters"),
            numbered(self.layers, "statistics"),
        )
        return shape

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        for layer, own, inner in deal(self.layers, values, gradients):
            layer.bind(own, inner)

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        for i, layer in enumerate(self.layers):
            layer.allocate(rows, dtype, first and i == 0)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        for layer in self.layers:
            inputs = layer.forward(inputs, step)
        return inputs

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient, step)
        return gradient

    def operations(self, shape: Shape) -> int:
        return sum(
            layer.operations(inner) for layer, inner in zip(self.layers, self.shapes, strict=True)
        )

    def describe(self) -> str:
        return "Branch"

    def inside(self) -> list[tuple[str, Layer, Shape]]:
        return [("", layer, inner) for layer, inner in zip(self.layers, self.shapes, strict=True)]
