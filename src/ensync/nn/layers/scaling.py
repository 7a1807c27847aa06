"""A constant factor."""

import numpy as np

from ensync.nn.layers.base import Layer, Shape, Step
from ensync.nn.memory import Workspace, empty


class Scaling(Layer):
    """outputs = factor * inputs."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def build(self, shape: Shape) -> Shape:
        self.shape = shape
        return shape

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.outputs = empty((rows, *self.shape), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        current = self.outputs[: len(inputs)]
        np.multiply(inputs, self.factor, out=current)
        return current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray:
        gradient *= self.factor
        return gradient

    def describe(self) -> str:
        return f"Scaling by {self.factor:.4g}"
