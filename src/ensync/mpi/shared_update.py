"""One update for the ranks of a node: each sums a block of the gradient, and updates that block of
the parameters, of which the node has one copy in shared memory.

If every rank updated a replica of its own, each would read and write all parameters and all slots
of the optimiser. Here a rank does so for its block only (the first stage of ZeRO, Rajbhandari et
al. 2020). Only that block of a slot is then up to date on a rank, and no rank has the whole sum of
the gradient. With one copy of the parameters nothing is copied to other ranks, and a cache that
ranks share holds it once.
"""

from collections.abc import Callable
from time import perf_counter

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, begin, doing
from ensync.mpi.node_sum import NodeVector
from ensync.mpi.world import Comm, agree_any

_GRADIENT, _TRAINING = float(Doing.GRADIENT), float(Doing.TRAINING)


class SharedUpdate:
    """The parameters (size,) of a node, and their update by the gradient, the first `size`
    elements of the vector `gradient`.

    All ranks of the node see `parameters`, so that a rank may change them within `update` only.
    note: called after each step with the seconds that waiting and summing took. Collective.
    """

    def __init__(
        self, comm: Comm, node: Comm, gradient: NodeVector, size: int, note: Callable[[float], None]
    ) -> None:
        self._comm, self._node, self._gradient = comm, node, gradient
        self._size, self._note = size, note
        dtype = gradient.values.dtype
        nbytes = max(1, size) * dtype.itemsize if node.rank == 0 else 0
        self._window = MPI.Win.Allocate_shared(nbytes, 1, comm=node)
        self._window.Lock_all()  # an epoch without end, as that of the gradient
        memory = memoryview(self._window.Shared_query(0)[0]).cast("B")
        self.parameters = np.frombuffer(memory, dtype, size)
        self._begun = 0.0

    def put(self, parameters: np.ndarray) -> bool:
        """Let the shared parameters be these (size,), each rank's block of its own; return whether
        all ranks have the same bits, as they should. Collective.
        """
        own = self._block(self._node.rank)
        self.parameters[own] = parameters[own]
        self.meet()
        bits = f"u{parameters.itemsize}"  # NaN is like itself
        same = np.array_equal(parameters.view(bits), self.parameters.view(bits))
        return not agree_any(self._comm, not same)

    def take(self, parameters: np.ndarray) -> None:
        """Copy the shared parameters to `parameters` (size,), and wait until all ranks have done
        so. Collective.
        """
        parameters[:] = self.parameters
        self.meet()

    def meet(self) -> None:
        """Wait until all ranks of the node are here. Collective."""
        with doing(Doing.MEETING):
            self._gradient.barrier()

    def sum_exact(self) -> np.ndarray:
        """Wait until all ranks have their gradients; return the sum of the elements behind the
        gradient, the same bits on all ranks. Collective.
        """
        self._begun = perf_counter()
        begin(_GRADIENT, self._begun)
        self._gradient.barrier()
        return self._gradient.sum_from(self._size)

    def update(self, step: Callable[[slice, np.ndarray], None]) -> None:
        """Call `step(piece, sum of the gradient there)` for each piece of this rank's block of the
        parameters. Follows `sum_exact`. Collective.
        """
        busy = 0.0

        def update(piece: slice, total: np.ndarray) -> None:
            nonlocal busy
            start = perf_counter()
            step(piece, total)
            busy += perf_counter() - start

        self._gradient.sum_blocks(self._size, update)
        self._gradient.barrier()
        end = perf_counter()
        self._note(end - self._begun - busy)
        begin(_TRAINING, end)

    def gather(self, vector: np.ndarray) -> None:
        """Copy each rank's block of a vector (size,) to the other ranks of the node. Collective."""
        blocks = [self._block(rank) for rank in range(self._node.size)]
        starts, counts = [b.start for b in blocks], [b.stop - b.start for b in blocks]
        self._node.Allgatherv(MPI.IN_PLACE, [vector, (counts, starts)])

    def _block(self, rank: int) -> slice:
        """What a rank of the node updates."""
        block = self._gradient.block(rank)
        return slice(min(block.start, self._size), min(block.stop, self._size))

    def free(self) -> None:
        """Give the parameters' memory back. Collective."""
        self.parameters = np.empty(0)
        self._window.Unlock_all()
        self._window.Free()
