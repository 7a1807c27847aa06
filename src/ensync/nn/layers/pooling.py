"""Maxima and means of windows and of whole images."""

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.kernels.elementwise import average_pooling, pooling
from ensync.nn.layers.base import Layer, Shape, Step
from ensync.nn.layers.images import Padding, extent, image
from ensync.nn.memory import Workspace, empty, zeros


class MaxPooling(Layer):
    """outputs = the maximum of each window; windows overlap where the stride is less than the
    size.
    """

    kind = "Max pooling"
    reads_bf16 = writes_bf16 = True

    def __init__(
        self, size: int = 2, stride: int | None = None, padding: Padding = "valid"
    ) -> None:
        self.size, self.stride, self.padding = size, stride or size, padding

    def build(self, shape: Shape) -> Shape:
        h, w, c = self.image = image(shape, self)
        if (
            isinstance(self.padding, int) and 2 * self.padding > self.size
        ):  # a window could lie outside the image
            raise EnsyncError(
                f"{self.kind.lower()} of windows of {self.size} pixels with padding {self.padding}",
                "a padding of at most half the size",
                "lower the padding, or take larger windows",
            )
        (oh, top), (ow, left) = (extent(n, self.size, self.stride, self.padding) for n in (h, w))
        self.shape, self.window = (oh, ow, c), ((self.size, self.size), self.stride, (top, left))
        return self.shape

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        given, kept = self.stored(dtype)
        self.outputs, self.chosen = (
            empty((rows, *self.shape), kept),
            empty((rows, *self.shape), pooling.tap_type(self.window[0])),
        )
        self.inputs_gradient = empty((rows, *self.image), given)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        rows = len(inputs)
        pooling.max_pool_forward(inputs, *self.window, self.outputs[:rows], self.chosen[:rows])
        return self.outputs[:rows]

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        rows = len(gradient)
        pooling.max_pool_backward(
            gradient, self.chosen[:rows], *self.window, self.inputs_gradient[:rows]
        )
        return self.inputs_gradient[:rows]

    def describe(self) -> str:
        return f"{self.kind} {self.size}x{self.size}" + (
            f", stride {self.stride}" if self.stride != self.size else ""
        )


class AveragePooling(MaxPooling):
    """outputs = the mean of each window's pixels inside the image."""

    kind = "Average pooling"
    reads_bf16 = writes_bf16 = False

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        current = self.outputs[: len(inputs)]
        average_pooling.average_pool_forward(inputs, *self.window, current)
        return current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        out = self.inputs_gradient[: len(gradient)]
        average_pooling.average_pool_backward(gradient, *self.window, out)
        return out


class GlobalAveragePooling(Layer):
    """outputs `(c,)` = each channel's mean over the image."""

    reads_bf16 = True

    def build(self, shape: Shape) -> Shape:
        self.image = image(shape, self)
        return (shape[2],)

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        given, kept = self.stored(dtype)
        self.outputs, self.inputs_gradient = (
            empty((rows, self.image[2]), kept),
            empty((rows, *self.image), given),
        )

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        current = self.outputs[: len(inputs)]
        average_pooling.global_average_forward(inputs, current)
        return current

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        out = self.inputs_gradient[: len(gradient)]
        average_pooling.global_average_backward(gradient, out)
        return out

    def describe(self) -> str:
        return "Global average pooling"


class Subsampling(Layer):
    """outputs = every `stride`-th pixel, with channels of zeros appended up to `channels` (He et
    al. 2016, shortcut A).
    """

    def __init__(self, channels: int, stride: int = 2) -> None:
        self.channels, self.stride = channels, stride

    def build(self, shape: Shape) -> Shape:
        self.image = shape
        h, w, self.kept = image(shape, self)
        return -(-h // self.stride), -(-w // self.stride), self.channels

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        h, w = (-(-n // self.stride) for n in self.image[:2])
        self.outputs, self.inputs_gradient = (
            zeros((rows, h, w, self.channels), dtype),
            zeros((rows, *self.image), dtype),
        )

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.outputs[: len(inputs), ..., : self.kept] = inputs[:, :: self.stride, :: self.stride]
        return self.outputs[: len(inputs)]

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        self.inputs_gradient[: len(gradient), :: self.stride, :: self.stride] = gradient[
            ..., : self.kept
        ]
        return self.inputs_gradient[: len(gradient)]

    def describe(self) -> str:
        return f"Subsampling by {self.stride}, {self.channels} channels"
