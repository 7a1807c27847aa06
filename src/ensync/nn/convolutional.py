"""Layers on images `(n, h, w, c)`, channels last: convolutions, pooling, batch normalisation, residual and parallel branches."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ensync.errors import EnsyncError
from ensync.kernels import convolution, depthwise, normalization, pooling, response, separable
from ensync.kernels.activations import ACTIVATIONS
from ensync.nn.layers import Layer, Parameter, Shape, Step

Padding = str | int   # "same" and "valid" as in Keras, or so many zeros on every side


def empty(shape: Shape, dtype: np.dtype) -> np.ndarray:
    """An array whose first element lies on a cache line, so that vectors do not straddle two."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


class Workspace:
    """Scratch that all layers of this process share, because only one of them computes at a time."""

    arrays: dict[np.dtype, np.ndarray] = {}

    @classmethod
    def reserve(cls, size: int, dtype: np.dtype) -> None:
        """Have at least this many elements ready."""
        dtype = np.dtype(dtype)
        if dtype not in cls.arrays or cls.arrays[dtype].size < size:
            cls.arrays[dtype] = empty((size,), dtype)

    @classmethod
    def of(cls, dtype: np.dtype) -> np.ndarray:
        """The scratch of this type."""
        return cls.arrays[dtype]


def extent(size: int, taps: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Return how many outputs a window of `taps` has along an axis, and the zeros before it."""
    if padding == "same":
        outputs = -(-size // stride)
        return outputs, max(0, (outputs - 1) * stride + taps - size) // 2
    zeros = 0 if padding == "valid" else int(padding)
    if size + 2 * zeros < taps:
        raise EnsyncError(f"a window of {taps} pixels on an image of {size}, framed by {zeros} zeros", "a window within the frame",
                          "use padding = 'same', a smaller window, larger images or less pooling before it")
    return (size + 2 * zeros - taps) // stride + 1, zeros


def image(shape: Shape, layer: Layer) -> tuple[int, int, int]:
    """Return the shape of a layer's inputs; EnsyncError when they are no image."""
    if len(shape) != 3:
        raise EnsyncError(f"the layer '{layer.describe()}' behind values of shape {' x '.join(map(str, shape))}", "an image: height x width x channels",
                          "put it before the first flatten, global pooling or dense layer")
    return shape


class Convolution(Layer):
    """outputs = activation(inputs convolved with weights `(size, size, c / groups, filters)` + bias)."""

    def __init__(self, filters: int, size: int = 3, stride: int = 1, padding: Padding = "same", groups: int = 1,
                 activation: str = "identity", use_bias: bool = True) -> None:
        self.filters, self.size, self.stride, self.padding, self.groups, self.activation = filters, size, stride, padding, groups, activation
        self.use_bias = use_bias
        self.code = ACTIVATIONS[activation]

    def build(self, shape: Shape) -> Shape:
        h, w, c = image(shape, self)
        if c % self.groups or self.filters % self.groups:
            raise EnsyncError(f"{self.groups} groups for {c} channels and {self.filters} filters", "a number that divides both", "change groups or filters")
        (oh, top), (ow, left) = (extent(n, self.size, self.stride, self.padding) for n in (h, w))
        self.form = convolution.Convolution((h, w, c), (self.size, self.size), (oh, ow, self.filters), self.stride, (top, left), self.groups)
        fans = self.size**2 * c // self.groups, self.size**2 * self.filters
        bias = Parameter("bias", (self.filters,), *fans, "bias")
        self.parameters = (Parameter("weights", self.form.weights_shape, *fans, before=self.activation), *[bias] * self.use_bias)
        return self.form.outputs

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        self.weights, self.weights_gradient = values["weights"], gradients["weights"]
        no_bias, nowhere = np.zeros((2, self.filters), self.weights.dtype)
        self.bias, self.bias_gradient = values.get("bias", no_bias), gradients.get("bias", nowhere)

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        self.outputs = empty((rows, *self.form.outputs), dtype)
        self.inputs_gradient = None if first else empty((rows, *self.form.image), dtype)
        self.zeros = np.zeros(self.form.image[2], dtype)
        Workspace.reserve(self.form.scratch_size(rows, dtype), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.inputs, self.current = inputs, self.outputs[: len(inputs)]
        convolution.convolution_forward(self.form, inputs, self.weights, self.bias, self.code, Workspace.of(inputs.dtype), self.current)
        return self.current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        scratch = Workspace.of(gradient.dtype)
        if self.code or not self.form.is_product:
            convolution.close_activation(self.code, self.current, gradient, scratch, self.bias_gradient)
        convolution.convolution_weight_gradient(self.form, self.inputs, gradient, scratch, self.weights_gradient, self.bias_gradient)
        if self.inputs_gradient is None:
            return None
        out = self.inputs_gradient[: len(gradient)]
        convolution.convolution_input_gradient(self.form, gradient, self.weights, self.zeros, scratch, out)
        return out

    def operations(self, shape: Shape) -> int:
        return int(np.prod(self.form.weights_shape)) * shape[0] * shape[1]

    def describe(self) -> str:
        words = [f"Convolution {self.size}x{self.size}, {self.filters}"]
        words += [f"stride {self.stride}"] * (self.stride > 1) + [f"{self.groups} groups"] * (self.groups > 1)
        return ", ".join(words + [self.activation] * bool(self.code))


class DepthwiseConvolution(Layer):
    """outputs = each channel of the inputs convolved with a filter of its own, weights `(size, size, c)`, without bias."""

    def __init__(self, size: int = 3, stride: int = 1, padding: Padding = "same") -> None:
        self.size, self.stride, self.padding = size, stride, padding

    def build(self, shape: Shape) -> Shape:
        h, w, c = self.image = image(shape, self)
        (oh, top), (ow, left) = (extent(n, self.size, self.stride, self.padding) for n in (h, w))
        self.shape, self.zeros_before = (oh, ow, c), (top, left)
        self.parameters = (Parameter("weights", (self.size, self.size, c), self.size**2 * c, self.size**2),)
        return self.shape

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        self.weights, self.weights_gradient = values["weights"], gradients["weights"]

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        self.outputs = empty((rows, *self.shape), dtype)
        self.inputs_gradient = None if first else empty((rows, *self.image), dtype)
        self.zeros = np.zeros(self.shape[2], dtype)
        Workspace.reserve(rows * self.weights.size, dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.inputs, current = inputs, self.outputs[: len(inputs)]
        depthwise.depthwise_forward(inputs, self.weights, self.zeros, self.stride, self.zeros_before, current)
        return current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        rows = len(gradient)
        partial = Workspace.of(gradient.dtype)[: rows * self.weights.size].reshape(rows, *self.weights.shape)
        depthwise.depthwise_weight_gradient(self.inputs, gradient, self.stride, self.zeros_before, partial, self.weights_gradient)
        if self.inputs_gradient is None:
            return None
        out = self.inputs_gradient[:rows]
        depthwise.depthwise_input_gradient(gradient, self.weights, self.zeros, self.stride, self.zeros_before, out)
        return out

    def operations(self, shape: Shape) -> int:
        return self.size**2 * int(np.prod(shape))

    def describe(self) -> str:
        return f"Depthwise {self.size}x{self.size}" + (f", stride {self.stride}" if self.stride > 1 else "")


class MaxPooling(Layer):
    """outputs = the maximum of each window; windows overlap where the stride is less than the size."""

    kind = "Max pooling"

    def __init__(self, size: int = 2, stride: int | None = None, padding: Padding = "valid") -> None:
        self.size, self.stride, self.padding = size, stride or size, padding

    def build(self, shape: Shape) -> Shape:
        h, w, c = self.image = image(shape, self)
        (oh, top), (ow, left) = (extent(n, self.size, self.stride, self.padding) for n in (h, w))
        self.shape, self.window = (oh, ow, c), ((self.size, self.size), self.stride, (top, left))
        return self.shape

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        self.outputs, self.chosen = empty((rows, *self.shape), dtype), empty((rows, *self.shape), np.dtype(np.uint8))
        self.inputs_gradient = empty((rows, *self.image), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        rows = len(inputs)
        pooling.max_pool_forward(inputs, *self.window, self.outputs[:rows], self.chosen[:rows])
        return self.outputs[:rows]

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        rows = len(gradient)
        pooling.max_pool_backward(gradient, self.chosen[:rows], *self.window, self.inputs_gradient[:rows])
        return self.inputs_gradient[:rows]

    def describe(self) -> str:
        return f"{self.kind} {self.size}x{self.size}" + (f", stride {self.stride}" if self.stride != self.size else "")


class AveragePooling(MaxPooling):
    """outputs = the mean of each window's pixels inside the image."""

    kind = "Average pooling"

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        current = self.outputs[: len(inputs)]
        pooling.average_pool_forward(inputs, *self.window, current)
        return current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        out = self.inputs_gradient[: len(gradient)]
        pooling.average_pool_backward(gradient, *self.window, out)
        return out


class GlobalAveragePooling(Layer):
    """outputs `(c,)` = each channel's mean over the image."""

    def build(self, shape: Shape) -> Shape:
        self.image = image(shape, self)
        return (shape[2],)

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        self.outputs, self.inputs_gradient = empty((rows, self.image[2]), dtype), empty((rows, *self.image), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        current = self.outputs[: len(inputs)]
        pooling.global_average_forward(inputs, current)
        return current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        out = self.inputs_gradient[: len(gradient)]
        pooling.global_average_backward(gradient, out)
        return out

    def describe(self) -> str:
        return "Global average pooling"


class Flatten(Layer):
    """outputs = the inputs as one row per sample."""

    def build(self, shape: Shape) -> Shape:
        return (int(np.prod(shape)),)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.shape = inputs.shape[1:]
        return inputs.reshape(len(inputs), int(np.prod(self.shape)))

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        return gradient.reshape(len(gradient), *self.shape)


class BatchNormalization(Layer):
    """outputs = activation(gamma * (inputs - mean) / sqrt(variance + epsilon) + beta), per channel (Ioffe and Szegedy 2015).

    While training, mean and variance are the batch's: of this rank, or of all ranks where the step has an `allreduce`;
    then every rank has to run forward and backward, an empty local batch too. Otherwise they are the moving ones.
    momentum: of the moving statistics, Keras' meaning; unbiased: whether the moving variance is divided by count - 1, as PyTorch does.
    """

    def __init__(self, activation: str = "identity", momentum: float = 0.99, epsilon: float = 1e-3, unbiased: bool = False) -> None:
        self.relu, self.momentum, self.epsilon, self.unbiased = activation == "relu", momentum, epsilon, unbiased

    def build(self, shape: Shape) -> Shape:
        self.shape, c = shape, shape[-1]
        self.parameters = Parameter("gamma", (c,), start="ones"), Parameter("beta", (c,), start="zeros")
        self.statistics = Parameter("moving_mean", (c,), start="zeros"), Parameter("moving_variance", (c,), start="ones")
        return shape

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        self.gamma, self.beta, self.moving_mean, self.moving_variance = (values[p.name] for p in (*self.parameters, *self.statistics))
        self.gamma_gradient, self.beta_gradient = gradients["gamma"], gradients["beta"]

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        self.outputs, self.inputs_gradient = empty((rows, *self.shape), dtype), empty((rows, *self.shape), dtype)
        c = self.shape[-1]
        self.scale, self.shift, self.spare = np.zeros((3, c), dtype)
        self.no_skip, self.coefficients = np.zeros((0, c), dtype), np.zeros((2, c), dtype)
        self.mean, self.variance, self.sums = np.zeros(c), np.zeros(c), np.zeros((2, c))
        self.travelling = np.zeros(2 * c + 1)
        Workspace.reserve(normalization.blocks(rows * int(np.prod(self.shape[:-1]))) * 2 * c, dtype)

    def forward(self, inputs: np.ndarray, step: Step, skip: np.ndarray | None = None, relu_of_sum: bool = False) -> np.ndarray:
        c = self.shape[-1]
        self.values, current = inputs.reshape(-1, c), self.outputs[: len(inputs)]
        if step.training:
            normalization.channel_sums(self.values, self._partial(), self.sums)
        self.use_sums(len(self.values), step)
        added = self.no_skip if skip is None else skip.reshape(-1, c)
        normalization.normalize(self.values, self.scale, self.shift, added, self.relu or relu_of_sum, current.reshape(-1, c))
        return current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        c, out = self.shape[-1], self.inputs_gradient[: len(gradient)]
        given = gradient.reshape(-1, c)
        normalization.channel_gradient_sums(given, self.values, self.scale, self.shift, self.relu, self._partial(), self.sums)
        self.use_gradient_sums(step)
        normalization.normalize_backward(given, self.values, self.scale, self.shift, self.relu, self.coefficients, out.reshape(-1, c))
        return out

    def _partial(self) -> np.ndarray:
        blocks, c = normalization.blocks(len(self.values)), self.shape[-1]
        return Workspace.of(self.values.dtype)[: blocks * 2 * c].reshape(blocks, 2, c)

    def use_sums(self, rows: int, step: Step) -> None:
        """Set scale and shift: while training from `sums` over so many local rows, which the moving statistics follow."""
        if step.training:
            self._use_batch(self._over_ranks(rows, step), step)
            return
        self.mean[:], self.variance[:] = self.moving_mean, self.moving_variance
        self.scale[:] = self.gamma / np.sqrt(self.variance + self.epsilon)
        self.shift[:] = self.beta - self.mean * self.scale

    def use_gradient_sums(self, step: Step) -> None:
        """Set the parameters' gradients from this rank's gradient `sums`, and the coefficients from those of all."""
        self._gradients(self.count, self.gamma_gradient, self.beta_gradient)
        if step.allreduce is not None:
            self._over_ranks(0, step)
            self._gradients(self.count, self.spare, self.spare)

    def _over_ranks(self, count: int, step: Step) -> int:
        """Add the sums and the count over the ranks, where the step is synchronised."""
        if step.allreduce is None:
            return count
        self.travelling[:-1], self.travelling[-1] = self.sums.ravel(), count
        step.allreduce(self.travelling)
        self.sums[:] = self.travelling[:-1].reshape(self.sums.shape)
        return int(self.travelling[-1])

    def _use_batch(self, count: int, step: Step) -> None:
        """Normalise by the batch's statistics and let the moving ones follow."""
        self.count = max(1, count)
        normalization.batch_coefficients(self.sums, self.count, self.gamma, self.beta, self.epsilon, self.scale, self.shift, self.mean, self.variance)
        if count:
            correction = count / max(1, count - 1) if self.unbiased else 1.0
            share = 1 - self.momentum if step.share is None else step.share
            self.moving_mean += share * (self.mean - self.moving_mean)
            self.moving_variance += share * (correction * self.variance - self.moving_variance)

    def _gradients(self, count: int, gamma_gradient: np.ndarray, beta_gradient: np.ndarray) -> None:
        normalization.gradient_coefficients(self.sums, count, self.epsilon, self.mean, self.variance, self.scale, gamma_gradient,
                                            beta_gradient, self.coefficients)

    def operations(self, shape: Shape) -> int:
        return int(np.prod(shape))

    def describe(self) -> str:
        return "Batch normalization" + ", relu" * self.relu


class LocalResponseNormalization(Layer):
    """outputs = inputs / (k + alpha * sum of squares over n neighbouring channels) ** beta (Krizhevsky et al. 2012)."""

    def __init__(self, k: float = 2.0, n: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> None:
        self.k, self.n, self.alpha, self.beta = k, n, alpha, beta

    def build(self, shape: Shape) -> Shape:
        self.shape = shape
        return shape

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        self.outputs, self.scales, self.inputs_gradient = (empty((rows, *self.shape), dtype) for _ in range(3))

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        rows, c = len(inputs), self.shape[-1]
        self.inputs = inputs.reshape(-1, c)
        response.response_forward(self.inputs, self.k, self.n, self.alpha, self.beta, self.scales[:rows].reshape(-1, c), self.outputs[:rows].reshape(-1, c))
        return self.outputs[:rows]

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        rows, c = len(gradient), self.shape[-1]
        out = self.inputs_gradient[:rows]
        response.response_backward(gradient.reshape(-1, c), self.inputs, self.scales[:rows].reshape(-1, c), self.n, self.alpha, self.beta, out.reshape(-1, c))
        return out

    def operations(self, shape: Shape) -> int:
        return (self.n + 2) * int(np.prod(shape))

    def describe(self) -> str:
        return "Local response normalization"


class Subsampling(Layer):
    """outputs = every `stride`-th pixel, with channels of zeros appended up to `channels` (He et al. 2016, shortcut A)."""

    def __init__(self, channels: int, stride: int = 2) -> None:
        self.channels, self.stride = channels, stride

    def build(self, shape: Shape) -> Shape:
        self.image = shape
        h, w, self.kept = image(shape, self)
        return -(-h // self.stride), -(-w // self.stride), self.channels

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        h, w = (-(-n // self.stride) for n in self.image[:2])
        self.outputs, self.inputs_gradient = np.zeros((rows, h, w, self.channels), dtype), np.zeros((rows, *self.image), dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.outputs[: len(inputs), ..., : self.kept] = inputs[:, :: self.stride, :: self.stride]
        return self.outputs[: len(inputs)]

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        self.inputs_gradient[: len(gradient), :: self.stride, :: self.stride] = gradient[..., : self.kept]
        return self.inputs_gradient[: len(gradient)]

    def describe(self) -> str:
        return f"Every {self.stride}. pixel, {self.channels} channels"


class Chain(Layer):
    """Layers one after the other, seen as one."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    def build(self, shape: Shape) -> Shape:
        self.shapes = []
        for layer in self.layers:
            shape = layer.build(shape)
            self.shapes.append(shape)
        self.parameters, self.statistics = _numbered(self.layers, "parameters"), _numbered(self.layers, "statistics")
        return shape

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        for i, layer in enumerate(self.layers):
            layer.bind(_own(values, i), _own(gradients, i))

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        for i, layer in enumerate(self.layers):
            layer.allocate(rows, dtype, first and i == 0)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        for layer in self.layers:
            inputs = layer.forward(inputs, step)
        return inputs

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        for layer in reversed(self.layers):
            gradient = layer.backward(gradient, step)
        return gradient

    def operations(self, shape: Shape) -> int:
        return sum(layer.operations(inner) for layer, inner in zip(self.layers, self.shapes, strict=True))

    def describe(self) -> str:
        return "Branch"

    def inside(self) -> list[tuple[str, Layer, Shape]]:
        return [("", layer, inner) for layer, inner in zip(self.layers, self.shapes, strict=True)]


class SeparableConvolution(Chain):
    """A depthwise convolution without bias, then a pointwise one with bias."""

    def __init__(self, filters: int, size: int = 3, stride: int = 1, padding: Padding = "same", activation: str = "identity") -> None:
        super().__init__([DepthwiseConvolution(size, stride, padding), Convolution(filters, 1, activation=activation)])
        self.size = size

    def describe(self) -> str:
        return f"Separable convolution {self.size}x{self.size}, {self.layers[1].filters}"

    def inside(self) -> list[tuple[str, Layer, Shape]]:
        return []


class Residual(Chain):
    """outputs = activation(layers(inputs) + inputs); the last layer is a batch normalisation, which adds and activates in its own pass.

    shortcut: layers for the inputs' way around (a projection), ending in whatever has the outputs' shape; none means the inputs themselves.
    """

    def __init__(self, layers: Sequence[Layer], activation: str = "identity", shortcut: Sequence[Layer] = ()) -> None:
        assert isinstance(layers[-1], BatchNormalization) and not layers[-1].relu
        self.main, self.shortcut, self.relu = list(layers), list(shortcut), activation == "relu"
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
            raise EnsyncError(f"a residual sum of shapes {self.outputs_shape} and {around}", "one shape for both ways", "change the layers, or give a shortcut")
        self.parameters, self.statistics = _numbered(self.layers, "parameters"), _numbered(self.layers, "statistics")
        return self.outputs_shape

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        for i, layer in enumerate(self.layers):
            layer.allocate(rows, dtype, first and i in (0, len(self.main)))
        Workspace.reserve(convolution.sums_size(rows * int(np.prod(self.outputs_shape[:-1])), self.outputs_shape[-1]), dtype)
        self.no_bias = np.zeros(self.outputs_shape[-1], dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        around = inputs
        for layer in self.shortcut:
            around = layer.forward(around, step)
        for layer in self.main[:-1]:
            inputs = layer.forward(inputs, step)
        self.current = self.main[-1].forward(inputs, step, around, self.relu)
        return self.current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        if self.relu:
            convolution.close_activation(ACTIVATIONS["relu"], self.current, gradient, Workspace.of(gradient.dtype), self.no_bias)
        around, inner = gradient, gradient
        for layer in reversed(self.main):
            inner = layer.backward(inner, step)
        for layer in reversed(self.shortcut):
            around = layer.backward(around, step)
        if inner is not None:
            normalization.add(around.reshape(-1, around.shape[-1]), inner.reshape(-1, inner.shape[-1]))
        return inner

    def describe(self) -> str:
        return "Residual sum" + ", relu" * self.relu

    def inside(self) -> list[tuple[str, Layer, Shape]]:
        return [("shortcut: " * (i >= len(self.main)), layer, inner) for i, (_, layer, inner) in enumerate(super().inside())]


class SeparableUnit:
    """A separable convolution and its batch normalisation inside a `SeparableBlock`: arrays and calls, no buffers of its own."""

    def __init__(self, filters: int, size: int, relu: bool, norm: BatchNormalization) -> None:
        self.filters, self.size, self.norm = filters, size, norm
        norm.relu = relu

    def build(self, shape: Shape) -> tuple[Parameter, ...]:
        """Return the parameters for images of this shape."""
        h, w, c = self.image = shape
        self.norm.build((h, w, self.filters))
        taps = self.size**2
        return (Parameter("depthwise", (self.size, self.size, c), taps * c, taps), Parameter("weights", (c, self.filters), c, self.filters),
                Parameter("bias", (self.filters,), c, self.filters, "bias"), *self.norm.parameters)

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        """Take views."""
        self.norm.bind(values, gradients)
        self.depthwise, self.weights, self.bias = (values[name] for name in ("depthwise", "weights", "bias"))
        self.depthwise_gradient, self.weights_gradient, self.bias_gradient = (gradients[name] for name in ("depthwise", "weights", "bias"))

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        """Make the buffers: what the convolution returns, and the gradient of its inputs."""
        h, w, c = self.image
        self.norm.allocate(0, dtype, first)
        self.outputs, self.inputs_gradient = empty((rows, h, w, self.filters), dtype), empty((rows, h, w, c), dtype)
        self.partial = empty((rows, 2, max(c, self.filters)), dtype)
        self.zeros, self.no_skip = np.zeros(max(c, self.filters), dtype), np.zeros((0, h, w, c), dtype)
        Workspace.reserve(separable.scratch_size(self.image, self.size, self.filters), dtype)

    def forward(self, inputs: np.ndarray, before: BatchNormalization | None, step: Step) -> np.ndarray:
        """Return the outputs before their normalisation, given x, or what `before` normalises to x."""
        rows, (h, w, c), norm = len(inputs), self.image, before or self.norm
        self.inputs, self.before, self.current = inputs, before, self.outputs[:rows]
        separable.separable_forward(inputs, norm.scale, norm.shift, before is not None, self.depthwise, self.zeros, self.weights, self.bias,
                                    Workspace.of(inputs.dtype), self.current, self._partial(rows, self.filters), self.norm.sums)
        self.norm.use_sums(rows * h * w, step)
        return self.current

    def backward(self, gradient: np.ndarray, skip: np.ndarray | None, step: Step) -> np.ndarray:
        """Return the gradient of x, plus skip; the normalisation's gradient sums are known, and those of `before` become known."""
        rows, norm, before = len(gradient), self.norm, self.before or self.norm
        norm.use_gradient_sums(step)
        self.bias_gradient[:] = 0   # a bias that a mean over the batch takes away again
        out = self.inputs_gradient[:rows]
        separable.separable_backward(gradient, self.current, norm.scale, norm.shift, norm.relu, norm.coefficients, self.inputs,
                                     (before.scale, before.shift), self.before is not None, self.depthwise, self.zeros, self.weights,
                                     self.no_skip if skip is None else skip, Workspace.of(gradient.dtype), out, self.depthwise_gradient,
                                     self.weights_gradient, self._partial(rows, self.image[2]), before.sums)
        return out

    def _partial(self, rows: int, c: int) -> np.ndarray:
        return self.partial.reshape(-1)[: rows * 2 * c].reshape(rows, 2, c)


class SeparableBlock(Layer):
    """Separable convolutions, each with batch normalisation and ReLU; `residual`: no last ReLU, but the inputs added (Xception's block).

    Computed image by image in the cache (`kernels.separable`); channels must be multiples of 32.
    options: of the batch normalisations.
    """

    def __init__(self, filters: Sequence[int], size: int = 3, residual: bool = False, **options) -> None:
        self.residual, self.filters, self.size = residual, list(filters), size
        self.units = [SeparableUnit(k, size, not residual or i + 1 < len(self.filters), BatchNormalization(**options))
                      for i, k in enumerate(self.filters)]
        self.layers = [unit.norm for unit in self.units]

    def build(self, shape: Shape) -> Shape:
        parameters, statistics = [], []
        for i, unit in enumerate(self.units):
            assert separable.fits(shape, unit.filters, 4), "channels must be multiples of 32"
            parameters += [replace(p, name=f"{i}.{p.name}") for p in unit.build(shape)]
            statistics += [replace(p, name=f"{i}.{p.name}") for p in unit.norm.statistics]
            shape = (*shape[:2], unit.filters)
        self.shape, self.parameters, self.statistics = shape, tuple(parameters), tuple(statistics)
        return shape

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        for i, unit in enumerate(self.units):
            unit.bind(_own(values, i), _own(gradients, i))

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
        for unit in self.units:
            unit.allocate(rows, dtype, first)
        self.outputs = empty((rows, *self.shape), dtype)
        Workspace.reserve(normalization.blocks(rows * self.shape[0] * self.shape[1]) * 2 * self.shape[2], dtype)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        values, before, rows, c = inputs, None, len(inputs), self.shape[2]
        for unit in self.units:
            values, before = unit.forward(values, before, step), unit.norm
        skip = inputs.reshape(-1, c) if self.residual else before.no_skip
        normalization.normalize(values.reshape(-1, c), before.scale, before.shift, skip, before.relu, self.outputs[:rows].reshape(-1, c))
        return self.outputs[:rows]

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        last, c, skip = self.units[-1], self.shape[2], gradient if self.residual else None
        values = last.current.reshape(-1, c)
        blocks = normalization.blocks(len(values))
        partial = Workspace.of(gradient.dtype)[: blocks * 2 * c].reshape(blocks, 2, c)
        normalization.channel_gradient_sums(gradient.reshape(-1, c), values, last.norm.scale, last.norm.shift, last.norm.relu, partial, last.norm.sums)
        for unit in reversed(self.units):
            gradient = unit.backward(gradient, skip if unit is self.units[0] else None, step)
        return gradient

    def operations(self, shape: Shape) -> int:
        return shape[0] * shape[1] * sum((self.size**2 + unit.filters) * unit.image[2] for unit in self.units)

    def describe(self) -> str:
        words = " - ".join(str(k) for k in self.filters)
        return f"Separable {self.size}x{self.size}, {words}, normalized" + ", residual" * self.residual


def normalizations(layers: Sequence[Layer]) -> list[BatchNormalization]:
    """Return all batch normalisations among layers and inside them, for instance to synchronise them."""
    found = []
    for layer in layers:
        found += [layer] if isinstance(layer, BatchNormalization) else []
        found += normalizations(getattr(layer, "layers", ()))
    return found


class Parallel(Layer):
    """outputs = the outputs of several branches on the same inputs, side by side in the channels."""

    def __init__(self, branches: Sequence[Layer]) -> None:
        self.layers = list(branches)

    def build(self, shape: Shape) -> Shape:
        self.image, self.shapes = shape, [branch.build(shape) for branch in self.layers]
        self.parameters, self.statistics = _numbered(self.layers, "parameters"), _numbered(self.layers, "statistics")
        ends = np.cumsum([inner[-1] for inner in self.shapes])
        self.parts = [slice(end - inner[-1], end) for end, inner in zip(ends, self.shapes, strict=True)]
        if len({inner[:-1] for inner in self.shapes}) > 1:
            raise EnsyncError(f"parallel branches with outputs {', '.join(map(str, self.shapes))}", "one height and width for all", "change their strides or paddings")
        return (*self.shapes[0][:-1], int(ends[-1]))

    def bind(self, values: dict[str, np.ndarray], gradients: dict[str, np.ndarray]) -> None:
        for i, branch in enumerate(self.layers):
            branch.bind(_own(values, i), _own(gradients, i))

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
        for i, (branch, part, given) in enumerate(zip(self.layers, self.parts, self.given, strict=True)):
            given[:rows] = gradient[..., part]
            inner = branch.backward(given[:rows], step)
            if out is not None:
                np.add(out, inner, out=out) if i else np.copyto(out, inner)
        return out

    def operations(self, shape: Shape) -> int:
        return sum(branch.operations(inner) for branch, inner in zip(self.layers, self.shapes, strict=True))

    def describe(self) -> str:
        return "Side by side"

    def inside(self) -> list[tuple[str, Layer, Shape]]:
        return [("", branch, inner) for branch, inner in zip(self.layers, self.shapes, strict=True)]


def _numbered(layers: Sequence[Layer], kind: str) -> tuple[Parameter, ...]:
    return tuple(replace(p, name=f"{i}.{p.name}") for i, layer in enumerate(layers) for p in getattr(layer, kind))


def _own(views: dict[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    prefix = f"{index}."
    return {name.removeprefix(prefix): view for name, view in views.items() if name.startswith(prefix)}
