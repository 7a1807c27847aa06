"""Sums over ranks."""

import hashlib
from time import perf_counter
from typing import Any

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, begin, doing
from ensync.mpi.node_sum import NodeVector
from ensync.mpi.node_update import NodeUpdate
from ensync.mpi.shared_memory import free_space_obstacle
from ensync.mpi.world import Comm, agree_any, node_of

# Elements passed to MPI at once: its counts are 32-bit before MPI-4.
_LONGEST = 1 << 28
_GRADIENT, _STATISTICS, _TRAINING = (
    float(Doing.GRADIENT),
    float(Doing.STATISTICS),
    float(Doing.TRAINING),
)


class Allreduce:
    """Sums a flat float32 or float64 vector over the ranks of a communicator, in place, and counts
    what that costs.

    calls, bytes (of the vectors) and seconds (waiting for slower ranks included) are this rank's.
    """

    def __init__(self, comm: Comm) -> None:
        self.comm = comm
        self.calls, self.bytes, self.seconds = 0, 0, 0.0
        self._node: Comm | None = None
        self._shared: dict[int, NodeVector] = {}
        self._gradients: set[int] = set()
        self._updates: list[NodeUpdate] = []

    def vector(self, n: int, dtype: np.dtype | type = np.float32) -> np.ndarray:
        """Return zeros (n,) that this object sums fastest: where ranks share a node, they lie in
        its shared memory. Collective.
        """
        if self.comm.size == 1:
            return np.zeros(n, dtype)
        with doing(Doing.SHARED):
            values = self._lay_out(n, np.dtype(dtype))
        self._gradients.add(values.ctypes.data)
        return values

    def _lay_out(self, n: int, dtype: np.dtype) -> np.ndarray:
        if self._node is None:
            self._node = node_of(self.comm)
        size = self._node.size
        obstacle = free_space_obstacle(size * n * dtype.itemsize)
        if (
            any(self.comm.allgather(bool(obstacle) or size == 1))
            or len(set(self.comm.allgather(size))) > 1
        ):
            return np.zeros(n, dtype)
        shared = NodeVector(self.comm, self._node, n, dtype)
        self._shared[shared.values.ctypes.data] = shared
        return shared.values

    def update_of(self, vector: np.ndarray, size: int) -> NodeUpdate | None:
        """Return the shared update of the parameters whose gradient is the first `size` elements of
        a vector of this object. Collective.

        None where its ranks have a node each, or too little shared memory.
        """
        gradient = self._shared.get(vector.ctypes.data)
        if gradient is None or self._node is None:
            return None
        if any(self.comm.allgather(bool(free_space_obstacle(self._node.size * vector.nbytes)))):
            return None
        with doing(Doing.SHARED):
            self._updates.append(
                NodeUpdate(
                    self.comm,
                    self._node,
                    gradient,
                    size,
                    lambda seconds: self._count(seconds, vector.nbytes),
                )
            )
        return self._updates[-1]

    def __call__(self, vector: np.ndarray) -> None:
        """Replace `vector` (n,) by its sum over the ranks; the same bits arrive on all of them.
        Collective.
        """
        if self.comm.size == 1:
            return
        start, address = perf_counter(), vector.ctypes.data
        begin(_GRADIENT if address in self._gradients else _STATISTICS, start)
        shared = self._shared.get(address)
        if shared is not None and len(vector) == len(shared.values):
            shared.sum()
        else:
            _sum(self.comm, vector)
        end = perf_counter()
        self._count(end - start, vector.nbytes)
        begin(_TRAINING, end)

    def _count(self, seconds: float, nbytes: int) -> None:
        self.calls += 1
        self.bytes += nbytes
        self.seconds += seconds

    def close(self) -> None:
        """Give the memory of all vectors back, which must not be touched again; the counters
        stay. Collective.
        """
        held: list[NodeUpdate | NodeVector] = [*self._updates, *self._shared.values()]
        for each in held:
            each.free()
        self._updates.clear()
        self._shared.clear()
        if self._node is not None:
            self._node.Free()
            self._node = None


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
