"""The message of a network, of which the gradient is compressed in sums."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ensync.mpi.allreduce import Allreduce, SummedVector
from ensync.mpi.wire import Wire, passed
from ensync.mpi.world import topology
from ensync.nn.network import Network
from ensync.nn.optimizers import Optimizer
from ensync.strategies.compression.compressor import Compressor

ERROR = "error"


@dataclass
class Start:
    """From which step on sums are compressed: after this share of the run, whose steps the
    optimiser counts. run_steps: of the whole run, set before the first.
    """

    optimizer: Optimizer
    share: float
    run_steps: int = 0

    @property
    def reached(self) -> bool:
        """Whether it is so far."""
        return self.optimizer.steps >= self.share * self.run_steps


class CompressedVector(SummedVector):
    """`values`, as long as the message of a network; what follows the gradient there is summed
    whole.

    Where ranks share nodes, of which there are several, the first rank of each compresses the sum
    of its node, which lies in shared memory, and keeps back what the sums lack. error: what this
    rank has not yet sent of its gradients. vectors: what the compressor keeps. compressor: called
    with what connects the ranks that compress.
    """

    def __init__(
        self,
        allreduce: Allreduce,
        network: Network,
        compressor: Callable[[Wire], Compressor],
        start: Start,
    ) -> None:
        whole = _memory(allreduce, network.message)
        super().__init__(allreduce, whole.values, whole.shared)
        self._wire, self.start = allreduce.wire(), start
        across = None if self.shared is None else self.shared.across
        self._compressor = compressor(allreduce.wire(across))
        self.error = np.zeros_like(network.parameters)
        self.vectors = self._compressor.vectors

    def sum(self) -> None:
        """Replace the gradient by its approximate sum over the ranks, and the rest by its sum,
        the same bits on all. Collective.
        """
        if self.start.reached:
            self._allreduce.sum_by(self._compressed)
        else:
            self.sum_whole()

    def _compressed(self) -> None:
        size, shared = len(self.error), self.shared
        gradient = self.values[:size]
        gradient += self.error
        self._wire.allreduce(self.values[size:])
        if shared is None:
            self._compressor.sum(gradient, self.error)
            return
        self.error[:] = 0
        exact = self.values[size:].copy()
        shared.sum_to_first()
        if shared.is_first:
            self._compressor.sum(gradient, self.error)
        shared.copy_first(size)
        self.values[size:] = exact
        self._allreduce.note(passed(gradient.nbytes, shared.ranks))

    def restart(self) -> None:
        """Forget the steps so far."""
        self.error[:] = 0
        self._compressor.restart()

    def restore(self, kept: Mapping[str, np.ndarray]) -> None:
        """Take an error; without one, none."""
        self.error[:] = kept.get(ERROR, 0)


def _memory(allreduce: Allreduce, like: np.ndarray) -> SummedVector:
    """Return zeros like a message, in the memory of the node where several nodes have several
    ranks. Collective.
    """
    if 1 < topology(allreduce.comm).nodes < allreduce.comm.size:
        return allreduce.vector(len(like), like.dtype)
    return SummedVector(allreduce, np.zeros_like(like))
