"""Layers made of layers: one after the other, around a shortcut, side by side."""

from collections.abc import Sequence

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.kernels import convolution, normalization
from ensync.kernels.activations import ACTIVATIONS
from ensync.nn.layers.base import Layer, Shape, Step, deal
from ensync.nn.layers.normalization import BatchNormalization
from ensync.nn.memory import Workspace, empty
from ensync.nn.sequential import Sequential, numbered


class Residual(Sequential):
    """outputs = activation(layers(inputs) + inputs); the last layer is a batch normalisation, which
    adds and activates in its own pass.

    shortcut: layers for the inputs' way around (a projection), ending in whatever has the outputs'
    shape; none means the inputs themselves.
    """

    def __init__(
        self, layers: Sequence[Layer], activation: str = "identity", shortcut: Sequence[Layer] = ()
    ) -> None:
        last = layers[-1]
        assert isinstance(last, BatchNormalization) and not last.relu
        self.main, self.shortcut, self.relu = list(layers), list(shortcut), activation == "relu"
        self.last = last
        last.in_place = False  # the gradient goes both ways
        super().__init__([*layers, *shortcut])

    def build(self, shape: Shape) -> Shape:
        self.shapes, self.image = [], shape
        for start in (self.main, self.shortcut):
            inner = shape
            for layer in start:
                inner = layer.build(inner)
                self.shapes.append(inner)
        self.outputs_shape = self.shapes[len(self.main) - 1]
        around = self.shapes[-1] if self.shortcut else self.image
        if around != self.outputs_shape:
            raise EnsyncError(
                f"a residual sum of shapes {self.outputs_shape} and {around}",
                "one shape for both ways",
                "change the layers, or give a shortcut",
            )
        self.parameters, self.statistics = (
            numbered(self.layers, "parameters"),
            numbered(self.layers, "statistics"),
        )
        return self.outputs_shape

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        self.first = first
        for i, layer in enumerate(self.layers):
            layer.allocate(rows, dtype, first and i in (0, len(self.main)))
        Workspace.reserve(
            convolution.sums_size(
                rows * int(np.prod(self.outputs_shape[:-1])), self.outputs_shape[-1]
            ),
            dtype,
        )
        self.no_bias = np.zeros(self.outputs_shape[-1], dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        around = inputs
        for layer in self.shortcut:
            around = layer.forward(around, step)
        for layer in self.main[:-1]:
            inputs = layer.forward(inputs, step)
        self.current = self.last.forward(inputs, step, around, self.relu)
        return self.current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        if self.relu:
            convolution.close_activation(
                ACTIVATIONS["relu"],
                self.current,
                gradient,
                Workspace.of(gradient.dtype),
                self.no_bias,
            )
        around, inner = gradient, gradient
        for layer in reversed(self.main):
            inner = layer.backward(inner, step)
        for layer in reversed(self.shortcut):
            around = layer.backward(around, step)
        if (
            self.first
        ):  # either way may begin with a layer that has a gradient for its inputs all the same
            return None
        normalization.add(around.reshape(-1, around.shape[-1]), inner.reshape(-1, inner.shape[-1]))
        return inner

    def describe(self) -> str:
        return "Residual sum" + ", relu" * self.relu

    def inside(self) -> list[tuple[str, Layer, Shape]]:
        return [
            ("shortcut: " * (i >= len(self.main)), layer, inner)
            for i, (_, layer, inner) in enumerate(super().inside())
        ]


class Parallel(Layer):
    """outputs = the outputs of several branches on the same inputs, side by side in the
    channels.
    """

    def __init__(self, branches: Sequence[Layer]) -> None:
        self.layers = list(branches)

    def build(self, shape: Shape) -> Shape:
        self.image, self.shapes = shape, [branch.build(shape) for branch in self.layers]
        self.parameters, self.statistics = (
            numbered(self.layers, "parameters"),
            numbered(self.layers, "statistics"),
        )
        ends = np.cumsum([inner[-1] for inner in self.shapes])
        self.parts = [
            slice(end - inner[-1], end) for end, inner in zip(ends, self.shapes, strict=True)
        ]
        if len({inner[:-1] for inner in self.shapes}) > 1:
            raise EnsyncError(
                f"parallel branches with outputs {', '.join(map(str, self.shapes))}",
                "one height and width for all",
                "change their strides or paddings",
            )
        return (*self.shapes[0][:-1], int(ends[-1]))

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        for branch, own, inner in deal(self.layers, values, gradients):
            branch.bind(own, inner)

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        for branch in self.layers:
            branch.allocate(rows, dtype, first)
        self.outputs = empty((rows, *self.shapes[0][:-1], self.parts[-1].stop), dtype)
        self.given = [empty((rows, *inner), dtype) for inner in self.shapes]
        self.inputs_gradient = None if first else empty((rows, *self.image), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        current = self.outputs[: len(inputs)]
        for branch, part in zip(self.layers, self.parts, strict=True):
            current[..., part] = branch.forward(inputs, step)
        return current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        rows = len(gradient)
        out = None if self.inputs_gradient is None else self.inputs_gradient[:rows]
        for i, (branch, part, given) in enumerate(
            zip(self.layers, self.parts, self.given, strict=True)
        ):
            given[:rows] = gradient[..., part]
            inner = branch.backward(given[:rows], step)
            if out is not None:
                np.add(out, inner, out=out) if i else np.copyto(out, inner)
        return out

    def operations(self, shape: Shape) -> int:
        return sum(
            branch.operations(inner) for branch, inner in zip(self.layers, self.shapes, strict=True)
        )

    def describe(self) -> str:
        return "Side by side"

    def inside(self) -> list[tuple[str, Layer, Shape]]:
        return [("", branch, inner) for branch, inner in zip(self.layers, self.shapes, strict=True)]
