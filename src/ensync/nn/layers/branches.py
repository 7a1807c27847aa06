"""Layers side by side on the same inputs: a residual sum, and branches whose outputs are
concatenated.
"""

from collections.abc import Sequence

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.kernels.convolution import conv2d
from ensync.kernels.elementwise import normalization
from ensync.kernels.elementwise.activations import RELU
from ensync.nn.layers.activations import Activated
from ensync.nn.layers.base import Layer, Shape, Step
from ensync.nn.layers.composite import Composite, store_bf16_between
from ensync.nn.memory import Workspace, empty
from ensync.nn.sequential import Sequential


class Residual(Composite):
    """outputs = activation(layers(inputs) + inputs) (He et al. 2016).

    The last layer adds and activates in its own pass where it can (`Layer.forward_add`).
    shortcut: layers that make the added values of the inputs, such as a projection; none means the
    inputs themselves.
    """

    def __init__(
        self, layers: Sequence[Layer], activation: str = "identity", shortcut: Sequence[Layer] = ()
    ) -> None:
        assert layers, "a residual sum needs a layer"
        self.before, self.last = Sequential(layers[:-1]), layers[-1]
        self.shortcut, self.activation = Sequential(shortcut), Activated(activation)
        self.layers = [*layers, *shortcut]

    def build(self, shape: Shape) -> Shape:
        self.image, self.shape = shape, self.last.build(self.before.build(shape))
        around = self.shortcut.build(shape)
        if around != self.shape:
            raise EnsyncError(
                f"a residual sum of shapes {self.shape} and {around}",
                "one shape for both ways",
                "change the layers, or give a shortcut",
            )
        self.shapes = [*self.before.shapes, self.shape, *self.shortcut.shapes]
        self.declare()
        return self.shape

    def store_bf16(self) -> None:
        super().store_bf16()
        store_bf16_between([*self.before.layers, self.last])
        store_bf16_between(self.shortcut.layers)

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.workspace = workspace
        self.first, self.last.keep_gradient = first, self.last.may_keep_gradient
        self.before.allocate(rows, dtype, workspace, first)
        self.last.allocate(rows, dtype, workspace, first and not self.before.layers)
        self.shortcut.allocate(rows, dtype, workspace, first)
        self.activation.allocate((rows, *self.shape), dtype, not self.last.fuses_addition)
        self.copy = empty((0 if self.last.keep_gradient else rows, *self.shape), dtype)
        points, channels = int(np.prod(self.shape[:-1])), self.shape[-1]
        workspace.reserve(conv2d.sums_size(rows * points, channels), dtype)
        self.no_bias = np.zeros(channels, dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        added = self.shortcut.forward(inputs, step)
        values = self.before.forward(inputs, step)
        relu, out = self.activation.in_kernel == RELU, self.activation.sums[: len(inputs)]
        self.kept = self.last.forward_add(values, added, relu, step, out)
        return self.activation.finish(self.kept)

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        if self.activation.code:
            conv2d.close_activation(
                self.activation.code,
                self.kept,
                gradient,
                self.workspace.of(gradient.dtype),
                self.no_bias,
            )
        given = gradient
        if not self.last.keep_gradient:
            given = self.copy[: len(gradient)]
            given[...] = gradient
        inner = self.before.backward(self.last.backward(given, step), step)
        around = self.shortcut.backward(gradient, step)
        if self.first:  # some layers return a gradient of their inputs all the same
            return None
        normalization.add(around.reshape(-1, around.shape[-1]), inner.reshape(-1, inner.shape[-1]))
        return inner

    def describe(self) -> str:
        return "Residual sum" + f", {self.activation.name}" * bool(self.activation.code)

    def inside(self) -> list[tuple[str, Layer, Shape]]:
        main = len(self.layers) - len(self.shortcut.layers)
        return [
            ("shortcut: " * (i >= main), layer, inner)
            for i, (_, layer, inner) in enumerate(super().inside())
        ]


class Parallel(Composite):
    """outputs = the outputs of several branches on the same inputs, concatenated along the
    channels.
    """

    def __init__(self, branches: Sequence[Layer]) -> None:
        self.layers = list(branches)

    def build(self, shape: Shape) -> Shape:
        self.image, self.shapes = shape, [branch.build(shape) for branch in self.layers]
        self.declare()
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

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        for branch in self.layers:
            branch.allocate(rows, dtype, workspace, first)
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

    def describe(self) -> str:
        return "Concatenation"
