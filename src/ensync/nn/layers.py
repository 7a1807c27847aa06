"""Layers: each declares its arrays, is bound to views of the network's flat vectors, and fills
buffers allocated once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np

from ensync.kernels import activations, matmul
from ensync.nn.memory import BF16, empty

Shape = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Parameter:
    """A named array of a layer: its shape, fans and following activation for the initialiser,
    and how it starts (weights, bias, zeros, ones).
    """

    name: str
    shape: Shape
    fan_in: int = 1
    fan_out: int = 1
    start: str = "weights"
    before: str = "identity"

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass
class Step:
    """What a layer may need to know of the step at hand."""

    training: bool = False
    key: int = 0  # 64 random bits of this step, the same on every rank
    first_row: int = 0  # position in the global batch of the first local row
    allreduce: Callable[[np.ndarray], None] | None = (
        None  # batch normalisation over ranks: replaces a vector by its sum over them
    )
    share: float | None = None  # of this batch in the moving statistics; None: as each layer says


class Layer:
    """One stage of a network. Shapes are without the batch axis; buffers hold up to `rows`
    samples.
    """

    parameters: tuple[Parameter, ...] = ()  # trained
    statistics: tuple[Parameter, ...] = ()  # kept, saved and averaged, not trained
    layers: Sequence["Layer"] = ()  # nested in this one
    bf16: bool | None = (
        # True: products of numbers rounded to bf16, where the layer has them, with float32 sums
        None
    )
    reads_bf16 = writes_bf16 = (
        # whether its inputs, or outputs, may lie in memory as bf16, and their gradient with them
        False
    )
    bf16_inputs = bf16_outputs = False  # whether they do, as the network says

    def build(self, shape: Shape) -> Shape:
        """Declare parameters and statistics for inputs of this shape and return the shape of the
        outputs.
        """
        raise NotImplementedError(type(self).__name__)

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        """Take views: values of parameters and statistics by name, gradients of parameters by
        name.
        """

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        """Make the buffers; `first` means that nobody asks for the gradient with respect to the
        inputs.
        """

    def stored(self, dtype: np.dtype) -> tuple[np.dtype, np.dtype]:
        """Return the types in which inputs and outputs lie in memory, and their gradients, where
        parameters are of this one.
        """
        return BF16 if self.bf16_inputs else dtype, BF16 if self.bf16_outputs else dtype

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        """Return the outputs `(rows, *shape)`, valid until the next forward."""
        raise NotImplementedError(type(self).__name__)

    # returns None where nobody asks for the gradient (`first`); who calls knows, hence Any
    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | Any:
        """Fill the parameters' gradients from the gradient of the outputs (may be overwritten);
        return that of the inputs.
        """
        raise NotImplementedError(type(self).__name__)

    def operations(self, shape: Shape) -> int:
        """Multiply-adds of the forward pass of one sample, for outputs of this shape."""
        return 0

    def describe(self) -> str:
        """The layer in a few words, for the layer table."""
        return type(self).__name__

    def inside(self) -> list[tuple[str, "Layer", Shape]]:
        """What the layer table tells of the inside: a prefix, the layer, the shape of its
        outputs.
        """
        return []


def walk(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield each layer, followed by those nested in it."""
    for layer in layers:
        yield layer
        yield from walk(layer.layers)


Views = dict[str, np.ndarray]


def deal(layers: Sequence[T], values: Views, gradients: Views) -> Iterator[tuple[T, Views, Views]]:
    """Yield each layer with its own views of values and gradients; the views of all are named
    "3.weights", "0.2.scale".
    """
    own: list[tuple[Views, Views]] = [({}, {}) for _ in layers]
    for kind, views in enumerate((values, gradients)):
        for name, view in views.items():
            number, _, rest = name.partition(".")
            own[int(number)][kind][rest] = view
    for layer, (value, gradient) in zip(layers, own, strict=True):
        yield layer, value, gradient


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

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
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


class Softmax(Layer):
    """outputs = exp(inputs) / sum of exp(inputs), for networks trained with a squared error."""

    def build(self, shape: Shape) -> Shape:
        self.width = shape[0]
        return shape

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        self.outputs = empty((rows, self.width), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.current = self.outputs[: inputs.shape[0]]
        activations.softmax(inputs, self.current)
        return self.current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        activations.softmax_gradient(self.current, gradient)
        return gradient


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

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        self.outputs = empty((rows, self.width), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        if not step.training:
            return inputs
        rows = inputs.shape[0]
        activations.dropout(
            inputs.reshape(rows, self.width),
            self.rate,
            self._key(step),
            step.first_row,
            self.outputs[:rows],
        )
        return self.outputs[:rows].reshape(inputs.shape)

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        flat = gradient.reshape(gradient.shape[0], self.width)
        activations.dropout_gradient(flat, self.rate, self._key(step), step.first_row)
        return gradient

    def _key(self, step: Step) -> np.uint64:
        return np.uint64((step.key + 0x9E3779B97F4A7C15 * self.index) & 0xFFFFFFFFFFFFFFFF)

    def describe(self) -> str:
        return f"Dropout {self.rate:g}"
