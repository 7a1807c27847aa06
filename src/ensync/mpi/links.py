"""How long messages and sums take on the ranks at hand: what `ensync scale` measures."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import cast

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, doing
from ensync.mpi.allreduce import Allreduce
from ensync.mpi.world import Comm, node_of

COLD = 1  # first repeats, which make connections and buffers
FEWEST = 3  # repeats in any case


@dataclass(frozen=True)
class Neighbours:
    """Ranks as they share nodes: `node` has those of this one, `leaders` the first rank of each
    node (None on the others).
    """

    node: Comm
    leaders: Comm | None

    @classmethod
    def of(cls, comm: Comm) -> "Neighbours":
        """Return those of a communicator. Collective."""
        node = node_of(comm)
        color = 0 if node.rank == 0 else MPI.UNDEFINED
        leaders = cast(Comm, comm.Split(color, comm.rank))
        return cls(node, None if leaders == MPI.COMM_NULL else leaders)

    def free(self) -> None:
        """Give the communicators back. Collective."""
        self.node.Free()
        if self.leaders is not None:
            self.leaders.Free()


def repeated(comm: Comm, once: Callable[[], float], seconds: float, most: int = 200) -> float:
    """Return on every rank the median of what `once` returns on rank 0, called as often as fits
    into so many seconds. Collective.
    """
    times: list[float] = []
    with doing(Doing.EXCHANGE):
        for _ in range(COLD):
            once()
        start, going = perf_counter(), True
        while going:
            times.append(once())
            enough = len(times) >= FEWEST and perf_counter() - start > seconds
            going = comm.bcast(not enough and len(times) < most)
        return float(comm.bcast(median(times)))


def ping_pong(comm: Comm, nbytes: int, seconds: float) -> float:
    """Return the seconds of a message from rank 0 to rank 1 and back, halved. Collective over at
    least two ranks; others wait.
    """
    message = np.zeros(max(1, nbytes), np.uint8)

    def once() -> float:
        start = perf_counter()
        if comm.rank == 0:
            comm.Send(message, 1)
            comm.Recv(message, 1)
        elif comm.rank == 1:
            comm.Recv(message, 0)
            comm.Send(message, 0)
        return (perf_counter() - start) / 2

    return repeated(comm, once, seconds)


def time_sum(comm: Comm, nbytes: int, seconds: float) -> float:
    """Return the seconds of a sum of float32 numbers over the ranks by MPI, begun together.
    Collective.
    """
    vector = np.zeros(max(1, nbytes // 4), np.float32)

    def once() -> float:
        comm.Barrier()
        start = perf_counter()
        comm.Allreduce(MPI.IN_PLACE, vector, op=MPI.SUM)
        return perf_counter() - start

    return repeated(comm, once, seconds)


def time_node_sum(node: Comm, nbytes: int, seconds: float) -> float | None:
    """Return the seconds of a sum of float32 numbers over the ranks of a node in its memory; None
    where that has no room. Collective over them.
    """
    allreduce = Allreduce(node)
    vector = allreduce.vector(max(1, nbytes // 4))

    def once() -> float:
        node.Barrier()
        start = perf_counter()
        vector.sum()
        return perf_counter() - start

    found = None if vector.shared is None else repeated(node, once, seconds)
    allreduce.close()
    return found
