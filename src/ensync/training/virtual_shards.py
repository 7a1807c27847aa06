"""Training whose bits do not depend on the number of ranks: every batch is cut into fixed virtual
shards, each computed by itself.

A rank computes its block of the shards one after the other in one network. Where batch
normalisation takes its statistics over the whole batch, the shards exchange sums at every such
layer. Then each shard has a network of its own, over the same parameters, and a thread of its own.
One thread computes at a time, up to its next sum.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Protocol, cast

import numpy as np

from ensync.core.activity import Doing
from ensync.kernels.threads import follow_threads
from ensync.nn.network import Network
from ensync.nn.step_metrics import STOP, StepMetrics
from ensync.training.reducers import Compute, Part, Reducer

Synchronize = Callable[[np.ndarray], None]


class Sum(Protocol):
    """What sums over shards (mpi.shard_sum.ShardSum)."""

    shards: int
    mine: range

    @property
    def bytes(self) -> int:
        """Bytes sent to other ranks."""
        ...

    @property
    def seconds(self) -> float:
        """Seconds spent on sums over ranks."""
        ...

    def over_shards(
        self, vectors: Iterable[np.ndarray], out: np.ndarray, operation: int = Doing.GRADIENT
    ) -> None:
        """Write to `out` the sum of the vectors of all shards."""
        ...


class DeterministicReducer(Reducer):
    """Computes this rank's virtual shards of every batch, and sums over the shards of all ranks
    along a fixed tree.

    networks: the trained one, then a like-built one for each further shard of this rank where
    batch normalisation synchronises the shards. The threads of these live within `with`.
    """

    def __init__(self, networks: Sequence[Network], total: Sum) -> None:
        super().__init__(networks[0])
        self.networks, self.total = networks, total
        self._threads: list[_ShardThread] = []
        for replica in networks[1:]:
            replica.parameters = self.network.parameters
            replica.bind_message(
                replica.message
            )  # binds the layers to the parameters; the statistics of a replica are never read

    @property
    def bytes(self) -> int:
        """Bytes sent to other ranks."""
        return self.total.bytes

    @property
    def seconds(self) -> float:
        """Seconds spent on sums over ranks."""
        return self.total.seconds

    def __enter__(self) -> None:
        """Start the shards' threads, where they are needed."""
        if self.network.synchronizes_statistics:
            self._threads = [_ShardThread() for _ in self.networks]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the threads."""
        for thread in self._threads:
            thread.close()
        self._threads = []

    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Compute this rank's shards, and sum the messages of all shards."""
        stop = stop_requested()
        computed = self._at_once if self.network.synchronizes_statistics else self._in_turn
        self.total.over_shards(self._messages(computed(compute), stop), self.network.message)
        return self._take(self.network.exact)

    def _messages(self, networks: Iterator[Network], stop: int) -> Iterator[np.ndarray]:
        """Yield the shards' messages; the first says whether this rank was asked to stop."""
        for number, network in enumerate(networks):
            network.metrics[STOP] = 0 if number else stop
            yield network.message

    def _in_turn(self, compute: Compute) -> Iterator[Network]:
        """Compute a shard at a time, from the same statistics."""
        before = self.network.statistics.copy()
        for shard in self.total.mine:
            self.network.statistics[:] = before
            compute(self.network, Part(self.total.shards, shard))
            yield self.network

    def _at_once(self, compute: Compute) -> Iterator[Network]:
        """Compute all shards, from each sum over all shards to the next."""
        triples = zip(self._threads, self.networks, self.total.mine, strict=True)
        waiting = [
            thread.start(partial(self._compute, compute, network, shard))
            for thread, network, shard in triples
        ]
        while waiting[0] is not None:
            vectors = cast("list[np.ndarray]", waiting)  # every shard has equally many sums
            self.total.over_shards(vectors, vectors[0], Doing.STATISTICS)
            for vector in vectors[1:]:
                vector[:] = vectors[0]
            waiting = [thread.resume() for thread in self._threads]
        assert all(vector is None for vector in waiting), "every shard has equally many sums"
        yield from self.networks

    def _compute(
        self, compute: Compute, network: Network, shard: int, synchronize: Synchronize
    ) -> None:
        compute(network, Part(self.total.shards, shard, synchronize))


class _Ended(BaseException):
    """The end of a thread within its work; no handler on the way takes it for an error."""


class _ShardThread:
    """A computation that pauses at each of its sums, on a thread that runs only while `start` or
    `resume` waits for it.
    """

    def __init__(self) -> None:
        self._turn, self._back = threading.Lock(), threading.Lock()
        self._turn.acquire()
        self._back.acquire()
        self._work: Callable[[Synchronize], None] | None = None
        self._vector: np.ndarray | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def start(self, work: Callable[[Synchronize], None]) -> np.ndarray | None:
        """Start `work(synchronize)`; return the first vector that it synchronises, None when it is
        done. Raises what it raises.
        """
        self._work = work
        return self.resume()

    def resume(self) -> np.ndarray | None:
        """Let it compute up to its next sum or its end."""
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

    def _synchronize(self, vector: np.ndarray) -> None:
        self._vector = vector
        self._back.release()
        self._turn.acquire()
        if self._work is None:
            raise _Ended

    def _run(self) -> None:
        while self._turn.acquire() and self._work is not None:
            follow_threads()
            try:
                self._work(self._synchronize)
            except _Ended:
                return
            except Exception as error:
                self._error = error
            self._vector = None
            self._back.release()
