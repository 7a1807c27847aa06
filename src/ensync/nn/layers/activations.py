"""Activations that are layers of their own."""

import numpy as np

from ensync.kernels.elementwise import activations
from ensync.nn.layers.base import Layer, Shape, Step
from ensync.nn.memory import Workspace, empty


class Softmax(Layer):
    """outputs = exp(inputs) / sum of exp(inputs), for networks trained with a squared error."""

    def build(self, shape: Shape) -> Shape:
        self.width = shape[0]
        return shape

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.outputs = empty((rows, self.width), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.current = self.outputs[: inputs.shape[0]]
        activations.softmax(inputs, self.current)
        return self.current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        activations.softmax_gradient(self.current, gradient)
        return gradient
