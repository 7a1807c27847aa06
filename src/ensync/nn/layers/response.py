"""Local response normalisation."""

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.kernels.elementwise import response
from ensync.nn.layers.base import Layer, Shape, Step
from ensync.nn.memory import Workspace, empty


class LocalResponseNormalization(Layer):
    """outputs = inputs / (k + alpha * sum of squares over n neighbouring channels) ** beta
    (Krizhevsky et al. 2012), within each of `groups` blocks of channels.
    """

    def __init__(
        self,
        k: float = 2.0,
        n: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        groups: int = 1,
    ) -> None:
        self.k, self.n, self.alpha, self.beta, self.groups = k, n, alpha, beta, groups

    def build(self, shape: Shape) -> Shape:
        self.shape, self.width = shape, shape[-1] // self.groups
        if shape[-1] % self.groups:
            raise EnsyncError(
                f"a local response normalisation of {shape[-1]} channels in {self.groups} groups",
                "a number of groups that divides the channels",
                "change groups",
            )
        return shape

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.workspace = workspace
        self.outputs, self.inputs_gradient = (
            empty((rows, *self.shape), dtype),
            empty((rows, *self.shape), dtype),
        )
        workspace.reserve(
            response.scratch_size(self.width, self.n, np.dtype(dtype).itemsize), dtype
        )

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        c, current = self.width, self.outputs[: len(inputs)]
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
        c, out = self.width, self.inputs_gradient[: len(gradient)]
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
        return "Local response normalization" + f", {self.groups} groups" * (self.groups > 1)
