"""Vectors that pass between two ranks while these compute. Neither MPICH nor Open MPI moves a long
message on while a rank computes, so that it is looked at now and then.
"""

from collections.abc import Callable
from time import perf_counter

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, doing
from ensync.mpi.world import Comm

_TAG = 72
_LONGEST = 1 << 28  # elements passed to MPI at once: its counts are 32-bit before MPI-4


class Exchange:
    """Passes a vector to another rank, and takes the one that this rank passes.

    like: a vector of their length and dtype. note: called with the bytes and the seconds waited of
    each.
    """

    def __init__(self, comm: Comm, like: np.ndarray, note: Callable[[int, float], None]) -> None:
        self._comm, self._note = comm, note
        self._received = np.empty_like(like)
        self._requests: list[MPI.Request] = []

    def begin(self, vector: np.ndarray, partner: int) -> None:
        """Begin to pass `vector` (n,), which must stay as it is until `finish`; the partner calls
        it, too, with this rank. Nothing, where the partner is this rank itself.
        """
        if partner == self._comm.rank:
            return
        for first in range(0, len(vector), _LONGEST):
            piece = slice(first, first + _LONGEST)
            self._requests += [
                self._comm.Irecv(self._received[piece], partner, _TAG),
                self._comm.Isend(vector[piece], partner, _TAG),
            ]

    def look(self) -> None:
        """Move on what is on its way."""
        MPI.Request.Testall(self._requests)

    def finish(self) -> np.ndarray | None:
        """Wait for the partner's vector and return it, valid until the next `begin`; None, where
        nothing was begun.
        """
        if not self._requests:
            return None
        start = perf_counter()
        with doing(Doing.EXCHANGE):
            MPI.Request.Waitall(self._requests)
        self._requests = []
        self._note(self._received.nbytes, perf_counter() - start)
        return self._received
