"""What the ways to compress have in common."""

from abc import ABC, abstractmethod

import numpy as np


class Compressor(ABC):
    """Sums vectors (n,) of float32 or float64 over ranks with fewer bytes than they have."""

    @abstractmethod
    def sum(self, vector: np.ndarray, error: np.ndarray) -> None:
        """Replace `vector` by the approximate sum over the ranks, the same bits on all, and write
        to `error` (n,) what of this rank's vector the sum lacks. Collective.

        The sum and the errors of all ranks add up to the sum of their vectors, to rounding. What
        is not finite in a vector makes elements of the sum not finite.
        """

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """What it keeps from step to step by name, the same on all ranks."""
        return {}

    def restart(self) -> None:
        """Forget the steps so far."""
