"""All ranks train one network: each computes a part of every batch, and the gradients are summed
in every step.
"""

from typing import ClassVar

import numpy as np

from ensync.core.config.schema import Job
from ensync.core.fusion import OF_ONE
from ensync.strategies.strategy import Phase, Strategy


class Synchronous(Strategy):
    """Data parallelism: one member, whose rows are all rows."""

    name: ClassVar[str] = "synchronous"

    def members(self, job: Job, ranks: int) -> int:
        """One."""
        return 1

    def settle(self, job: Job, ranks: int) -> Job:
        """Return the job as it is."""
        return job

    def phases(self, job: Job) -> list[Phase]:
        """One phase."""
        return [Phase(1, job.training.epochs)]

    def rows(self, job: Job, labels: np.ndarray, members: int, member: int) -> np.ndarray:
        """Return all rows."""
        return np.arange(len(labels), dtype=np.int64)

    def start_values(self, job: Job, member: int) -> int:
        """Return the only stream."""
        return 0

    def fusion(self, job: Job) -> str:
        """Return the fusion that leaves one network as it is."""
        return OF_ONE
