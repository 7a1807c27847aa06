"""Gradients that are summed while the backward pass still computes those of earlier layers."""

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate

import numpy as np

from ensync.core.config.communication import Communication
from ensync.mpi.allreduce import Allreduce
from ensync.mpi.buckets import BucketSums, cut, gains
from ensync.mpi.world import Comm, topology
from ensync.nn.network import Network
from ensync.nn.step_metrics import STOP, StepMetrics
from ensync.training.reducers import Compute, Part, Reducer


class OverlappedReducer(Reducer):
    """Begins the sum of a bucket when the layers in it are computed; every rank updates its whole
    replica.

    megabytes: about how large a bucket is, of 10^6 bytes. Where a batch is computed in slices, or a
    rank has no rows, all sums begin at the end of the pass.
    """

    def __init__(self, network: Network, allreduce: Allreduce, megabytes: float) -> None:
        comm = allreduce.comm
        part = Part(comm.size, comm.rank, allreduce)
        super().__init__(network, replace(part, after_layer=self._after_layer))
        self._allreduce = allreduce
        network.bind_message(np.zeros_like(network.message))
        message = network.message
        ends = layer_ends(network)
        self._starts = [0, *ends[:-1]]
        least = max(1, int(1e6 * megabytes) // message.itemsize)
        self._sums = BucketSums(allreduce, message, cut(ends, least))

    @property
    def bytes(self) -> int:
        """Bytes passed to other ranks."""
        return self._allreduce.bytes

    @property
    def seconds(self) -> float:
        """Seconds spent on sums beside the computation."""
        return self._allreduce.seconds

    @property
    def notes(self) -> list[str]:
        """What of the sums the computation hides."""
        hidden = self._sums.hidden
        return [f"sums of gradients: {hidden} a step behind the backward pass"] if hidden else []

    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Compute this rank's part of the batch, and sum the messages in place."""
        self._sums.begin()
        compute(self.network, self.part)
        self.network.metrics[STOP] = stop_requested()
        self._sums.finish()
        return self._take(self.network.exact)

    def _after_layer(self, number: int) -> None:
        self._sums.complete(self._starts[number])

    def close(self) -> None:
        """Give back what the sums hold."""
        self._sums.free()
        self._allreduce.close()


def overlaps(communication: Communication, comm: Comm, network: Network) -> bool:
    """Return whether the sums of a network are to overlap with its backward pass, as the job says.
    Collective.

    "auto": where each rank has a node of its own, there are several buckets, and the MPI gains by
    it. In the memory of a node a sum takes less time than the looks at it.
    """
    if isinstance(communication.overlap, bool):
        return communication.overlap
    several = network.gradient.nbytes > 2e6 * communication.bucket_megabytes
    return several and gains() and topology(comm).nodes == comm.size > 1


def layer_ends(network: Network) -> list[int]:
    """Return where the parameters of each layer end among all of them."""
    sizes = [0] * len(network.layers)
    for name, parameter in network.layout:
        sizes[int(name.partition(".")[0])] += parameter.size
    return list(accumulate(sizes))
