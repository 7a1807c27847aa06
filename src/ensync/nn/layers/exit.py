"""An early exit: a head of its own on the values between two layers."""

from collections.abc import Sequence

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Layer, Shape, Step
from ensync.nn.memory import Workspace, zeros
from ensync.nn.sequential import Sequential


class Exit(Sequential):
    """outputs = the inputs; beside them the `logits` of a head, `(rows, classes)`, by which images
    may leave the network here (BranchyNet, Teerapittayanon et al. 2016).

    While training the forward pass computes them, and the owner writes their gradient to `gradient`
    before the backward pass. weight: of their loss in the sum of all.
    """

    def __init__(self, layers: Sequence[Layer], weight: float = 1.0) -> None:
        super().__init__(layers)
        self.weight = weight

    def build(self, shape: Shape) -> Shape:
        outputs = super().build(shape)
        if len(outputs) != 1:
            raise EnsyncError(
                f"an exit with outputs of shape {' x '.join(map(str, outputs))}",
                "one row of outputs, one for each class",
                "end its layers with a dense one",
            )
        (self.classes,) = outputs
        return shape

    def allocate(self, rows: int, dtype: np.dtype, workspace: Workspace, first: bool) -> None:
        super().allocate(rows, dtype, workspace, first)
        self.first = first
        self.gradient = zeros((rows, self.classes), dtype)

    def answer(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        """Return the logits for inputs `(rows, *shape)`, valid until the next time."""
        return super().forward(inputs, step)

    def forward(self, inputs: np.ndarray, step: Step) -> np.ndarray:
        if step.training:
            self.logits = self.answer(inputs, step)
        return inputs

    def backward(self, gradient: np.ndarray, step: Step) -> np.ndarray | None:
        inner = super().backward(self.gradient[: len(gradient)], step)
        if self.first:
            return None
        gradient += inner
        return gradient

    def describe(self) -> str:
        return "Exit" + f", weight {self.weight:g}" * (self.weight != 1)
