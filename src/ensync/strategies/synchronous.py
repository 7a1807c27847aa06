"""All ranks train one network: each computes a part of every batch, and the gradients are summed
in every step.
"""

from typing import ClassVar

import numpy as np

from ensync.core.config.ensemble import Ensemble
from ensync.core.fusion import OF_ONE
from ensync.strategies.strategy import Phase, Strategy


class Synchronous(Strategy):
    """Data parallelism: one member, whose rows are all rows."""

    name: ClassVar[str] = "synchronous"

    def members(self, ranks: int) -> int:
        """One."""
        return 1

    def settled(self, ranks: int) -> Ensemble:
        """Return the section as it is."""
        return self.ensemble

    def phases(self, ranks: int) -> list[Phase]:
        """One phase."""
        return [Phase(1, self.training.epochs)]

    def rows(self, labels: np.ndarray, members: int, member: int) -> np.ndarray:
        """Return all rows."""
        return np.arange(len(labels), dtype=np.int64)

    def start_values(self, member: int) -> int:
        """Return the only stream."""
        return 0

    @property
    def fusion_method(self) -> str:
        """The fusion that leaves one network as it is."""
        return OF_ONE
