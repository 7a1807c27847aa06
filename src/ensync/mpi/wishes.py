"""Wishes of single ranks, heard by all of them in the same step without a wait in between."""

from collections.abc import Callable
from time import perf_counter

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, doing
from ensync.mpi.world import Comm

SECONDS = 1.0  # about so long from one sum to the next: a wish is heard after twice that
LONGEST = 10_000  # steps from one sum to the next


class Wishes:
    """Tells all ranks of a communicator that one of them wishes something.

    Every so many steps, the same on all ranks, a sum of two integers begins; it ends when the next
    one is due. So ranks that work apart wait for each other only where one is a whole interval
    behind.

    note: called with the bytes and seconds of each sum.
    """

    def __init__(self, comm: Comm, note: Callable[[int, float], None]) -> None:
        self._comm, self._note = comm, note
        self._mine, self._all = np.zeros(2, np.int64), np.zeros(2, np.int64)
        self._request: MPI.Request | None = None
        self._interval = self._left = 1
        self._begun = perf_counter()

    def after_step(self, wish: bool) -> bool:
        """Return on every rank alike whether any rank had a wish when the last sum began.
        Collective, and called in every step.
        """
        self._left -= 1
        if self._left:
            return False
        now = perf_counter()
        self._mine[:] = wish, 1e9 * (now - self._begun) / self._interval
        self._begun = now
        heard = self.finish()
        self._left = self._interval
        self._request = self._comm.Iallreduce(self._mine, self._all)
        return heard

    def finish(self) -> bool:
        """Wait for the last sum; return whether any rank had a wish when it began. Collective."""
        if self._request is None:
            return False
        start = perf_counter()
        with doing(Doing.AGREEMENT):
            self._request.Wait()
        self._request = None
        self._note(self._mine.nbytes, perf_counter() - start)
        wishes, nanoseconds = self._all.tolist()
        step = nanoseconds / 1e9 / self._comm.size
        self._interval = max(1, min(LONGEST, int(SECONDS / max(step, 1e-9))))
        return bool(wishes)
