"""Local response normalisation."""

import numpy as np

from ensync.kernels.elementwise import response
from ensync.nn.layers.base import Layer, Shape, Step
from ensync.nn.memory import Workspace, empty


class LocalResponseNormalization(Layer):
    """outputs = inputs / (k + alpha * sum of squares over n neighbouring channels) ** beta
    (Krizhevsky et al. 2012).
    """

    def __init__(self, k: float = 2.0, n: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> None:
        self.k, self.n, self.alpha, self.beta = k, n, alpha, beta

    def build(self, shape: Shape) -> Shape:
        self.shape = shape
        return shape

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.workspace = workspace
        self.outputs, self.inputs_gradient = (
            empty((rows, *self.shape), dtype),
            empty((rows, *self.shape), dtype),
        )
        workspace.reserve(
            response.scratch_size(self.shape[-1], self.n, np.dtype(dtype).itemsize), dtype
        )

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        c, current = self.shape[-1], self.outputs[: len(inputs)]
        self.inputs = inputs.reshape(-1, c)
        response.response_forward(
            self.inputs,
            self.k,
            self.n,
            self.alpha,
            self.beta,
            self.workspace.of(inputs.dtype),
            current.reshape(-1, c),
        )
        return current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        c, out = self.shape[-1], self.inputs_gradient[: len(gradient)]
        response.response_backward(
            gradient.reshape(-1, c),
            self.inputs,
            self.k,
            self.n,
            self.alpha,
            self.beta,
            self.workspace.of(gradient.dtype),
            out.reshape(-1, c),
        )
        return out

    def operations(self, shape: Shape) -> int:
        return (self.n + 2) * int(np.prod(shape))

    def describe(self) -> str:
        return "Local response normalization"
