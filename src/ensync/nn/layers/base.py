"""The contract between a network, its layers and the layers that are made of layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ensync.nn.memory import BF16, Workspace

Shape = tuple[int, ...]
Views = dict[str, np.ndarray]


@dataclass(frozen=True)
class Parameter:
    """A named array of a layer: its shape, fans and following activation for the initialiser,
    how it starts (weights, bias, zeros, ones), and its own initialiser, where it is not the
    network's.

    stretches: of a part of an array (nn.split): of how many stretches of the whole, each as long,
    the axis is made that is cut.
    """

    name: str
    shape: Shape
    fan_in: int = 1
    fan_out: int = 1
    start: str = "weights"
    before: str = "identity"
    initializer: str | None = None
    stretches: int = 1

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


def started(parameters: Sequence[Parameter], initializer: str | None) -> tuple[Parameter, ...]:
    """Return the parameters with this initialiser of their own."""
    return tuple(replace(p, initializer=initializer) for p in parameters)


@dataclass
class Step:
    """What a layer may need to know of the current step.

    training: whether batch statistics and dropout are in use. key: 64 random bits, the same on
    every rank. first_row: position in the global batch of the first local row. allreduce: batch
    normalisation over ranks; it replaces a vector by its sum over them. share: of this batch in the
    moving statistics; None: as each layer says. after_layer: called in the backward pass with the
    number of each layer of the network whose gradients are complete.
    """

    training: bool = False
    key: int = 0
    first_row: int = 0
    allreduce: Callable[[np.ndarray], None] | None = None
    share: float | None = None
    after_layer: Callable[[int], None] | None = None


class Layer(ABC):
    """One stage of a network. Shapes are without the batch axis; arrays are `(rows, *shape)`.

    Every layer gives `build`, `forward` and `backward`, and `bind` and `allocate` where it has
    parameters and buffers. The network calls

    1. `build(shape)` once: the layer sets `parameters` and `statistics` and returns the shape of
       its outputs;
    2. `bind(values, gradients)`: views of the network's flat vectors, again whenever these move;
    3. `allocate(rows, dtype, workspace, first)` once: buffers for up to so many rows, and room in
       the scratch that layers share;
    4. `forward(inputs, step)`, then at most one `backward(gradient, step)` for the same rows.

    The inputs stay as they are until `backward`. The outputs stay until the next `forward`, and
    nobody writes to them. `backward` may overwrite the gradient that it is given, and may return
    that array.

    A layer may give more. The attributes and methods below say so, and their values here are what
    works for every layer:

    - `layers`: those inside this one, which `walk` finds.
    - `reads_bf16`, `writes_bf16`: whether its inputs, or its outputs, may be stored as bf16, and
      their gradients with them. Then the owner sets `bf16_inputs` and `bf16_outputs` between
      `build` and `allocate`.
    - `fuses_addition`: whether `forward_add` needs no memory for the sum.
    - `may_keep_gradient`: whether `backward` leaves its argument as it was where the owner sets
      `keep_gradient` before `allocate`. Other layers need a copy.
    - `operations`, `describe`, `inside`: for the layer table.
    """

    parameters: tuple[Parameter, ...] = ()  # trained
    statistics: tuple[Parameter, ...] = ()  # saved and averaged over ranks, not trained
    layers: Sequence["Layer"] = ()
    bf16: bool | None = None  # True: products of bf16 numbers with float32 sums, if it has any
    reads_bf16 = writes_bf16 = False
    bf16_inputs = bf16_outputs = False
    fuses_addition = False
    may_keep_gradient = keep_gradient = False

    @abstractmethod
    def build(self, shape: Shape) -> Shape:
        """Declare parameters and statistics for inputs of this shape and return the shape of the
        outputs. Errors: EnsyncError, when the layer cannot take such inputs.
        """

    def bind(self, values: Views, gradients: Views) -> None:
        """Take views: values of parameters and statistics by name, gradients of parameters by
        name.
        """

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        """Make the buffers, and reserve room in the workspace and keep it where scratch is needed.

        first: the gradient of the inputs is not needed.
        """

    def stored(self, dtype: np.dtype) -> tuple[np.dtype, np.dtype]:
        """Return the types in which inputs and outputs, and their gradients, are stored, where
        parameters are of this one.
        """
        return BF16 if self.bf16_inputs else dtype, BF16 if self.bf16_outputs else dtype

    @abstractmethod
    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        """Return the outputs `(rows, *shape)`, valid until the next forward."""

    def forward_add(
        self, inputs: np.ndarray, added: np.ndarray, relu: bool, step: Step, out: np.ndarray
    ) -> np.ndarray:
        """Return forward(inputs) + added, behind a ReLU if `relu`, all `(rows, *shape)`.

        The result is `out`, or the layer's own outputs where it `fuses_addition`. The gradient that
        `backward` then gets is that of the sum before the ReLU.
        """
        np.add(self.forward(inputs, step), added, out=out)
        if relu:
            np.maximum(out, 0, out=out)
        return out

    # returns None where the gradient is not needed (`first`); the caller knows, hence Any
    @abstractmethod
    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | Any:
        """Fill the parameters' gradients from the gradient of the outputs (may be overwritten);
        return that of the inputs.
        """

    def operations(self, shape: Shape) -> int:
        """Multiply-adds of the forward pass of one sample, for outputs of this shape."""
        return 0

    def describe(self) -> str:
        """The layer in a few words, for the layer table."""
        return type(self).__name__

    def inside(self) -> list[tuple[str, "Layer", Shape]]:
        """What the layer table shows of the inside: a prefix, the layer, the shape of its
        outputs.
        """
        return []


def walk(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Yield each layer, followed by those nested in it."""
    for layer in layers:
        yield layer
        yield from walk(layer.layers)
