"""What layers on images `(n, h, w, c)`, channels last, have in common; layers that only pass
pixels on.
"""

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.nn.layers import Layer, Shape, Step
from ensync.nn.memory import zeros

Padding = str | int  # "same" and "valid" as in Keras, or so many zeros on every side


def extent(size: int, taps: int, stride: int, padding: Padding) -> tuple[int, int]:
    """Return how many outputs a window of `taps` has along an axis, and the zeros before it."""
    if padding == "same":
        outputs = -(-size // stride)
        return outputs, max(0, (outputs - 1) * stride + taps - size) // 2
    zeros = 0 if padding == "valid" else int(padding)
    if size + 2 * zeros < taps:
        raise EnsyncError(
            f"a window of {taps} pixels on an image of {size}, framed by {zeros} zeros",
            "a window within the frame",
            "use padding = 'same', a smaller window, larger images or less pooling before it",
        )
    return (size + 2 * zeros - taps) // stride + 1, zeros


def image(shape: Shape, layer: Layer) -> tuple[int, int, int]:
    """Return the shape of a layer's inputs; EnsyncError when they are no image."""
    if len(shape) != 3:
        raise EnsyncError(
            f"the layer '{layer.describe()}' behind values of shape {' x '.join(map(str, shape))}",
            "an image: height x width x channels",
            "put it before the first flatten, global pooling or dense layer",
        )
    return shape


class Flatten(Layer):
    """outputs = the inputs as one row per sample."""

    def build(self, shape: Shape) -> Shape:
        return (int(np.prod(shape)),)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        self.shape = inputs.shape[1:]
        return inputs.reshape(len(inputs), int(np.prod(self.shape)))

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        return gradient.reshape(len(gradient), *self.shape)


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

    def allocate(self, rows: int, dtype: np.dtype, first: bool) -> None:
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
        return f"Every {self.stride}. pixel, {self.channels} channels"
