"""Sums over ranks."""

import hashlib
from time import perf_counter
from typing import Any

import numpy as np
from mpi4py import MPI

from ensync.mpi.world import Comm

# Elements passed to MPI at once: its counts are 32-bit before MPI-4.
_LONGEST = 1 << 28


class Allreduce:
    """Sums a flat float32 or float64 vector over the ranks of a communicator, in place, and counts what that costs."""

    def __init__(self, comm: Comm) -> None:
        self.comm = comm
        self.calls, self.bytes, self.seconds = 0, 0, 0.0

    def __call__(self, vector: np.ndarray) -> None:
        """Replace `vector` (n,) by its sum over the ranks; the same bits arrive on all of them. Collective."""
        if self.comm.size == 1:
            return
        start = perf_counter()
        for first in range(0, len(vector), _LONGEST):
            self.comm.Allreduce(MPI.IN_PLACE, vector[first : first + _LONGEST], op=MPI.SUM)
        self.calls += 1
        self.bytes += vector.nbytes
        self.seconds += perf_counter() - start


def sum_counts(comm: Comm, counts: np.ndarray) -> np.ndarray:
    """Return the sum over ranks of an int64 or float64 array of any shape, on every rank. Collective."""
    total = np.ascontiguousarray(counts).copy()
    comm.Allreduce(MPI.IN_PLACE, total, op=MPI.SUM)
    return total


def reduce_to_root(comm: Comm, array: np.ndarray) -> np.ndarray | None:
    """Return the sum over ranks of an array of any shape on rank 0, None elsewhere. Collective."""
    array = np.ascontiguousarray(array)
    total = np.empty_like(array) if comm.rank == 0 else None
    comm.Reduce(array, total, op=MPI.SUM)
    return total


def gather_to_root(comm: Comm, item: Any) -> list[Any] | None:
    """Return the (picklable) items of all ranks in order of rank on rank 0, None elsewhere. Collective."""
    return comm.gather(item)


def replicas_equal(comm: Comm, vector: np.ndarray) -> bool:
    """Return on every rank whether all ranks hold the same bits in `vector`, compared by hash. Collective."""
    digest = hashlib.blake2b(np.ascontiguousarray(vector), digest_size=16).digest()
    return comm.allreduce(comm.bcast(digest) == digest, op=MPI.LAND)
