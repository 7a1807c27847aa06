"""Every rank, or group of ranks, trains networks of its own on rows of their own; rank 0 fuses
them. They may be one network for the first epochs (ensemble.start = "synchronous").
"""

from typing import ClassVar

import numpy as np

from ensync.core.config import ensemble as settings
from ensync.core.errors import EnsyncError
from ensync.core.sharding import member_rows
from ensync.strategies.strategy import Phase, Strategy

MOST_MEMBERS = 4096


class Ensemble(Strategy):
    """Members that differ by their start values, their rows or both."""

    name: ClassVar[str] = "ensemble"
    independent: ClassVar[bool] = True

    def members(self, ranks: int) -> int:
        """As the job says, one per rank (or replica) where it leaves that open."""
        return self.ensemble.members or self.replicas(ranks)

    def settled(self, ranks: int) -> settings.Ensemble:
        """Return the section with its number of members. EnsyncError for more than
        MOST_MEMBERS.
        """
        members = self.members(ranks)
        if members > MOST_MEMBERS:
            raise EnsyncError(
                f"ensemble.members = {members}", f"at most {MOST_MEMBERS}", "use fewer members"
            )
        return self.ensemble.model_copy(update={"members": members})

    def phases(self, ranks: int) -> list[Phase]:
        """One phase, or before it another with one network, which all members start from."""
        last = Phase(self.members(ranks), self.training.epochs)
        if self.ensemble.start != "synchronous" or last.members == 1:
            return [last]
        return [Phase(1, min(self.ensemble.synchronous_epochs, last.last_epoch)), last]

    def rows(self, labels: np.ndarray, members: int, member: int) -> np.ndarray:
        """Return the rows that ensemble.data gives a member, all of them to the one network of a
        synchronous start.
        """
        given = self.ensemble
        if members == 1 and given.start == "synchronous":
            return np.arange(len(labels), dtype=np.int64)
        options = {"alpha": given.skew} if given.data == "label_skew" else {}
        return member_rows(given.data, labels, members, member, self.training.seed, **options)

    def start_values(self, member: int) -> int:
        """Return a stream of its own, or the same for all members, as ensemble.start says."""
        return member if self.ensemble.start == "own" else 0

    @property
    def fusion_method(self) -> str:
        """As the job says."""
        return self.fusion.method
