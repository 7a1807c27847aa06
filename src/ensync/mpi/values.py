"""What passes between ranks that hold one network together: values of its layers, forward and back
(nn.split.exchange.Exchange).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import ClassVar

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, doing
from ensync.core.timeline import Kind
from ensync.mpi.wire import passed
from ensync.mpi.world import Comm, split

_TAG = 72


@dataclass
class Cost:
    """Bytes that this rank has passed to others, and seconds spent, waiting included. note: called
    with begin and end of each exchange (time.perf_counter), where somebody wants to know.
    """

    bytes: int = 0
    seconds: float = 0.0
    note: Callable[[float, float], None] | None = None


class Holders:
    """The ranks of a communicator that hold one network together.

    cost: of what passes between them in steps. kind: of event that this is.
    """

    kind: ClassVar[Kind] = Kind.VALUES

    def __init__(self, comm: Comm, cost: Cost | None = None) -> None:
        self.comm, self.cost = comm, cost or Cost()
        self.ranks, self.rank = comm.size, comm.rank

    def from_first(self, values: np.ndarray) -> None:
        """Replace values (n,) by those of the first rank. Not counted. Collective."""
        with doing(Doing.VALUES):
            self.comm.Bcast(values)

    def most(self, number: int) -> int:
        """Return the largest of the ranks' numbers, on every rank. Not counted. Collective."""
        found = np.array([number], np.int64)
        with doing(Doing.VALUES):
            self.comm.Allreduce(MPI.IN_PLACE, found, op=MPI.MAX)
        return int(found[0])

    def to_first(self, own: np.ndarray) -> Sequence[np.ndarray] | None:
        """Return on the first rank every rank's `own` (n,), of one dtype, in their order, None
        elsewhere. Not counted. Collective.
        """
        with doing(Doing.GATHERING):
            sizes = self.comm.gather(len(own))
            joined = np.empty(sum(sizes), own.dtype) if sizes is not None else None
            sent = np.ascontiguousarray(own)
            self.comm.Gatherv(sent, None if joined is None else [joined, sizes])
        if joined is None or sizes is None:
            return None
        return np.split(joined, np.cumsum(sizes)[:-1])

    def close(self) -> None:
        """Give back what it holds of MPI. Collective."""

    @contextmanager
    def _counted(self, nbytes: int) -> Iterator[None]:
        """Count bytes and seconds of the block, and note the wait for the watchdog."""
        start = perf_counter()
        with doing(Doing.VALUES):
            yield
        self.cost.bytes += nbytes
        end = perf_counter()
        self.cost.seconds += end - start
        if self.cost.note is not None:
            self.cost.note(start, end)


class ValueExchange(Holders):
    """Exchanges values between the ranks of a communicator, each of which has a block of the
    channels; all of them make the same calls. Arrays are contiguous.

    cost: of all calls, those of the smaller groups of `of_groups` included.
    """

    def __init__(self, comm: Comm, cost: Cost | None = None) -> None:
        super().__init__(comm, cost)
        self._groups: dict[int, ValueExchange] = {}

    def of_groups(self, groups: int) -> "ValueExchange":
        """Return the exchange within this rank's group, where neighbours form so many groups of
        one size. Collective.
        """
        if groups == 1:
            return self
        if groups not in self._groups:
            group = split(self.comm, self.rank * groups // self.ranks, self.rank)
            self._groups[groups] = ValueExchange(group, self.cost)
        return self._groups[groups]

    def gather(self, own: np.ndarray, parts: np.ndarray) -> None:
        """Write every rank's `own` (n,) to `parts` (ranks, n), on every rank. Collective."""
        with self._counted((self.ranks - 1) * own.nbytes):
            self.comm.Allgather(own, parts)

    def scatter(self, parts: np.ndarray, own: np.ndarray) -> None:
        """Write to `own` (n,) the sum over all ranks of what they have for this one in `parts`
        (ranks, n). Collective.
        """
        with self._counted((self.ranks - 1) * own.nbytes):
            self.comm.Reduce_scatter_block(parts, own, op=MPI.SUM)

    def sum(self, values: np.ndarray) -> None:
        """Replace values (n,) by their sum over the ranks, the same bits on all. Collective."""
        with self._counted(passed(values.nbytes, self.ranks)):
            self.comm.Allreduce(MPI.IN_PLACE, values, op=MPI.SUM)

    def swap(
        self, low: np.ndarray, high: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> None:
        """Send `low` to the rank before this one and `high` to the one after it, and receive
        theirs in `before` and `after`. The first and the last rank leave what they have no
        neighbour for. Collective.
        """
        down = self.rank - 1 if self.rank else MPI.PROC_NULL
        up = self.rank + 1 if self.rank + 1 < self.ranks else MPI.PROC_NULL
        sent = low.nbytes * (self.rank > 0) + high.nbytes * (self.rank + 1 < self.ranks)
        with self._counted(sent):
            self.comm.Sendrecv(low, down, _TAG, after, up, _TAG)
            self.comm.Sendrecv(high, up, _TAG, before, down, _TAG)

    def close(self) -> None:
        """Give the communicators of the smaller groups back. Collective."""
        for group in self._groups.values():
            group.comm.Free()
        self._groups.clear()
