"""Layers one after the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ensync.nn.layers.base import Layer, Shape, Step
from ensync.nn.layers.composite import Composite, store_bf16_between
from ensync.nn.memory import Workspace


class Sequential(Composite):
    """Layers one after the other: the body of a network, or a part of it seen as one layer."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def build(self, shape: Shape) -> Shape:
        self.shapes = []
        for layer in self.layers:
            shape = layer.build(shape)
            self.shapes.append(shape)
        self.declare()
        return shape

    def store_bf16(self) -> None:
        super().store_bf16()
        store_bf16_between(self.layers)

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        for i, layer in enumerate(self.layers):
            layer.allocate(rows, dtype, workspace, first and i == 0)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        for layer in self.layers:
            inputs = layer.forward(inputs, step)
        return inputs

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | Any:
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient, step)
        return gradient

    def describe(self) -> str:
        return "Branch"
