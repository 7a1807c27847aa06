"""Fully connected layers."""

from math import prod

import numpy as np

from ensync.kernels.dense import matmul
from ensync.kernels.elementwise import activations
from ensync.nn.layers.base import Layer, Parameter, Shape, Step
from ensync.nn.memory import Workspace, empty


class Dense(Layer):
    """outputs = activation(inputs @ weights + bias), with weights `(inputs, units)`.

    An image counts as one row, as after a flatten.
    """

    given: Shape = ()

    def __init__(self, units: int, activation: str = "identity") -> None:
        self.units, self.activation = units, activation
        self.code = activations.ACTIVATIONS[activation]

    def build(self, shape: Shape) -> Shape:
        self.given, width = shape, prod(shape)
        self.width = width
        self.parameters = (
            Parameter("weights", (width, self.units), width, self.units, before=self.activation),
            Parameter("bias", (self.units,), width, self.units, "bias"),
        )
        return (self.units,)

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        self.weights, self.bias = values["weights"], values["bias"]
        self.weights_gradient, self.bias_gradient = gradients["weights"], gradients["bias"]

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.outputs = empty((rows, self.units), dtype)
        self.inputs_gradient = None if first else empty((rows, self.width), dtype)
        self.scratch = empty(matmul.packing_size(rows, self.width, self.units), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        rows = inputs.shape[0]
        self.inputs, self.current = inputs.reshape(rows, self.width), self.outputs[:rows]
        matmul.dense_forward(
            self.inputs, self.weights, self.bias, self.code, self.current, self.scratch
        )
        return self.current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        if self.code:
            activations.activation_gradient(self.code, self.current, gradient)
        matmul.dense_weight_gradient(
            self.inputs, gradient, self.weights_gradient, self.bias_gradient, self.scratch
        )
        if self.inputs_gradient is None:
            return None
        out = self.inputs_gradient[: gradient.shape[0]]
        matmul.dense_input_gradient(gradient, self.weights, out, self.scratch)
        return out.reshape(len(out), *self.given)

    def operations(self, shape: Shape) -> int:
        return self.width * self.units

    def describe(self) -> str:
        return (
            ("Flatten, dense" if len(self.given) > 1 else "Dense")
            + f" {self.units}"
            + (f", {self.activation}" if self.code else "")
        )
