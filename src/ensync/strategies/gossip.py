"""Replicas that each average with one partner after a step: gossip.

With the replicas w_k before a step, the partner p of rank k, and the update u_k that the gradient
of rank k at w_k leads to, a step of N ranks is

    w_k = w_k + u_k + (w_p - w_k) / 2

(Lian et al. 2017, arXiv 1705.09056, with one neighbour at a time). So w_p is on its way while the
gradient is computed. The gradient of rank k is N times its summand of the gradient of the whole
batch: the mean of the replicas moves by the mean of the updates, and partners by what the other
loses. Partners are those of a butterfly, rank XOR 2^t: so many steps as it has bits make a sum over
all ranks; or neighbours in a ring, in turn those on either side.
"""

from typing import ClassVar

import numpy as np

from ensync.core.config.communication import BUTTERFLY, Communication
from ensync.mpi.allreduce import Allreduce, SummedVector
from ensync.nn.optimizers import Factors, Optimizer
from ensync.strategies.apart import ApartReducer
from ensync.training.reducers import Compute, Part, Reducer


def is_butterfly(pattern: str, ranks: int) -> bool:
    """Return whether so many ranks meet as a butterfly: where a job wants it, and they are a power
    of two. Else they are a ring.
    """
    return pattern == BUTTERFLY and ranks & (ranks - 1) == 0


def partner(pattern: str, ranks: int, rank: int, turn: int) -> int:
    """Return the partner of a rank of several in a turn: 0, 1, ...; the rank itself where it has
    none, as one has in a ring of an odd number.
    """
    if is_butterfly(pattern, ranks):
        return rank ^ 1 << turn % (ranks.bit_length() - 1)
    first = turn % ranks
    place = (rank - first) % ranks
    return rank if place ^ 1 >= ranks else ((place ^ 1) + first) % ranks


class GossipReducer(ApartReducer):
    """Steps a replica of this rank's own, with one partner in each step. A rank without rows has a
    gradient of 0.
    """

    needs_rows: ClassVar[bool] = False

    def __init__(
        self,
        settings: Communication,
        optimizer: Optimizer,
        together: Reducer,
        allreduce: Allreduce,
        gradient: SummedVector,
    ) -> None:
        super().__init__(settings, optimizer, together, allreduce, gradient)
        comm, self._exchange = allreduce.comm, allreduce.exchange(self.network.parameters)
        self._own = Part(comm.size, comm.rank, after_layer=lambda number: self._exchange.look())

    def _partner(self) -> int:
        """Return this rank's partner in the step at hand, itself where none is due."""
        comm, steps, every = self._allreduce.comm, self._optimizer.steps, self._settings.every
        assert isinstance(every, int), "effects.py refuses partners that never meet"
        if (steps + 1) % every:
            return int(comm.rank)
        return partner(self._settings.partners, comm.size, comm.rank, (steps + 1) // every - 1)

    def _compute(self, compute: Compute) -> int:
        """Compute the gradient while the partner's parameters come."""
        self._exchange.begin(self.network.parameters, self._partner())
        rows = super()._compute(compute)
        self._received = self._exchange.finish()
        return rows

    def _apply(self, optimizer: Optimizer, factors: Factors) -> None:
        """Update the replica, and come halfway to what the partner's was before."""
        n, pull = self.network, self._received
        if pull is not None:
            pull -= n.parameters
            pull *= 0.5
        n.gradient *= self._allreduce.comm.size
        super()._apply(optimizer, factors)
        if pull is not None:
            n.parameters += pull

    def _take_mean(self) -> None:
        n, share = self.network, 1 / self._allreduce.comm.size
        np.multiply(n.parameters, share, out=n.gradient)
        self._sum(share, self._gradient.sum_whole)
        n.parameters[:] = n.gradient
