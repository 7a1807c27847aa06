"""Fully connected layers."""

from math import prod

import numpy as np

from ensync.kernels.dense import matmul
from ensync.kernels.elementwise import activations
from ensync.nn.layers.activations import Activated
from ensync.nn.layers.base import Layer, Parameter, Shape, Step, started
from ensync.nn.memory import Workspace, empty


class Dense(Layer):
    """outputs = activation(inputs @ weights + bias), with weights `(inputs, units)`.

    An image counts as one row, as after a flatten.
    """

    given: Shape = ()

    def __init__(
        self,
        units: int,
        activation: str = "identity",
        use_bias: bool = True,
        initializer: str | None = None,
    ) -> None:
        self.units, self.activation = units, Activated(activation)
        self.use_bias, self.initializer = use_bias, initializer

    def build(self, shape: Shape) -> Shape:
        self.given, width = shape, prod(shape)
        self.width, fans = width, (width, self.units)
        weights = Parameter("weights", (width, self.units), *fans, before=self.activation.name)
        bias = Parameter("bias", (self.units,), *fans, "bias")
        self.parameters = started([weights, *[bias] * self.use_bias], self.initializer)
        return (self.units,)

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        self.weights, self.weights_gradient = values["weights"], gradients["weights"]
        no_bias, nowhere = np.zeros((2, self.units), self.weights.dtype)
        self.bias, self.bias_gradient = values.get("bias", no_bias), gradients.get("bias", nowhere)

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.activation.allocate((rows, self.units), dtype)
        self.inputs_gradient = None if first else empty((rows, self.width), dtype)
        size = matmul.packing_size(rows, self.width, self.units, self.bf16)
        self.scratch = empty(size, dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        rows = inputs.shape[0]
        self.inputs, self.kept = inputs.reshape(rows, self.width), self.activation.sums[:rows]
        code = self.activation.in_kernel
        matmul.dense_forward(
            self.inputs, self.weights, self.bias, code, self.kept, self.scratch, self.bf16
        )
        return self.activation.finish(self.kept)

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        if self.activation.code:
            activations.activation_gradient(self.activation.code, self.kept, gradient)
        matmul.dense_weight_gradient(
            self.inputs,
            gradient,
            self.weights_gradient,
            self.bias_gradient,
            self.scratch,
            self.bf16,
        )
        if self.inputs_gradient is None:
            return None
        out = self.inputs_gradient[: gradient.shape[0]]
        matmul.dense_input_gradient(gradient, self.weights, out, self.scratch, self.bf16)
        return out.reshape(len(out), *self.given)

    def operations(self, shape: Shape) -> int:
        return self.width * self.units

    def describe(self) -> str:
        return (
            ("Flatten, dense" if len(self.given) > 1 else "Dense")
            + f" {self.units}"
            + (f", {self.activation.name}" if self.activation.code else "")
        )
