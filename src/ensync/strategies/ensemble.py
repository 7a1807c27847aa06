"""Every rank, or group of ranks, trains networks of its own on rows of their own; rank 0 fuses
them. They may be one network for the first epochs (ensemble.start = "synchronous").
"""

from typing import ClassVar

import numpy as np

from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.core.sharding import member_rows
from ensync.strategies.strategy import Phase, Strategy

MOST_MEMBERS = 4096


class Ensemble(Strategy):
    """Members that differ by their start values, their rows or both."""

    name: ClassVar[str] = "ensemble"
    independent: ClassVar[bool] = True

    def members(self, job: Job, ranks: int) -> int:
        """As the job says, one per rank where it leaves that open."""
        return job.ensemble.members or ranks

    def settle(self, job: Job, ranks: int) -> Job:
        """Return the job with its number of members. EnsyncError for more than MOST_MEMBERS."""
        members = self.members(job, ranks)
        if members > MOST_MEMBERS:
            raise EnsyncError(
                f"ensemble.members = {members}", f"at most {MOST_MEMBERS}", "use fewer members"
            )
        return job.model_copy(
            update={"ensemble": job.ensemble.model_copy(update={"members": members})}
        )

    def phases(self, job: Job) -> list[Phase]:
        """One phase, or before it another with one network, which all members start from."""
        last = Phase(job.ensemble.members, job.training.epochs)
        if job.ensemble.start != "synchronous" or last.members == 1:
            return [last]
        return [Phase(1, min(job.ensemble.synchronous_epochs, last.last_epoch)), last]

    def rows(self, job: Job, labels: np.ndarray, members: int, member: int) -> np.ndarray:
        """Return the rows that ensemble.data gives a member, all of them to the one network of a
        synchronous start.
        """
        if members == 1 and job.ensemble.start == "synchronous":
            return np.arange(len(labels), dtype=np.int64)
        options = {"alpha": job.ensemble.skew} if job.ensemble.data == "label_skew" else {}
        return member_rows(job.ensemble.data, labels, members, member, job.training.seed, **options)

    def start_values(self, job: Job, member: int) -> int:
        """Return a stream of its own, or the same for all members, as ensemble.start says."""
        return member if job.ensemble.start == "own" else 0

    def fusion(self, job: Job) -> str:
        """As the job says."""
        return job.fusion.method
