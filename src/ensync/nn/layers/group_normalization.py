"""Group normalisation."""

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.kernels.elementwise.activations import ACTIVATIONS, IDENTITY, RELU
from ensync.kernels.elementwise.group_normalization import (
    GroupStatistics,
    group_normalize,
    group_normalize_backward,
    group_parameter_gradients,
)
from ensync.nn.layers.base import Layer, Parameter, Shape, Step, Views
from ensync.nn.memory import Workspace, empty


class GroupNormalization(Layer):
    """outputs = activation(gamma * (inputs - mean) / sqrt(variance + epsilon) + beta), with mean
    and variance of each group of channels of each sample (Wu and He 2018; PyTorch's GroupNorm).

    It does the same in training and in evaluation, for any number of rows and ranks.
    """

    reads_bf16 = writes_bf16 = True
    may_keep_gradient = True

    def __init__(self, groups: int, activation: str = "identity", epsilon: float = 1e-5) -> None:
        self.activation, self.code = activation, ACTIVATIONS[activation]
        self.groups, self.epsilon = groups, epsilon

    def build(self, shape: Shape) -> Shape:
        self.shape, c = shape, shape[-1]
        if c % self.groups:
            raise EnsyncError(
                f"a group normalisation of {c} channels in {self.groups} groups",
                "a number of groups that divides the channels",
                "change groups",
            )
        self.parameters = (
            Parameter("gamma", (c,), start="ones"),
            Parameter("beta", (c,), start="zeros"),
        )
        return shape

    def bind(self, values: Views, gradients: Views) -> None:
        self.gamma, self.beta = values["gamma"], values["beta"]
        self.gamma_gradient, self.beta_gradient = gradients["gamma"], gradients["beta"]

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        given, kept = self.stored(dtype)
        c = self.shape[-1]
        self.outputs = empty((rows, *self.shape), kept)
        self.inputs_gradient = (
            empty((rows, *self.shape), given) if self.keep_gradient or given != kept else None
        )
        self.no_skip = np.zeros((0, 1, c), dtype)
        self.statistics_of_rows = GroupStatistics(
            empty((rows, 3, c), dtype),
            empty((rows, 2, self.groups), np.float64),
            empty((rows, 3, c), dtype),
            empty((rows, 2, c), np.float64),
        )

    @property
    def fuses_addition(self) -> bool:  # type: ignore[override]
        """Where no activation comes before the addition."""
        return self.code == IDENTITY

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        return self._forward(inputs, self.no_skip, self.code)

    def forward_add(
        self, inputs: np.ndarray, added: np.ndarray, relu: bool, step: Step, out: np.ndarray
    ) -> np.ndarray:
        if not self.fuses_addition:
            return super().forward_add(inputs, added, relu, step, out)
        return self._forward(inputs, self._pixels(added), RELU if relu else IDENTITY)

    def _forward(self, inputs: np.ndarray, skip: np.ndarray, code: int) -> np.ndarray:
        self.values, current = self._pixels(inputs), self.outputs[: len(inputs)]
        parameters = self.gamma, self.beta, self.epsilon
        group_normalize(
            self.values, parameters, skip, code, self._statistics(), self._pixels(current)
        )
        return current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray:
        out = gradient if self.inputs_gradient is None else self.inputs_gradient[: len(gradient)]
        statistics = self._statistics()
        group_normalize_backward(
            self._pixels(gradient),
            self.values,
            self.gamma,
            self.code,
            statistics,
            self._pixels(out),
        )
        group_parameter_gradients(statistics, self.gamma_gradient, self.beta_gradient)
        return out

    def _pixels(self, array: np.ndarray) -> np.ndarray:
        """Return an array `(rows, *shape)` as `(rows, pixels, channels)`."""
        return array.reshape(len(array), int(np.prod(self.shape[:-1])), self.shape[-1])

    def _statistics(self) -> GroupStatistics:
        """Return those of the rows at hand."""
        rows = len(self.values)
        return GroupStatistics(*(array[:rows] for array in self.statistics_of_rows))

    def operations(self, shape: Shape) -> int:
        return int(np.prod(shape))

    def describe(self) -> str:
        words = [
            "Group normalization",
            f"{self.groups} groups",
            *[self.activation] * bool(self.code),
        ]
        return ", ".join(words)
