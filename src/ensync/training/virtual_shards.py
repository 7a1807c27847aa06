"""Training whose bits do not depend on the number of ranks: every batch is cut into fixed virtual
shards, each computed by itself.

A rank computes its block of the shards one after the other in one network. Where batch
normalisation takes its statistics over the whole batch, the shards have to meet at every such
layer: then each has a network of its own, over the same parameters, and they advance from meeting
to meeting in turn.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol, cast

import numpy as np

from ensync.core.activity import Doing
from ensync.kernels.threads import follow_threads
from ensync.nn.network import STOP, Network

Meet = Callable[[np.ndarray], None]
Share = Callable[[Network, int, Meet | None], None]


class Sum(Protocol):
    """What sums over shards (mpi.shard_sum.ShardSum)."""

    shards: int
    mine: range

    def over_shards(
        self, vectors: Iterable[np.ndarray], out: np.ndarray, operation: int = Doing.GRADIENT
    ) -> None:
        """Write to `out` the sum of the vectors of all shards."""
        ...


def meets(network: Network) -> bool:
    """Whether a network's shards meet within a step: it has batch normalisations over the whole
    batch.
    """
    return len(network.statistics) > 0 and not network.statistics_travel


class VirtualShards:
    """This rank's shards of every batch; a context manager that keeps the shards' threads, where
    they meet.

    networks: the trained one, then a like-built one for each further shard where they meet.
    """

    def __init__(self, networks: Sequence[Network], total: Sum) -> None:
        self.network, self.networks, self.total = networks[0], networks, total
        self._parts: list[_Part] = []
        for replica in networks[1:]:
            replica.parameters = self.network.parameters
            replica.reduce_in(
                replica.reduced
            )  # binds the layers to the parameters; nobody reads the statistics that a twin moves

    @property
    def count(self) -> int:
        """All shards of a batch."""
        return self.total.shards

    def __enter__(self) -> None:
        if meets(self.network):
            self._parts = [_Part() for _ in self.networks]

    def __exit__(self, *exception: object) -> None:
        for part in self._parts:
            part.close()
        self._parts = []

    def gradient(self, share: Share, stop: int) -> None:
        """Fill the network's `reduced` with the sum over all shards of what `share(network,
        shard, meet)` leaves in that of its network. Collective.
        """
        together = self._together if meets(self.network) else self._in_turn
        self.total.over_shards(self._with_stop_request(together(share), stop), self.network.reduced)

    def _with_stop_request(self, networks: Iterator[Network], stop: int) -> Iterator[np.ndarray]:
        """Yield the shards' vectors; the first carries this rank's wish to stop."""
        for number, network in enumerate(networks):
            network.tail[STOP] = 0 if number else stop
            yield network.reduced

    def _in_turn(self, share: Share) -> Iterator[Network]:
        """Compute a shard at a time, from the same statistics."""
        before = self.network.statistics.copy()
        for shard in self.total.mine:
            self.network.statistics[:] = before
            share(self.network, shard, None)
            yield self.network

    def _together(self, share: Share) -> Iterator[Network]:
        """Compute all shards from meeting to meeting, at which their vectors become the sum over
        all shards.
        """
        pairs = list(zip(self._parts, self.networks, self.total.mine, strict=True))
        waiting = [part.begin(partial(share, network, shard)) for part, network, shard in pairs]
        while waiting[0] is not None:
            met = cast("list[np.ndarray]", waiting)  # all of them: the shards meet equally often
            self.total.over_shards(met, met[0], Doing.STATISTICS)
            for vector in met[1:]:
                vector[:] = met[0]
            waiting = [part.go_on() for part in self._parts]
        assert all(vector is None for vector in waiting), "the shards of a batch meet equally often"
        yield from self.networks


class _Ended(BaseException):
    """The end of a thread within its work; no handler on the way takes it for an error."""


class _Part:
    """A computation that stops at meetings, on a thread that runs only while `begin` or `go_on`
    waits for it.
    """

    def __init__(self) -> None:
        self._turn, self._back = threading.Lock(), threading.Lock()
        self._turn.acquire()
        self._back.acquire()
        self._work: Callable[[Meet], None] | None = None
        self._vector: np.ndarray | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def begin(self, work: Callable[[Meet], None]) -> np.ndarray | None:
        """Start `work(meet)`; return the first vector that it meets with, None when it is done.
        Raises what it raises.
        """
        self._work = work
        return self.go_on()

    def go_on(self) -> np.ndarray | None:
        """Let it compute to its next meeting or its end."""
        self._turn.release()
        self._back.acquire()
        if self._error:
            raise self._error
        return self._vector

    def close(self) -> None:
        """End the thread, in the middle of its work where an error left it there."""
        self._work = None
        self._turn.release()
        self._thread.join()

    def _meet(self, vector: np.ndarray) -> None:
        self._vector = vector
        self._back.release()
        self._turn.acquire()
        if self._work is None:
            raise _Ended

    def _live(self) -> None:
        while self._turn.acquire() and self._work is not None:
            follow_threads()
            try:
                self._work(self._meet)
            except _Ended:
                return
            except Exception as error:
                self._error = error
            self._vector = None
            self._back.release()
