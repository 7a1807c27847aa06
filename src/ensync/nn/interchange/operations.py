"""The operations that a network is made of, one idea each, as ONNX and PyTorch have them.

Images are `(n, channels, height, width)` there, and each activation is an operation of its own.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Shape


@dataclass(frozen=True)
class Tensor:
    """An array of a layer, `view`, in PyTorch's layout.

    The view is cut into axes `cut`, these are put into `order`, and the outcome has `shape`. fixed:
    not trained, so that another value cannot be taken.
    """

    view: np.ndarray
    cut: Shape
    order: tuple[int, ...]
    shape: Shape
    fixed: bool = False

    def read(self) -> np.ndarray:
        """Return a copy in PyTorch's layout, of `shape`."""
        values = self.view.reshape(self.cut).transpose(self.order)
        return np.array(values.reshape(self.shape), order="C")

    def write(self, values: np.ndarray) -> None:
        """Set the layer's array from values of `shape`, in PyTorch's layout."""
        moved = values.reshape([self.cut[axis] for axis in self.order])
        self.view.reshape(self.cut)[...] = moved.transpose(np.argsort(self.order))


class Frame(NamedTuple):
    """A window that slides over an image: pixels high and wide, pixels to the next one, and the
    rows and columns put around the image.
    """

    size: tuple[int, int]
    stride: int
    top: int
    left: int
    bottom: int
    right: int

    @property
    def is_even(self) -> bool:
        """Whether all four sides are alike."""
        return self.top == self.left == self.bottom == self.right


@dataclass(frozen=True)
class Operation:
    """A step of a network. given: the shape of its inputs, Ensync's (height, width, channels)."""

    given: Shape

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its arrays, by the names that they have in PyTorch's module."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class Flatten(Operation):
    """An image as one row of values, whose order `Order` says."""


@dataclass(frozen=True)
class Linear(Operation):
    """outputs = inputs @ weight.T + bias, weight `(outputs, inputs)`."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Convolve(Operation):
    """A convolution, weight `(outputs, inputs / groups, height, width)`."""

    frame: Frame
    groups: int
    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Pool(Operation):
    """The maximum of each window, or the mean of its pixels inside the image."""

    frame: Frame
    of_maxima: bool


@dataclass(frozen=True)
class GlobalMean(Operation):
    """The mean of each channel, `(n, channels)`."""


@dataclass(frozen=True)
class Subsample(Operation):
    """Every `stride`-th pixel, with channels of zeros behind, up to `channels`."""

    channels: int
    stride: int


@dataclass(frozen=True)
class NormalizeBatch(Operation):
    """Batch normalisation by the moving statistics. momentum: PyTorch's, the share of the new."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    epsilon: float
    momentum: float


@dataclass(frozen=True)
class NormalizeGroups(Operation):
    """Group normalisation."""

    weight: Tensor
    bias: Tensor
    groups: int
    epsilon: float


@dataclass(frozen=True)
class NormalizeResponse(Operation):
    """Local response normalisation; alpha is not divided by n."""

    k: float
    n: int
    alpha: float
    beta: float
    groups: int

    def check_groups(self, format_: str) -> None:
        """Refuse several groups of channels for a format that has only one."""
        if self.groups > 1:
            raise EnsyncError(
                f"a local response normalisation in {self.groups} groups, which {format_} has not",
                "one group",
                "export with --format safetensors",
            )


@dataclass(frozen=True)
class Recur(Operation):
    """A recurrent layer over the rows of an image, with the gates in PyTorch's order: the last
    state, or all of them as an image one pixel wide.

    weight_ih_l0 `(gates * units, features)`, weight_hh_l0 `(gates * units, units)`, a bias for
    each.
    """

    kind: str
    all_states: bool
    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    @property
    def units(self) -> int:
        """Values of the state."""
        return self.weight_hh_l0.shape[1]


@dataclass(frozen=True)
class Scale(Operation):
    """outputs = factor * inputs."""

    factor: float


@dataclass(frozen=True)
class Activate(Operation):
    """relu, gelu (its exact form), tanh, logistic or softmax."""

    name: str


@dataclass(frozen=True)
class Drop(Operation):
    """Dropout, which does nothing once the network is trained."""

    rate: float


@dataclass(frozen=True)
class Add(Operation):
    """The sum of two ways; without operations a way is the inputs."""

    main: "list[Operation]"
    shortcut: "list[Operation]"


@dataclass(frozen=True)
class Concatenate(Operation):
    """The outputs of several branches, one behind the other in the channels."""

    branches: "list[list[Operation]]"
