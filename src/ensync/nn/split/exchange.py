"""What layers ask of the ranks that hold one network together, and a rank that has no others."""

from typing import Protocol, runtime_checkable

import numpy as np


class Exchange(Protocol):
    """Passes values between `ranks` ranks, of which this one is `rank` (mpi.values.ValueExchange).

    All of them make the same calls. Arrays are contiguous and flat but for the first axis.
    """

    ranks: int
    rank: int

    def of_groups(self, groups: int) -> "Exchange":
        """Return the exchange within this rank's group, where neighbours form so many groups of
        one size.
        """
        ...

    def gather(self, own: np.ndarray, parts: np.ndarray) -> None:
        """Write every rank's `own` (n,) to `parts` (ranks, n), on every rank."""
        ...

    def scatter(self, parts: np.ndarray, own: np.ndarray) -> None:
        """Write to `own` (n,) the sum of what all ranks have for this one in `parts` (ranks, n):
        the adjoint of `gather`.
        """
        ...

    def sum(self, values: np.ndarray) -> None:
        """Replace values (n,) by their sum over the ranks, the same bits on all."""
        ...

    def swap(
        self, low: np.ndarray, high: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> None:
        """Send `low` to the rank before this one and `high` to the one after it, and receive
        theirs in `before` and `after`; the first and the last rank leave what they have no
        neighbour for.
        """
        ...


class StandIn:
    """The first of some ranks without the others, for what depends on shapes only: the memory
    that a network takes, and the kernels that it needs.
    """

    rank = 0

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks

    def of_groups(self, groups: int) -> "StandIn":
        """Return the first of fewer ranks."""
        return StandIn(self.ranks // groups)

    def gather(self, own: np.ndarray, parts: np.ndarray) -> None:
        """Take all ranks' for its own."""
        parts[:] = own

    def scatter(self, parts: np.ndarray, own: np.ndarray) -> None:
        """Take what it has for itself."""
        own[:] = parts[0]

    def sum(self, values: np.ndarray) -> None:
        """Take its own for the sum."""

    def swap(
        self, low: np.ndarray, high: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> None:
        """Take its own channels for the neighbour's."""
        after[:] = high


@runtime_checkable
class Links(Protocol):
    """Passes values between the stages of a network, `ranks` of them, of which this rank is number
    `rank` (mpi.stages.StageLinks). Arrays to receive in are contiguous.
    """

    ranks: int
    rank: int

    def send(self, values: np.ndarray, stage: int) -> None:
        """Begin to send a copy of values to a stage, which receives them in the order of their
        sending. Never waits.
        """
        ...

    def receive(self, out: np.ndarray, stage: int) -> None:
        """Wait for the next values of a stage, as many as `out` has."""
        ...

    def look(self) -> None:
        """Move on what is on its way."""
        ...

    def finish(self) -> None:
        """Wait until all that was sent was received."""
        ...

    def from_last(self, values: np.ndarray) -> None:
        """Replace values (n,) by those of the last stage. Collective."""
        ...


Holding = Exchange | Links  # what the ranks that hold one network together have of each other


class StandInLinks:
    """A stage without the others, where only shapes matter."""

    def __init__(self, ranks: int, rank: int) -> None:
        self.ranks, self.rank = ranks, rank

    def send(self, values: np.ndarray, stage: int) -> None:
        """Send nothing."""

    def receive(self, out: np.ndarray, stage: int) -> None:
        """Receive zeros."""
        out[...] = 0

    def look(self) -> None:
        """Have nothing on its way."""

    def finish(self) -> None:
        """Wait for nobody."""

    def from_last(self, values: np.ndarray) -> None:
        """Keep its own values."""
