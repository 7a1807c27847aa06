"""Convolutions of images, over all channels and per channel."""

from math import prod

import numpy as np

from ensync.core.config.layers import WHITENING
from ensync.core.errors import EnsyncError
from ensync.kernels.convolution import conv2d, depthwise
from ensync.kernels.elementwise.activations import GELU, IDENTITY, RELU
from ensync.nn.layers.activations import Activated
from ensync.nn.layers.base import Layer, Parameter, Shape, Step, started
from ensync.nn.layers.images import SAME_3X3, Padding, Window, extent, image
from ensync.nn.memory import Workspace, empty


class Convolution(Layer):
    """outputs = activation(inputs convolved with weights `(height, width, c / groups, filters)` +
    bias).
    """

    def __init__(
        self,
        filters: int,
        window: Window = SAME_3X3,
        groups: int = 1,
        activation: str = "identity",
        use_bias: bool = True,
        initializer: str | None = None,
    ) -> None:
        self.initializer = initializer
        self.filters, self.window, self.groups = filters, window, groups
        self.activation, self.use_bias = Activated(activation), use_bias

    def build(self, shape: Shape) -> Shape:
        h, w, c = image(shape, self)
        if c % self.groups or self.filters % self.groups:
            raise EnsyncError(
                f"{self.groups} groups for {c} channels and {self.filters} filters",
                "a number that divides both",
                "change groups or filters",
            )
        taps, stride = self.window.taps, self.window.stride
        (oh, top), (ow, left) = (
            extent(n, size, stride, self.window.padding)
            for n, size in zip((h, w), taps, strict=True)
        )
        self.form = conv2d.Convolution(
            (h, w, c),
            taps,
            (oh, ow, self.filters),
            stride,
            (top, left),
            self.groups,
            self.bf16,
        )
        vectorised = self.activation.code in (IDENTITY, RELU, GELU)
        self.reads_bf16 = self.writes_bf16 = self.form.takes_bf16 and vectorised
        fans = prod(taps) * c // self.groups, prod(taps) * self.filters
        weights, bias = (
            Parameter("weights", self.form.weights_shape, *fans, before=self.activation.name),
            Parameter("bias", (self.filters,), *fans, "bias"),
        )
        if self.initializer == WHITENING:
            self._check_whitening(self.form.weights_shape)
            self.parameters = (*started([weights], WHITENING), *[bias] * self.use_bias)
        else:
            self.parameters = started([weights, *[bias] * self.use_bias], self.initializer)
        return self.form.outputs

    def _check_whitening(self, shape: Shape) -> None:
        """Refuse more filters than whiten a patch, with their negatives."""
        most = 2 * int(np.prod(shape[:3]))
        if self.groups > 1 or self.filters % 2 or self.filters > most:
            raise EnsyncError(
                f"{self.filters} whitening filters of {shape[0]}x{shape[1]}x{shape[2]} values, "
                f"groups = {self.groups}",
                f"an even number up to {most}, a filter and its negative for each of the "
                "directions kept, in one group",
                "change filters or groups",
            )

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        self.weights, self.weights_gradient = values["weights"], gradients["weights"]
        no_bias, nowhere = np.zeros((2, self.filters), self.weights.dtype)
        self.bias, self.bias_gradient = values.get("bias", no_bias), gradients.get("bias", nowhere)

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.workspace = workspace
        given, kept = self.stored(dtype)
        self.activation.allocate((rows, *self.form.outputs), kept)
        self.inputs_gradient = None if first else empty((rows, *self.form.image), given)
        self.zeros = np.zeros(self.form.image[2], dtype)
        workspace.reserve(self.form.scratch_size(rows, dtype), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.inputs, self.kept = inputs, self.activation.sums[: len(inputs)]
        conv2d.forward(
            self.form,
            inputs,
            self.weights,
            self.bias,
            self.activation.in_kernel,
            self.workspace.of(self.weights.dtype),
            self.kept,
        )
        return self.activation.finish(self.kept)

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        scratch, code = self.workspace.of(self.weights.dtype), self.activation.code
        if code or (self.use_bias and not self.form.is_product):
            conv2d.close_activation(code, self.kept, gradient, scratch, self.bias_gradient)
        conv2d.weight_gradient(
            self.form, self.inputs, gradient, scratch, self.weights_gradient, self.bias_gradient
        )
        if self.inputs_gradient is None:
            return None
        out = self.inputs_gradient[: len(gradient)]
        conv2d.input_gradient(self.form, gradient, self.weights, self.zeros, scratch, out)
        return out

    def operations(self, shape: Shape) -> int:
        return int(np.prod(self.form.weights_shape)) * shape[0] * shape[1]

    def describe(self) -> str:
        (height, width), stride = self.window.taps, self.window.stride
        words = [f"Convolution {height}x{width}, {self.filters}"]
        words += [f"stride {stride}"] * (stride > 1) + [f"{self.groups} groups"] * (self.groups > 1)
        words += [WHITENING] * (self.initializer == WHITENING)
        return ", ".join(words + [self.activation.name] * bool(self.activation.code))


class DepthwiseConvolution(Layer):
    """outputs = each channel of the inputs convolved with a filter of its own, weights `(size,
    size, c)`, without bias.
    """

    def __init__(self, size: int = 3, stride: int = 1, padding: Padding = "same") -> None:
        self.size, self.stride, self.padding = size, stride, padding

    def build(self, shape: Shape) -> Shape:
        h, w, c = self.image = image(shape, self)
        (oh, top), (ow, left) = (extent(n, self.size, self.stride, self.padding) for n in (h, w))
        self.shape, self.zeros_before = (oh, ow, c), (top, left)
        self.parameters = (
            Parameter("weights", (self.size, self.size, c), self.size**2 * c, self.size**2),
        )
        return self.shape

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        self.weights, self.weights_gradient = values["weights"], gradients["weights"]

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        self.workspace = workspace
        self.outputs = empty((rows, *self.shape), dtype)
        self.inputs_gradient = None if first else empty((rows, *self.image), dtype)
        self.zeros = np.zeros(self.shape[2], dtype)
        workspace.reserve(rows * self.weights.size, dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.inputs, current = inputs, self.outputs[: len(inputs)]
        depthwise.depthwise_forward(
            inputs, self.weights, self.zeros, self.stride, self.zeros_before, current
        )
        return current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        rows = len(gradient)
        partial = self.workspace.of(gradient.dtype)[: rows * self.weights.size].reshape(
            rows, *self.weights.shape
        )
        depthwise.depthwise_weight_gradient(
            self.inputs, gradient, self.stride, self.zeros_before, partial, self.weights_gradient
        )
        if self.inputs_gradient is None:
            return None
        out = self.inputs_gradient[:rows]
        depthwise.depthwise_input_gradient(
            gradient, self.weights, self.zeros, self.stride, self.zeros_before, out
        )
        return out

    def operations(self, shape: Shape) -> int:
        return self.size**2 * int(np.prod(shape))

    def describe(self) -> str:
        return f"Depthwise {self.size}x{self.size}" + (
            f", stride {self.stride}" if self.stride > 1 else ""
        )
