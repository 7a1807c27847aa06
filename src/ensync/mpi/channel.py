"""Vectors on their way between rank 0 and the others, who compute meanwhile."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, doing
from ensync.mpi.wire import passed
from ensync.mpi.world import Comm

_TAG = 51
_LOOKS, _NAP = 100, 1e-4  # looks for a sum before a rank sleeps between them, and seconds of that


@dataclass
class _Post:
    """A copy of a vector, and its sends, which need it until they end."""

    values: np.ndarray
    requests: list[MPI.Request]


class PendingSum:
    """A sum over ranks that has begun."""

    def __init__(self, comm: Comm, values: np.ndarray, note: Callable[[int, float], None]) -> None:
        self._note, self._own, self._total = note, values.copy(), np.zeros_like(values)
        self._ranks, self._request = comm.size, comm.Iallreduce(self._own, self._total)

    def result(self, serve: Callable[[], bool]) -> np.ndarray:
        """Wait for the sum, the same bits on all ranks. Collective.

        serve: called meanwhile; does what others wait for, and returns whether that was anything.
        """
        start, looks = perf_counter(), 0
        with doing(Doing.COUNTS):
            while not self._request.Test():
                looks = 0 if serve() else looks + 1
                if looks > _LOOKS:
                    time.sleep(_NAP)
        self._note(passed(self._own.nbytes, self._ranks), perf_counter() - start)
        return self._total


class Channel:
    """Sends vectors in order, received in the order of their sending.

    It has a communicator of its own. bytes and seconds: what this rank has sent to others, and its
    waits. Collective.
    """

    def __init__(self, comm: Comm) -> None:
        self._comm = comm.Dup()
        self.others = range(1, comm.size)  # of rank 0
        self.bytes, self.seconds = 0, 0.0
        self._posts: list[_Post] = []

    def post(self, vector: np.ndarray, ranks: Sequence[int]) -> None:
        """Begin to send a copy of a vector to each of these ranks."""
        post = next((each for each in self._posts if self._is_free(each, vector)), None)
        if post is None:
            self._posts.append(post := _Post(np.empty_like(vector), []))
        post.values[:] = vector
        post.requests = [self._comm.Isend(post.values, rank, _TAG) for rank in ranks]
        self.bytes += vector.nbytes * len(ranks)

    @staticmethod
    def _is_free(post: _Post, vector: np.ndarray) -> bool:
        """Whether a copy that is no longer needed has room for this vector."""
        return len(post.values) == len(vector) and MPI.Request.Testall(post.requests)

    def is_here(self, ranks: Sequence[int]) -> bool:
        """Whether the next vector of each of these ranks has come."""
        return all(self._comm.Iprobe(rank, _TAG) for rank in ranks)

    def receive(self, rank: int, out: np.ndarray) -> None:
        """Wait for the next vector of a rank."""
        start = perf_counter()
        with doing(Doing.EXCHANGE):
            self._comm.Recv(out, rank, _TAG)
        self.seconds += perf_counter() - start

    def begin_sum(self, values: np.ndarray) -> PendingSum:
        """Begin to sum a few numbers over all ranks. Collective."""
        return PendingSum(self._comm, values, self._note)

    def _note(self, nbytes: int, seconds: float) -> None:
        self.bytes += nbytes
        self.seconds += seconds

    def spread(self, vector: np.ndarray) -> None:
        """Give all ranks the vector of rank 0. Collective."""
        with doing(Doing.EXCHANGE):
            self._comm.Bcast(vector)

    def finish(self) -> None:
        """Wait until all that was sent was received."""
        with doing(Doing.EXCHANGE):
            for post in self._posts:
                MPI.Request.Waitall(post.requests)
                post.requests = []

    def close(self) -> None:
        """Give the communicator back, after `finish`. Collective."""
        self._comm.Free()
