"""Sums over ranks."""

import hashlib
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, begin, doing
from ensync.mpi.node_sum import NodeVector
from ensync.mpi.partner import Exchange
from ensync.mpi.shared_memory import free_space_obstacle
from ensync.mpi.shared_update import SharedUpdate
from ensync.mpi.wire import Wire, passed
from ensync.mpi.wishes import Wishes
from ensync.mpi.world import Comm, agree_any, node_of

# Elements passed to MPI at once: its counts are 32-bit before MPI-4.
_LONGEST = 1 << 28
_GRADIENT, _STATISTICS, _TRAINING = (
    float(Doing.GRADIENT),
    float(Doing.STATISTICS),
    float(Doing.TRAINING),
)


class Allreduce:
    """Sums flat float32 or float64 vectors over the ranks of a communicator, in place, and counts
    what that costs.

    calls, bytes (passed to other ranks, see mpi.wire.passed) and seconds (waiting for slower ranks
    included) are this rank's.
    """

    def __init__(self, comm: Comm) -> None:
        self.comm = comm
        self.calls, self.bytes, self.seconds = 0, 0, 0.0
        self._node: Comm | None = None
        self._held: list[SharedUpdate | NodeVector] = []

    def __call__(self, vector: np.ndarray, operation: float = _STATISTICS) -> None:
        """Replace `vector` (n,), such as statistics of a batch normalisation, by its sum over the
        ranks; the same bits arrive on all of them. Collective.

        operation: what the watchdog calls the wait.
        """
        if self.comm.size > 1:
            self._sum(operation, partial(_sum, self.comm, vector), vector.nbytes)

    def wishes(self) -> Wishes:
        """Return what hears wishes of the ranks between their meetings."""
        return Wishes(self.comm, self._count)

    def exchange(self, like: np.ndarray) -> Exchange:
        """Return what passes vectors like this one between two ranks at a time."""
        return Exchange(self.comm, like, self._pass)

    def wire(self, comm: Comm | None = None) -> Wire:
        """Return what passes compressed vectors between the ranks, or those of a part of them, and
        counts their bytes here.
        """
        return Wire(self.comm if comm is None else comm, self.note)

    def vector(self, n: int, dtype: np.dtype | type = np.float32) -> "SummedVector":
        """Return a vector of zeros (n,) that is summed fast: where ranks share a node, it lies in
        the memory of the node. Collective.
        """
        if self.comm.size == 1:
            return SummedVector(self, np.zeros(n, dtype))
        with doing(Doing.SHARED):
            shared = self._lay_out(n, np.dtype(dtype))
        return SummedVector(self, np.zeros(n, dtype) if shared is None else shared.values, shared)

    def _lay_out(self, n: int, dtype: np.dtype) -> NodeVector | None:
        if self._node is None:
            self._node = node_of(self.comm)
        size = self._node.size
        obstacle = free_space_obstacle(size * n * dtype.itemsize)
        if (
            any(self.comm.allgather(bool(obstacle) or size == 1))
            or len(set(self.comm.allgather(size))) > 1
        ):
            return None
        shared = NodeVector(self.comm, self._node, n, dtype)
        self._held.append(shared)
        return shared

    def sum_gradient(self, vector: "SummedVector") -> None:
        """Replace a vector by its sum over the ranks. Collective."""
        if self.comm.size > 1:
            shared, values = vector.shared, vector.values
            add = partial(_sum, self.comm, values) if shared is None else shared.sum
            self._sum(_GRADIENT, add, values.nbytes)

    def sum_by(self, add: Callable[[], None]) -> None:
        """Sum a gradient by `add`, whose calls of a wire count their bytes. Collective."""
        self._sum(_GRADIENT, add, 0)

    def _sum(self, operation: float, add: Callable[[], None], nbytes: int) -> None:
        start = perf_counter()
        begin(operation, start)
        add()
        end = perf_counter()
        self._count(nbytes, end - start)
        begin(_TRAINING, end)

    def shared_update(self, gradient: "SummedVector", size: int) -> SharedUpdate | None:
        """Return the shared update of the parameters whose gradient is the first `size` elements of
        a vector. Collective.

        None where its ranks have a node each, or too little shared memory.
        """
        shared, nbytes = gradient.shared, gradient.values.nbytes
        if shared is None or self._node is None:
            return None
        if any(self.comm.allgather(bool(free_space_obstacle(nbytes)))):
            return None
        with doing(Doing.SHARED):
            update = SharedUpdate(self.comm, self._node, shared, size, partial(self._count, nbytes))
        self._held.insert(0, update)
        return update

    def _count(self, nbytes: int, seconds: float) -> None:
        self.calls += 1
        self.bytes += passed(nbytes, self.comm.size)
        self.seconds += seconds

    def _pass(self, nbytes: int, seconds: float) -> None:
        self.calls += 1
        self.bytes += nbytes
        self.seconds += seconds

    def note(self, nbytes: int) -> None:
        """Count bytes that were passed to others."""
        self.bytes += nbytes

    def close(self) -> None:
        """Give the memory of all vectors back, which must not be touched again; the counters
        stay. Collective.
        """
        for each in self._held:
            each.free()
        self._held.clear()
        if self._node is not None:
            self._node.Free()
            self._node = None


class SummedVector:
    """A vector that an Allreduce made: `values` (n,), and their sum over the ranks in place."""

    def __init__(
        self, allreduce: Allreduce, values: np.ndarray, shared: NodeVector | None = None
    ) -> None:
        self.values, self.shared = values, shared
        self._allreduce = allreduce

    def sum(self) -> None:
        """Replace the values by their sum over the ranks, the same bits on all. Collective."""
        self._allreduce.sum_gradient(self)

    def sum_whole(self) -> None:
        """Do so without loss of digits, where `sum` compresses. Collective."""
        self._allreduce.sum_gradient(self)


def _sum(comm: Comm, vector: np.ndarray) -> None:
    """Sum by MPI, a stretch that its counts can hold at a time."""
    for first in range(0, len(vector), _LONGEST):
        comm.Allreduce(MPI.IN_PLACE, vector[first : first + _LONGEST], op=MPI.SUM)


def sum_counts(comm: Comm, counts: np.ndarray) -> np.ndarray:
    """Return the sum over ranks of an int64 or float64 array of any shape, on every rank.
    Collective.
    """
    total = np.ascontiguousarray(counts).copy()
    with doing(Doing.COUNTS):
        comm.Allreduce(MPI.IN_PLACE, total, op=MPI.SUM)
    return total


def reduce_to_root(comm: Comm, array: np.ndarray) -> np.ndarray | None:
    """Return the sum over ranks of an array of any shape on rank 0, None elsewhere. Collective."""
    array = np.ascontiguousarray(array)
    total = np.empty_like(array) if comm.rank == 0 else None
    with doing(Doing.COUNTS):
        comm.Reduce(array, total, op=MPI.SUM)
    return total


def gather_to_root(comm: Comm, item: Any) -> list[Any] | None:
    """Return the (picklable) items of all ranks in order of rank on rank 0, None elsewhere.
    Collective.
    """
    with doing(Doing.GATHERING):
        return comm.gather(item)


def replicas_equal(comm: Comm, vector: np.ndarray) -> bool:
    """Return on every rank whether all ranks hold the same bits in `vector`, compared by hash.
    Collective.
    """
    digest = hashlib.blake2b(np.ascontiguousarray(vector).data, digest_size=16).digest()
    with doing(Doing.AGREEMENT):
        roots = comm.bcast(digest)
    return not agree_any(comm, roots != digest)
