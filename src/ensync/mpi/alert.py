"""A number that one rank tells all others, which meet nobody to hear it."""

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, doing
from ensync.mpi.world import Comm, share

_TAG = 73


class Alert:
    """A number above 0 that any rank may tell all others once, and that these look for whenever
    they like, such as between two steps. Collective to make and to close.
    """

    def __init__(self, comm: Comm) -> None:
        self._comm = comm.Dup()
        self._told = np.zeros(1, np.int64)
        self._sent: list[MPI.Request] = []
        self._heard: dict[int, int] = {}  # number by the rank that told it

    def tell(self, number: int) -> None:
        """Tell all other ranks a number; nothing once one was told."""
        if self._told[0]:
            return
        self._told[0] = number
        others = (rank for rank in range(self._comm.size) if rank != self._comm.rank)
        self._sent = [self._comm.Isend(self._told, rank, _TAG) for rank in others]

    def heard(self) -> int:
        """Return the largest number that another rank has told so far, 0 where none has."""
        status = MPI.Status()
        while self._comm.Iprobe(MPI.ANY_SOURCE, _TAG, status):
            self._receive(status.Get_source())
        return max(self._heard.values(), default=0)

    def _receive(self, source: int) -> None:
        number = np.zeros(1, np.int64)
        self._comm.Recv(number, source, _TAG)
        self._heard[source] = int(number[0])

    def close(self) -> None:
        """Receive what is still on its way, and end. Collective."""
        for rank, number in enumerate(share(self._comm, int(self._told[0]))):
            if number and rank != self._comm.rank and rank not in self._heard:
                self._receive(rank)
        with doing(Doing.AGREEMENT):
            MPI.Request.Waitall(self._sent)
        self._comm.Free()
