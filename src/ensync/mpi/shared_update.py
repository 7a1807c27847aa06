"""One update for the replicas of a node: each rank sums a block of the gradient, updates that block
of the parameters, and copies it to the others.

If every rank updated its whole replica, each would read and write all parameters and all slots of
the optimiser. Here a rank does so for its block only (the first stage of ZeRO, Rajbhandari et al.
2020). Only that block of a slot is then up to date on a rank, and no rank has the whole sum of the
gradient.
"""

from collections.abc import Callable
from time import perf_counter

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, begin
from ensync.mpi.node_sum import NodeVector
from ensync.mpi.world import Comm

_GRADIENT, _TRAINING = float(Doing.GRADIENT), float(Doing.TRAINING)


class SharedUpdate:
    """The parameters (size,) of this rank's replica, and their update by the gradient, the first
    `size` elements of the vector `gradient`.

    note: called after each step with the seconds that waiting, summing and copying took.
    Collective.
    """

    def __init__(
        self, comm: Comm, node: Comm, gradient: NodeVector, size: int, note: Callable[[float], None]
    ) -> None:
        self._node, self._gradient, self._size, self._note = node, gradient, size, note
        self._parameters = NodeVector(comm, node, size, gradient.values.dtype)
        self._begun = 0.0
        self.parameters = self._parameters.values

    def sum_exact(self) -> np.ndarray:
        """Wait until all ranks have their gradients; return the sum of the elements behind the
        gradient, the same bits on all ranks. Collective.
        """
        self._begun = perf_counter()
        begin(_GRADIENT, self._begun)
        self._gradient.barrier()
        return self._gradient.sum_from(self._size)

    def update(self, step: Callable[[slice, np.ndarray], None]) -> None:
        """Call `step(piece, sum of the gradient there)` for each piece of this rank's block, and
        copy that piece of the parameters to the other ranks. Follows `sum_exact`. Collective.
        """
        busy = 0.0

        def update(piece: slice, total: np.ndarray) -> None:
            nonlocal busy
            start = perf_counter()
            step(piece, total)
            busy += perf_counter() - start
            self._parameters.copy_to_others(piece)

        self._gradient.sum_blocks(self._size, update)
        self._gradient.barrier()
        end = perf_counter()
        self._note(end - self._begun - busy)
        begin(_TRAINING, end)

    def gather(self, vector: np.ndarray) -> None:
        """Copy each rank's block of a vector (size,) to the other ranks of the node. Collective."""
        blocks = [self._gradient.block(rank) for rank in range(self._node.size)]
        starts, stops = (
            [min(place, self._size) for place in places]
            for places in zip(*((b.start, b.stop) for b in blocks), strict=True)
        )
        counts = [stop - start for start, stop in zip(starts, stops, strict=True)]
        self._node.Allgatherv(MPI.IN_PLACE, [vector, (counts, starts)])

    def free(self) -> None:
        """Give the parameters' memory back. Collective."""
        self.parameters = np.empty(0)
        self._parameters.free()
