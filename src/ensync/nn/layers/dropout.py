"""Dropout."""

from math import prod

import numpy as np

from ensync.kernels.elementwise import dropout
from ensync.nn.layers.base import Layer, Shape, Step
from ensync.nn.memory import Workspace, empty


class Dropout(Layer):
    """Zero a share `rate` of the values while training and scale the others by 1 / (1 - rate)
    (Srivastava et al. 2014, inverted).
    """

    def __init__(self, rate: float, index: int = 0) -> None:
        self.rate, self.index = (
            rate,
            index,
            # index: this layer's number among the network's dropouts, which it sets, so that two
            # differ
        )

    def build(self, shape: Shape) -> Shape:
        self.width = prod(shape)
        return shape

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.outputs = empty((rows, self.width), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        if not step.training:
            return inputs
        rows = inputs.shape[0]
        dropout.dropout(
            inputs.reshape(rows, self.width),
            self.rate,
            self._key(step),
            step.first_row,
            self.outputs[:rows],
        )
        return self.outputs[:rows].reshape(inputs.shape)

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        flat = gradient.reshape(gradient.shape[0], self.width)
        dropout.dropout_gradient(flat, self.rate, self._key(step), step.first_row)
        return gradient

    def _key(self, step: Step) -> np.uint64:
        return np.uint64((step.key + 0x9E3779B97F4A7C15 * self.index) & 0xFFFFFFFFFFFFFFFF)

    def describe(self) -> str:
        return f"Dropout {self.rate:g}"
