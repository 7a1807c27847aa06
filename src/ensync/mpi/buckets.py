"""The sum of a gradient in buckets, which begin to travel while the backward pass still computes.

Neither MPICH nor Open MPI moves a message on while a rank computes, so that the sums are looked at
after each layer. A rank begins them in one order, whenever it comes to each; they have a
communicator of their own, so that sums within layers may come between. The buckets are the same
whenever they begin, and so are the bits of the sums.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

from ensync.mpi.allreduce import Allreduce
from ensync.mpi.wire import passed

EACH = 64  # of so many steps the sums of one begin at its end, to see what there is to hide
FIRST = range(1, 4)  # steps of which the same is true; the very first makes connections


class Hidden(NamedTuple):
    """The mean milliseconds that a step waits for its sums, where these begin at its end and where
    they begin on the way.
    """

    whole: float
    exposed: float

    def __str__(self) -> str:
        return f"hidden {max(0.0, self.whole - self.exposed):.1f} of {self.whole:.1f} ms"


def gains() -> bool:
    """Return whether sums that begin early can end earlier with this MPI. Open MPI's Iallreduce in
    place is a reduction to one rank and a broadcast, which take twice as long as its Allreduce of
    a long vector.
    """
    return bool(MPI.get_vendor()[0] != "Open MPI")


def cut(ends: Sequence[int], least: int) -> list[slice]:
    """Return the buckets of a vector whose layers end at `ends`, from the last to the first: of
    at least so many elements, but for the last bucket, and less than twice as many.
    """
    buckets, stop = [], ends[-1] if ends else 0
    for start in [*reversed(ends[:-1]), 0]:
        while stop - start >= 2 * least:
            buckets.append(slice(stop - least, stop))
            stop -= least
        if stop - start >= least or (start == 0 and stop > 0):
            buckets.append(slice(start, stop))
            stop = start
    return buckets


class BucketSums:
    """Replaces a vector by its sum over ranks, a bucket at a time, in each step from `begin` to
    `finish`; what lies behind the first bucket is one of its own, which begins last. Collective.
    """

    def __init__(self, allreduce: Allreduce, vector: np.ndarray, buckets: Sequence[slice]) -> None:
        self._allreduce, self._buckets = allreduce, buckets
        self._vector, self._rest = vector, vector[buckets[0].stop if buckets else 0 :]
        self._comm = allreduce.comm.Dup()
        self._requests: list[MPI.Request] = []
        self._steps, self._waited = -1, 0.0
        self._sums = np.zeros((2, 2))  # steps and seconds: begun at the end, on the way

    @property
    def hidden(self) -> Hidden | None:
        """What of the sums the computation hides; None before there were steps of both kinds."""
        steps, seconds = self._sums.T
        return Hidden(*(1e3 * seconds / steps).tolist()) if steps.all() else None

    def begin(self) -> None:
        """Begin a step."""
        self._steps += 1
        self._waited = 0.0

    def complete(self, start: int) -> None:
        """Have all buckets complete from `start` on: begin the sums of the buckets there, and move
        on those that are on their way. Nothing there may be written to before `finish`.
        """
        if not self._at_the_end:
            self._timed(lambda: self._send(start))

    def finish(self) -> None:
        """Have the whole vector complete, and wait for all sums."""
        self._timed(self._finish)
        if self._steps:
            self._sums[int(not self._at_the_end)] += 1, self._waited

    @property
    def _at_the_end(self) -> bool:
        """Whether the sums of the step at hand begin at its end."""
        return self._steps in FIRST or self._steps % EACH == 0

    def _timed(self, work: Callable[[], None]) -> None:
        before = self._allreduce.seconds
        self._allreduce.sum_by(work)
        self._waited += self._allreduce.seconds - before

    def _send(self, start: int) -> None:
        for bucket in self._buckets[len(self._requests) :]:
            if bucket.start < start:
                break
            self._sum(self._vector[bucket])
        MPI.Request.Testall(self._requests)

    def _sum(self, part: np.ndarray) -> None:
        self._requests.append(self._comm.Iallreduce(MPI.IN_PLACE, part, op=MPI.SUM))
        self._allreduce.note(passed(part.nbytes, self._comm.size))

    def _finish(self) -> None:
        self._send(0)
        self._sum(self._rest)
        MPI.Request.Waitall(self._requests)
        self._requests = []

    def free(self) -> None:
        """Give the communicator back. Collective."""
        self._comm.Free()
