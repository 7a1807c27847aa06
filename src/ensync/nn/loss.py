"""The loss of a batch and its gradient, also of images that were mixed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ensync.core.config.losses import LOSSES
from ensync.kernels.elementwise import losses


class Partners(NamedTuple):
    """What the images of a step were mixed with: labels int64 (rows,), and their share in images
    and loss.
    """

    labels: np.ndarray
    share: float


# By which factor of classes a squared error is the sum of squares.
SQUARES: dict[str, Callable[[int], float]] = {
    "mean_squared_error": lambda classes: 1.0 / classes,
    "half_squared_error": lambda classes: 0.5,
}


@dataclass(frozen=True)
class Loss:
    """The loss of a sample: cross_entropy of softmax(outputs), or a squared error with these
    targets.
    """

    name: str = "cross_entropy"
    smoothing: float = 0.0
    low: float = 0.0
    high: float = 1.0

    def factor(self, classes: int) -> float:
        """What multiplies the sum of squares: 1/classes for the mean, 1/2 for the half."""
        return SQUARES[self.name](classes)

    @property
    def is_cross_entropy(self) -> bool:
        """Whether the outputs are logits."""
        return LOSSES[self.name].of_logits

    def of(
        self, outputs: np.ndarray, labels: np.ndarray, scale: float, gradient: np.ndarray
    ) -> tuple[float, int]:
        """Return the loss sum and the correct count of outputs `(rows, classes)`; write the
        gradient `(rows, classes)` of the loss sum times `scale`.
        """
        if self.is_cross_entropy:
            found: tuple[float, int] = losses.softmax_cross_entropy(
                outputs, labels, scale, self.smoothing, gradient
            )
        else:
            factor = self.factor(outputs.shape[1])
            found = losses.squared_error(
                outputs, labels, self.low, self.high, factor, scale, gradient
            )
        return found

    def of_mixed(
        self,
        outputs: np.ndarray,
        labels: np.ndarray,
        partners: Partners | None,
        scale: float,
        gradient: np.ndarray,
    ) -> tuple[float, int]:
        """Return and write the same, of mixed images by both labels; they are correct by the label
        of the larger share.
        """
        if partners is None:
            return self.of(outputs, labels, scale, gradient)
        share, other = partners.share, np.empty_like(gradient)
        own_loss, own_right = self.of(outputs, labels, (1 - share) * scale, gradient)
        loss, right = self.of(outputs, partners.labels, share * scale, other)
        gradient += other
        return (1 - share) * own_loss + share * loss, own_right if share <= 0.5 else right
