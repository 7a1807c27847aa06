"""Layers: each declares its arrays, is bound to views of the network's flat vectors, and fills
buffers allocated once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np

from ensync.nn.memory import BF16

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
