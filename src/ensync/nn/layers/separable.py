"""Separable convolutions: as two layers, and as blocks with batch normalisation computed in the
cache.
"""

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from ensync.kernels.convolution import separable
from ensync.kernels.elementwise import normalization
from ensync.nn.layers.base import Layer, Parameter, Shape, Step
from ensync.nn.layers.composite import deal, numbered
from ensync.nn.layers.convolution import Convolution, DepthwiseConvolution
from ensync.nn.layers.images import Padding, Window
from ensync.nn.layers.normalization import BatchNormalization, Options
from ensync.nn.memory import BF16, Workspace, empty
from ensync.nn.sequential import Sequential


class SeparableConvolution(Sequential):
    """A depthwise convolution without bias, then a pointwise one with bias."""

    def __init__(
        self,
        filters: int,
        size: int = 3,
        stride: int = 1,
        padding: Padding = "same",
        activation: str = "identity",
    ) -> None:
        super().__init__(
            [
                DepthwiseConvolution(size, stride, padding),
                Convolution(filters, Window(1), activation=activation),
            ]
        )
        self.size, self.filters = size, filters

    def describe(self) -> str:
        return f"Separable convolution {self.size}x{self.size}, {self.filters}"

    def inside(self) -> list[tuple[str, Layer, Shape]]:
        return []


class SeparableUnit:
    """A separable convolution and its batch normalisation inside a `SeparableBlock`: arrays and
    calls, no buffers of its own.
    """

    def __init__(self, filters: int, size: int, norm: BatchNormalization) -> None:
        self.filters, self.size, self.norm = filters, size, norm

    def build(self, shape: Shape) -> tuple[Parameter, ...]:
        """Return the parameters for images of this shape."""
        h, w, c = shape
        self.image = h, w, c
        self.norm.build((h, w, self.filters))
        taps = self.size**2
        return (
            Parameter("depthwise", (self.size, self.size, c), taps * c, taps),
            Parameter("weights", (c, self.filters), c, self.filters),
            Parameter("bias", (self.filters,), c, self.filters, "bias"),
            *self.norm.parameters,
        )

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        """Take views."""
        self.norm.bind(values, gradients)
        self.depthwise, self.weights, self.bias = (
            values[name] for name in ("depthwise", "weights", "bias")
        )
        self.depthwise_gradient, self.weights_gradient, self.bias_gradient = (
            gradients[name] for name in ("depthwise", "weights", "bias")
        )

    def allocate(
        self, rows: int, dtype: np.dtype, workspace: Workspace, given: np.dtype, kept: np.dtype
    ) -> None:
        """Make the buffers: what the convolution returns, of type `kept`, and the gradient of
        its inputs, of type `given`.
        """
        self.workspace = workspace
        h, w, c = self.image
        self.norm.allocate(0, dtype, workspace, first=False)
        self.outputs, self.inputs_gradient = (
            empty((rows, h, w, self.filters), kept),
            empty((rows, h, w, c), given),
        )
        self.partial = empty((rows, 3, max(c, self.filters)), dtype)
        self.zeros, self.no_skip = (
            np.zeros(max(c, self.filters), dtype),
            np.zeros((0, h, w, c), given),
        )
        self.as_it_is = np.repeat(
            np.array([[0], [1], [0]], dtype), c, axis=1
        )  # the affine of no normalisation
        workspace.reserve(separable.scratch_size(self.image, self.size, self.filters), dtype)

    def forward(
        self, inputs: np.ndarray, before: BatchNormalization | None, step: Step, bf16: bool | None
    ) -> np.ndarray:
        """Return the outputs before their normalisation, given x, or what `before` normalises to
        x.
        """
        rows, (h, w, _) = len(inputs), self.image
        self.inputs, self.before, self.current = inputs, before, self.outputs[:rows]
        separable.separable_forward(
            self._given(),
            self._filters(),
            self.current,
            self.norm.sums,
            self._buffers(rows, self.filters),
            bf16,
        )
        self.norm.use_sums(rows * h * w, step)
        return self.current

    def backward(
        self, gradient: np.ndarray, skip: np.ndarray | None, step: Step, bf16: bool | None
    ) -> np.ndarray:
        """Return the gradient of x, plus skip; the normalisation's gradient sums are known, and
        those of `before` become known.
        """
        rows, norm, before = len(gradient), self.norm, self.before or self.norm
        norm.use_gradient_sums(step)
        self.bias_gradient[:] = 0  # a bias that a mean over the batch takes away again
        out = self.inputs_gradient[:rows]
        separable.separable_backward(
            separable.Output(gradient, self.current, norm.affine, norm.relu, norm.coefficients),
            self._given(),
            self._filters(),
            self.no_skip if skip is None else skip,
            separable.Gradients(out, self.depthwise_gradient, self.weights_gradient),
            before.sums,
            self._buffers(rows, self.image[2]),
            bf16,
        )
        return out

    def _given(self) -> separable.Input:
        affine = self.before.affine if self.before else self.as_it_is
        return separable.Input(self.inputs, affine, self.before is not None)

    def _filters(self) -> separable.Filters:
        return separable.Filters(self.depthwise, self.zeros, self.weights, self.bias)

    def _buffers(self, rows: int, c: int) -> separable.Buffers:
        partial = self.partial.reshape(-1)[: rows * 3 * c].reshape(rows, 3, c)
        return separable.Buffers(self.workspace.of(self.zeros.dtype), partial)


