"""What layers on images `(n, h, w, c)`, channels last, have in common."""

from dataclasses import dataclass

from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Layer, Shape

Padding = str | int  # "same" and "valid" as in Keras, or so many zeros on every side
Size = int | tuple[int, int]  # height and width alike, or each


@dataclass(frozen=True)
class Window:
    """A window that slides over an image: `size` pixels high and wide, `stride` pixels from one to
    the next, with zeros around the image as `padding` says.
    """

    size: Size = 3
    stride: int = 1
    padding: Padding = "same"

    @property
    def taps(self) -> tuple[int, int]:
        """Its height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


SAME_3X3 = Window()


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
