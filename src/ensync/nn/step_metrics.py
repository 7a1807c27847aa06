"""What is counted in a step, behind the gradient in the vector that ranks sum."""

from typing import NamedTuple

import numpy as np

LOSS_SUM, CORRECT, STOP, SPARE = range(4)  # places of the step metrics
METRICS = 4


class StepMetrics(NamedTuple):
    """What is counted in a step, over all ranks that train the network: the sum of the samples'
    losses, how many were classified correctly, and how many ranks were asked to stop.
    """

    loss_sum: float
    correct: int
    stop: int

    @classmethod
    def read(cls, sums: np.ndarray) -> "StepMetrics":
        """Return what the first METRICS elements of a vector say."""
        return cls(float(sums[LOSS_SUM]), int(sums[CORRECT]), int(sums[STOP]))
