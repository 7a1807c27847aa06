"""The reducers of networks that several ranks train, and the choice among all reducers."""

from collections.abc import Callable
from types import TracebackType

import numpy as np

from ensync.core.config.communication import ALL, Communication
from ensync.core.config.training import Training
from ensync.core.errors import EnsyncError
from ensync.mpi.allreduce import Allreduce, SummedVector
from ensync.mpi.shard_sum import ShardSum
from ensync.mpi.shared_update import SharedUpdate
from ensync.mpi.world import Comm
from ensync.nn.network import Network
from ensync.nn.optimizers import Factors, Optimizer
from ensync.nn.step_metrics import STOP, StepMetrics
from ensync.strategies.compression import CompressedReducer, compressed_message
from ensync.strategies.gossip import GossipReducer
from ensync.strategies.local import LocalReducer
from ensync.strategies.overlapped import OverlappedReducer, overlaps
from ensync.strategies.server import ServerReducer
from ensync.training.reducers import Compute, Part, Reducer, SerialReducer
from ensync.training.virtual_shards import DeterministicReducer


def choose(
    training: Training,
    communication: Communication,
    comm: Comm,
    network: Network,
    optimizer: Optimizer,
    build_replica: Callable[[], Network],
) -> Reducer:
    """Return the reducer of a network that the ranks of `comm` train. Collective.

    Ranks of a node share the update where the optimiser treats every parameter by itself and
    shared memory is free. build_replica: makes a like-built network, where a deterministic run
    needs one for each virtual shard.
    """
    if training.deterministic:
        total = ShardSum(comm, training.virtual_shards)
        more = total.mine[1:] if network.synchronizes_statistics else ()
        return DeterministicReducer([network, *(build_replica() for _ in more)], total)
    if communication.is_served:
        return ServerReducer(communication, training.seed, comm, network, optimizer)
    if comm.size == 1 and not communication.is_outer:
        return SerialReducer(network)
    allreduce = Allreduce(comm)
    if communication.compresses and comm.size > 1:
        compressed = compressed_message(communication, allreduce, network, optimizer, training.seed)
        network.bind_message(compressed.values)
        plain = AllreduceReducer(network, allreduce, compressed)
        together: Reducer = CompressedReducer(plain, compressed)
        if communication.is_local:
            return _apart(communication)(communication, optimizer, together, allreduce, compressed)
        return together
    if comm.size > 1 and communication.sums_in_steps and overlaps(communication, comm, network):
        return OverlappedReducer(network, allreduce, communication.bucket_megabytes)
    gradient = allreduce.vector(len(network.message), network.dtype)
    network.bind_message(gradient.values)
    if communication.is_local:
        together = AllreduceReducer(network, allreduce, gradient)
        return _apart(communication)(communication, optimizer, together, allreduce, gradient)
    if optimizer.elementwise:
        update = allreduce.shared_update(gradient, len(network.parameters))
        if update is not None:
            return SharedMemoryReducer(network, allreduce, update)
    return AllreduceReducer(network, allreduce, gradient)


def _apart(communication: Communication) -> type[LocalReducer] | type[GossipReducer]:
    """Return the reducer of replicas that differ."""
    return LocalReducer if communication.partners == ALL else GossipReducer


class _OverRanks(Reducer):
    """What both reducers have that sum over the ranks of `allreduce`."""

    def __init__(self, network: Network, allreduce: Allreduce) -> None:
        comm = allreduce.comm
        super().__init__(network, Part(comm.size, comm.rank, allreduce))
        self._allreduce = allreduce

    @property
    def bytes(self) -> int:
        """Bytes passed to other ranks."""
        return self._allreduce.bytes

    @property
    def seconds(self) -> float:
        """Seconds spent on sums."""
        return self._allreduce.seconds

    def _compute(self, compute: Compute, stop_requested: Callable[[], int]) -> None:
        """Fill this rank's message."""
        compute(self.network, self.part)
        self.network.metrics[STOP] = stop_requested()


class AllreduceReducer(_OverRanks):
    """Every rank gets the sum of the gradients and updates its whole replica."""

    def __init__(self, network: Network, allreduce: Allreduce, gradient: SummedVector) -> None:
        super().__init__(network, allreduce)
        self._gradient = gradient

    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Compute this rank's part of the batch and sum the messages in place."""
        self._compute(compute, stop_requested)
        self._gradient.sum()
        return self._take(self.network.exact)

    def close(self) -> None:
        """Give the memory of the message back."""
        self.network.bind_message(np.zeros_like(self.network.message))
        self._allreduce.close()


class SharedMemoryReducer(_OverRanks):
    """Within steps the ranks of a node have one copy of the parameters, of which each updates a
    block. Outside of them each has its own, as with other reducers.
    """

    def __init__(self, network: Network, allreduce: Allreduce, update: SharedUpdate) -> None:
        super().__init__(network, allreduce)
        self._update, self._own = update, network.parameters

    def __enter__(self) -> None:
        """Have the network read the node's parameters. Errors: EnsyncError on all ranks, where
        their own differ.
        """
        if not self._update.put(self._own):
            raise EnsyncError(
                "parameters of one network that differ between ranks before a step",
                "the same bits on all of them",
                "start the run again from its newest checkpoint (`--resume`), and report this",
            )
        self.network.bind_parameters(self._update.parameters)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the parameters back. After an error no rank waits for others."""
        if kind is None:
            self._update.take(self._own)
        else:
            self._own[:] = self._update.parameters
        self.network.bind_parameters(self._own)

    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Compute this rank's part of the batch, wait for the others, and sum the exact part of
        the messages; `apply` sums the gradients block by block.
        """
        self._compute(compute, stop_requested)
        return self._take(self._update.sum_exact())

    def apply(self, optimizer: Optimizer, factors: Factors) -> None:
        """Update this rank's block."""
        parameters = self.network.parameters

        def step(piece: slice, gradient: np.ndarray) -> None:
            optimizer.step_piece(piece, parameters[piece], gradient, factors)

        self._update.update(step)
        optimizer.steps += 1

    def meet(self) -> None:
        """Wait for the ranks of the node."""
        self._update.meet()

    def gather_state(self, optimizer: Optimizer) -> None:
        """Complete each slot, of which a rank has its block only."""
        for slot in optimizer.slots.values():
            self._update.gather(slot)

    def close(self) -> None:
        """Give the memory of message and parameters back."""
        self.network.bind_message(np.zeros_like(self.network.message))
        self._allreduce.close()
