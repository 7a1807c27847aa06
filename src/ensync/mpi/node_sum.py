"""The sum of one vector per rank where ranks share nodes: in shared memory on a node, by MPI
between nodes.

MPI copies a vector through buffers of its own, several times. Here each rank's vector lies in
memory that all ranks of the node can reach: rank r of P sums block r of all P vectors, in order of
rank, and stores the sum in all P of them. Or, where the sum is a gradient, it stores what the
update makes of it: block r of the parameters (`shared_update`).
"""

import os
import time
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

from ensync.core.sharding import block
from ensync.mpi.world import Comm, split

# A rank's memory is whole pages: one for the counter by which it announces its progress, then those
# of its vector.
_PAGE = 4096
# Elements summed at once, so that a piece stays in the cache between its addition and its copies
# (or its update).
_PIECE = 1 << 16
# Elements in a cache line of 64 bytes (float32): no two ranks write to the same line.
_LINE = 16
# Looks at a counter before other processes get the core, and seconds before the waiting rank sleeps
# between looks.
_LOOKS, _PATIENCE, _NAP = 200, 1e-3, 1e-4

_yield_core = getattr(os, "sched_yield", lambda: time.sleep(0))


class NodeVector:
    """A vector (n,) of each rank, and their sum in place. All ranks call `barrier`, `sum` and
    `free` alike.

    `node` are the ranks of `comm` that share this node's memory; every node has the same number of
    them. Collective.
    """

    def __init__(self, comm: Comm, node: Comm, n: int, dtype: np.dtype | type) -> None:
        dtype = np.dtype(dtype)
        self._node = node
        self.across = split(comm, node.rank, comm.rank)  # one rank of each node
        self._window = MPI.Win.Allocate_shared(
            _PAGE + -(-n * dtype.itemsize // _PAGE) * _PAGE, 1, comm=node
        )
        self._window.Lock_all()  # an epoch without end: Sync is allowed within one only
        memory = [
            memoryview(self._window.Shared_query(rank)[0]).cast("B") for rank in range(node.size)
        ]
        self._counters = [part[:8].cast("q") for part in memory]
        self._vectors = [np.frombuffer(part, dtype, n, _PAGE) for part in memory]
        self._round = 0
        self._counters[node.rank][0] = 0
        self.values = self._vectors[node.rank]
        own = self.block(node.rank)
        self._start, self._stop = own.start, own.stop
        self.values[:] = 0
        node.Barrier()

    def sum(self) -> None:
        """Replace the values by their sum over the ranks of `comm`, the same bits on all of
        them. Collective.
        """
        self.barrier()
        for start in range(self._start, self._stop, _PIECE):
            piece = slice(start, min(start + _PIECE, self._stop))
            total = self._total(piece)
            for vector in self._vectors[1:]:
                vector[piece] = total
        self.barrier()

    def sum_to_first(self) -> None:
        """Write the sum over this node's ranks to the vector of its first rank, and have the others
        wait for it. Collective over the node.
        """
        self.barrier()
        for start in range(self._start, self._stop, _PIECE):
            self._on_node(slice(start, min(start + _PIECE, self._stop)))
        self.barrier()

    def copy_first(self, end: int) -> None:
        """Copy the first `end` elements of the node's first rank to all others, when that rank is
        here. Collective over the node.
        """
        self.barrier()
        if not self.is_first:
            self.values[:end] = self._vectors[0][:end]
        self.barrier()

    @property
    def is_first(self) -> bool:
        """Whether this rank is the first of its node."""
        return bool(self._node.rank == 0)

    @property
    def ranks(self) -> int:
        """The ranks of the node."""
        return int(self._node.size)

    def sum_blocks(self, end: int, use: Callable[[slice, np.ndarray], None]) -> None:
        """Sum this rank's block of the first `end` elements, and hand each piece of it to `use`, as
        a slice and sums that it may change.

        Follows a `barrier`, and overwrites what the vectors hold there. Collective where there are
        several nodes.
        """
        stop = min(self._stop, end)
        for start in range(self._start, stop, _PIECE):
            piece = slice(start, min(start + _PIECE, stop))
            use(piece, self._total(piece))

    def sum_from(self, start: int) -> np.ndarray:
        """Return the sum of the elements from `start` on, the same bits on all ranks. Follows a
        `barrier`. Collective.
        """
        total = self._vectors[0][start:].copy()
        for vector in self._vectors[1:]:
            total += vector[start:]
        if self.across.size > 1:
            self.across.Allreduce(MPI.IN_PLACE, total, op=MPI.SUM)
        return total

    def block(self, rank: int) -> slice:
        """The elements that a rank of the node sums."""
        lines = block(-(-len(self.values) // _LINE), self._node.size, rank)
        return slice(*(min(line * _LINE, len(self.values)) for line in lines))

    def _total(self, piece: slice) -> np.ndarray:
        """Return the sum of a piece over the ranks of all nodes, in the memory of the node's
        first rank.
        """
        total = self._on_node(piece)
        if self.across.size > 1:
            self.across.Allreduce(MPI.IN_PLACE, total, op=MPI.SUM)
        return total

    def _on_node(self, piece: slice) -> np.ndarray:
        """Return the sum of a piece over the ranks of the node, in the memory of its first rank."""
        total, *others = (vector[piece] for vector in self._vectors)
        for vector in others:
            np.add(total, vector, out=total)
        return total

    def barrier(self) -> None:
        """Wait until all ranks of the node are here; what each wrote before is then visible to
        all.
        """
        self._round += 1
        self._window.Sync()
        self._counters[self._node.rank][0] = self._round
        for counter in self._counters:
            if counter[0] < self._round:
                self._wait(counter)
        self._window.Sync()

    def _wait(self, counter: memoryview) -> None:
        """Look at a counter: eagerly at first, then leaving the core to others, then asleep,
        with MPI kept in motion.
        """
        for _ in range(_LOOKS):
            if counter[0] >= self._round:
                return
        limit = time.monotonic() + _PATIENCE
        while counter[0] < self._round:
            if time.monotonic() < limit:
                _yield_core()
            else:
                self._node.Iprobe()
                time.sleep(_NAP)

    def free(self) -> None:
        """Give the memory back; `values` must not be touched again. Collective."""
        self._vectors, self._counters, self.values = [], [], np.empty(0)
        self._window.Unlock_all()
        self._window.Free()
        self.across.Free()
