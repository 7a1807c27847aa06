"""One update for the replicas of a node: each rank sums a block of the gradient, updates that block
of the parameters, and hands it to the others.

Every rank updating all of its replica would read and write the same parameters and moments once
more on each; so each does its block for all (the first stage of ZeRO, Rajbhandari et al. 2020). The
state of the optimiser is then needed for a rank's own block only, and the whole summed gradient by
nobody.
"""

from collections.abc import Callable
from time import perf_counter

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, begin
from ensync.mpi.node_sum import NodeVector
from ensync.mpi.world import Comm

_GRADIENT, _TRAINING = float(Doing.GRADIENT), float(Doing.TRAINING)


class NodeUpdate:
    """The parameters (size,) of this rank's replica, and their update by the gradient, the first
    `size` elements of the vector `gradient`.

    note: told after each step the seconds that waiting, summing and handing over took. Collective.
    """

    def __init__(
        self, comm: Comm, node: Comm, gradient: NodeVector, size: int, note: Callable[[float], None]
    ) -> None:
        self._node, self._gradient, self._size, self._note = node, gradient, size, note
        self._parameters = NodeVector(comm, node, size, gradient.values.dtype)
        self._begun = 0.0
        self.parameters = self._parameters.values

    def sum_behind(self) -> np.ndarray:
        """Wait until all ranks have their gradients; return the sum of what travels behind them,
        the same bits on all. Collective.
        """
        self._begun = perf_counter()
        begin(_GRADIENT, self._begun)
        self._gradient.meet()
        return self._gradient.sum_behind(self._size)

    def update(self, step: Callable[[slice, np.ndarray], None]) -> None:
        """Have `step` change each piece of this rank's block of the parameters by the sum of the
        gradient there. Follows `sum_behind`. Collective.
        """
        busy = 0.0

        def update(piece: slice, total: np.ndarray) -> None:
            nonlocal busy
            start = perf_counter()
            step(piece, total)
            busy += perf_counter() - start
            self._parameters.give(piece)

        self._gradient.sum_blocks(self._size, update)
        self._gradient.meet()
        end = perf_counter()
        self._note(end - self._begun - busy)
        begin(_TRAINING, end)

    def complete(self, vector: np.ndarray) -> None:
        """Make a vector (size,), of which each rank of a node holds its block, whole on all of
        them. Collective.
        """
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
