"""The message of a network, of which the gradient is compressed in sums."""

from collections.abc import Mapping

import numpy as np

from ensync.mpi.allreduce import Allreduce, SummedVector
from ensync.nn.network import Network
from ensync.strategies.compression.compressor import Compressor

ERROR = "error"


class CompressedVector(SummedVector):
    """`values`, as long as the message of a network; what follows the gradient there is summed
    whole.

    error: what this rank has not yet sent of its gradients. vectors: what the compressor keeps.
    """

    def __init__(self, allreduce: Allreduce, network: Network, compressor: Compressor) -> None:
        super().__init__(allreduce, np.zeros_like(network.message))
        self._wire, self._compressor = allreduce.wire(), compressor
        self.error = np.zeros_like(network.parameters)
        self.vectors = compressor.vectors

    def sum(self) -> None:
        """Replace the gradient by its approximate sum over the ranks, and the rest by its sum,
        the same bits on all. Collective.
        """
        self._allreduce.sum_by(self._compressed)

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
