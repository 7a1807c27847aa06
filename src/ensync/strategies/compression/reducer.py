"""A reducer whose sums are compressed."""

from collections.abc import Callable, Mapping

import numpy as np

from ensync.nn.optimizers import Factors, Optimizer
from ensync.nn.step_metrics import StepMetrics
from ensync.strategies.compression.vector import ERROR, CompressedVector
from ensync.training.reducers import Compute, Reducer


class CompressedReducer(Reducer):
    """Does the steps of `together`, which sums `gradient`, and keeps what is not sent yet."""

    def __init__(self, together: Reducer, gradient: CompressedVector) -> None:
        super().__init__(together.network, together.part)
        self._together, self._gradient = together, gradient

    def __enter__(self) -> None:
        """Have the steps after which to compress."""
        self._gradient.start.run_steps = self.run_steps

    @property
    def bytes(self) -> int:
        """Bytes passed to other ranks."""
        return self._together.bytes

    @property
    def seconds(self) -> float:
        """Seconds spent on sums, the time to compress included."""
        return self._together.seconds

    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Compute this rank's part of the batch, and sum."""
        return self._together.reduce(compute, stop_requested)

    def apply(self, optimizer: Optimizer, factors: Factors) -> None:
        """Update this rank's replica."""
        self._together.apply(optimizer, factors)

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """What the way to compress keeps."""
        return self._gradient.vectors

    @property
    def differing(self) -> dict[str, np.ndarray]:
        """The errors."""
        return {ERROR: self._gradient.error}

    @property
    def replica(self) -> dict[str, np.ndarray]:
        """This rank's error."""
        return self.differing

    def restart(self) -> None:
        """Forget the steps so far."""
        self._gradient.restart()

    def restore(self, replica: Mapping[str, np.ndarray]) -> None:
        """Take this rank's error."""
        self._gradient.restore(replica)

    def close(self) -> None:
        """Give back what the sums hold."""
        self._together.close()