class SeparableBlock(Layer):
    """Separable convolutions, each with batch normalisation and ReLU; `residual`: no last ReLU, but
    the inputs added (Xception's block).

    Computed image by image in the cache (`kernels.separable`); channels must be multiples of 32.
    options: of the batch normalisations. With bf16 products, what lies between two of its
    convolutions is bf16 too.
    """

    reads_bf16 = writes_bf16 = True

    def __init__(
        self,
        filters: Sequence[int],
        size: int = 3,
        residual: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self.residual, self.filters, self.size = residual, list(filters), size
        last = "identity" if residual else "relu"
        activations = [*["relu"] * (len(self.filters) - 1), last]
        self.units = [
            SeparableUnit(count, size, BatchNormalization(activation, **options))
            for count, activation in zip(self.filters, activations, strict=True)
        ]
        self.layers = [unit.norm for unit in self.units]

    def build(self, shape: Shape) -> Shape:
        h, w, c = shape
        parameters = []
        for unit in self.units:
            assert separable.fits((h, w, c), unit.filters, 4), "channels must be multiples of 32"
            parameters.append(unit.build((h, w, c)))
            c = unit.filters
        self.parameters = numbered(parameters)
        self.statistics = numbered([unit.norm.statistics for unit in self.units])
        self.shape = h, w, c
        return self.shape

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        for unit, own, inner in deal(self.units, values, gradients):
            unit.bind(own, inner)

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.workspace = workspace
        (given, kept), between = self.stored(dtype), BF16 if self.bf16 else dtype
        for i, unit in enumerate(self.units):
            unit.allocate(rows, dtype, workspace, between if i else given, between)
        self.outputs = empty((rows, *self.shape), kept)
        workspace.reserve(
            normalization.blocks(rows * self.shape[0] * self.shape[1]) * 3 * self.shape[2], dtype
        )

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        values, rows, c = inputs, len(inputs), self.shape[2]
        before: BatchNormalization | None = None
        for unit in self.units:
            values, before = unit.forward(values, before, step, self.bf16), unit.norm
        last = self.units[-1].norm
        skip = inputs.reshape(-1, c) if self.residual else last.no_skip
        normalization.normalize(
            values.reshape(-1, c), last.affine, skip, last.code, self.outputs[:rows].reshape(-1, c)
        )
        return self.outputs[:rows]

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        last, c, skip = self.units[-1], self.shape[2], gradient if self.residual else None
        values = last.current.reshape(-1, c)
        blocks = normalization.blocks(len(values))
        partial = self.workspace.of(last.norm.affine.dtype)[: blocks * 3 * c].reshape(blocks, 3, c)
        normalization.channel_gradient_sums(
            gradient.reshape(-1, c),
            values,
            last.norm.affine,
            last.norm.code,
            partial,
            last.norm.sums,
        )
        for unit in reversed(self.units):
            gradient = unit.backward(
                gradient, skip if unit is self.units[0] else None, step, self.bf16
            )
        return gradient

    def operations(self, shape: Shape) -> int:
        return (
            shape[0]
            * shape[1]
            * sum((self.size**2 + unit.filters) * unit.image[2] for unit in self.units)
        )

    def describe(self) -> str:
        words = " - ".join(str(k) for k in self.filters)
        return (
            f"Separable {self.size}x{self.size}, {words}, normalized" + ", residual" * self.residual
        )
