"""Activations that are layers of their own, and what layers with an activation have in common."""

import numpy as np

from ensync.kernels.elementwise import activations
from ensync.kernels.elementwise.gelu import gelu
from ensync.nn.layers.base import Layer, Shape, Step
from ensync.nn.memory import Workspace, empty


class Activated:
    """The activation behind the sums of a layer, and the array that its slope is a function of.

    That is the outputs, which a kernel may activate on the way. Of GELU it is the sums, so that
    the outputs are another array.
    """

    def __init__(self, activation: str) -> None:
        self.name, self.code = activation, activations.ACTIVATIONS[activation]
        self.keeps_sums = self.code == activations.GELU
        self.in_kernel = activations.IDENTITY if self.keeps_sums else self.code

    def allocate(self, shape: Shape, dtype: np.dtype, sums: bool = True) -> None:
        """Make the array that a kernel writes, `(rows, *)`, and the outputs where they are another.

        sums: whether the first is needed: a layer may have the sums elsewhere.
        """
        self.sums = empty(shape if sums else (0, *shape[1:]), dtype)
        self.outputs = empty(shape, dtype) if self.keeps_sums else self.sums

    def finish(self, kept: np.ndarray) -> np.ndarray:
        """Return the outputs, given the first rows of `sums` behind the activation `in_kernel`."""
        if not self.keeps_sums:
            return kept
        outputs = self.outputs[: len(kept)]
        gelu(kept, outputs)
        return outputs


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
