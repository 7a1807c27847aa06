"""The message of a network, of which the gradient is compressed in sums."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ensync.mpi.allreduce import Allreduce, SummedVector
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

    error: what this rank has not yet sent of its gradients. vectors: what the compressor keeps.
    """

    def __init__(
        self, allreduce: Allreduce, network: Network, compressor: Compressor, start: Start
    ) -> None:
        super().__init__(allreduce, np.zeros_like(network.message))
        self._wire, self._compressor, self.start = allreduce.wire(), compressor, start
        self.error = np.zeros_like(network.parameters)
        self.vectors = compressor.vectors

    def sum(self) -> None:
        """Replace the gradient by its approximate sum over the ranks, and the rest by its sum,
        the same bits on all. Collective.
        """
        if self.start.reached:
            self._allreduce.sum_by(self._compressed)
        else:
            self.sum_whole()

    def _compressed(self) -> None:
        gradient = self.values[: len(self.error)]
        gradient += self.error
        self._compressor.sum(gradient, self.error)
        self._wire.allreduce(self.values[len(self.error) :])

    def restart(self) -> None:
        """Forget the steps so far."""
        self.error[:] = 0
        self._compressor.restart()

    def restore(self, kept: Mapping[str, np.ndarray]) -> None:
        """Take an error; without one, none."""
        self.error[:] = kept.get(ERROR, 0)
