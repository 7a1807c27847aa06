"""What the spread of a difference comes from, images, seeds or both, and how sure its mean is."""

from typing import NamedTuple

import numpy as np


def mean_squares(parts: np.ndarray) -> tuple[float, float, float]:
    """Return the mean squares of images, seeds and their interaction of integers (seeds, images),
    both at least 2: the two-way analysis of variance without replication (Scheffe 1959).
    """
    seeds, images = parts.shape
    correction = float(parts.sum(dtype=np.int64)) ** 2 / parts.size
    of_images, of_seeds = (
        float(np.square(parts.sum(axis=axis, dtype=np.int64)).sum()) / parts.shape[axis]
        - correction
        for axis in (0, 1)
    )
    total = float(np.square(parts, dtype=np.int64).sum()) - correction
    rest = max(total - of_images - of_seeds, 0.0)  # below 0 by rounding alone
    return (
        of_images / (images - 1),
        of_seeds / (seeds - 1),
        rest / ((images - 1) * (seeds - 1)),
    )


class MeanVariance(NamedTuple):
    """The variance of a mean difference: what differs between seeds, seeds - 1 degrees of freedom,
    and what images add to it, images - 1 degrees.
    """

    of_seeds: float
    of_images: float
    seeds: int
    images: int

    @property
    def total(self) -> float:
        """The variance of the mean."""
        return self.of_seeds + self.of_images

    @property
    def degrees(self) -> float:
        """Satterthwaite's degrees of freedom of the total, which is not 0."""
        parts = self.of_seeds**2 / (self.seeds - 1) + self.of_images**2 / (self.images - 1)
        return self.total**2 / parts

    def half(self, p: float) -> float:
        """Return half the width of the interval of confidence 1 - p; see `difference`."""
        from scipy.special import stdtrit

        if self.total == 0:
            return 0.0
        new = -stdtrit(self.degrees, p / 2) * np.sqrt(self.total)
        return float(max(new, -stdtrit(self.seeds - 1, p / 2) * np.sqrt(self.of_seeds)))

    def p_value(self, value: float) -> float:
        """Return the p whose interval around `value` ends at 0: the larger one of both tests."""
        from scipy.special import stdtr

        if value == 0:
            return 1.0
        if self.total == 0:
            return 0.0
        new = stdtr(self.degrees, -abs(value) / np.sqrt(self.total))
        these = stdtr(self.seeds - 1, -abs(value) / np.sqrt(self.of_seeds)) if self.of_seeds else 0
        return 2 * float(max(new, these))
