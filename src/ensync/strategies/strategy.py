"""What a run asks of a strategy, wherever strategies differ.

The ranks are arranged by ensync.mpi.mesh: those along `data` hold replicas of one network.
A checkpoint holds the vectors of each member as its owner has them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import numpy as np

from ensync.core.config.schema import Job
from ensync.mpi.world import Comm
from ensync.nn.network import Network
from ensync.nn.optimizers import Optimizer
from ensync.strategies.reducers import choose
from ensync.training.reducers import Reducer


class Phase(NamedTuple):
    """A stretch of a training: how many networks are trained, up to the end of which epoch."""

    members: int
    last_epoch: int


class Strategy(ABC):
    """One way to use the ranks. Its methods are pure functions of the job, the same on all ranks,
    but for `reducer`.
    """

    name: ClassVar[str]
    independent: ClassVar[bool] = False  # whether a member trains on where ranks of another die

    @abstractmethod
    def members(self, job: Job, ranks: int) -> int:
        """Return how many networks come out of a training on so many ranks."""

    @abstractmethod
    def settle(self, job: Job, ranks: int) -> Job:
        """Return the job with the number of members that it leaves to the number of ranks, so
        that a resumed run keeps it.
        """

    @abstractmethod
    def phases(self, job: Job) -> list[Phase]:
        """Return the phases of a settled job in order. They differ in the number of members, and
        each network of a phase starts from the first of the phase before.
        """

    @abstractmethod
    def rows(self, job: Job, labels: np.ndarray, members: int, member: int) -> np.ndarray:
        """Return the training rows int64, ascending, of one of so many members, given the labels
        int64 (rows,) of all of them.
        """

    @abstractmethod
    def start_values(self, job: Job, member: int) -> int:
        """Return the number of the random stream of a member's start values; members with the
        same number start from the same parameters.
        """

    @abstractmethod
    def fusion(self, job: Job) -> str:
        """Return the fusion that makes the result (a name in core.fusion.FUSIONS)."""

    def reducer(
        self,
        job: Job,
        data: Comm,
        network: Network,
        optimizer: Optimizer,
        build_replica: Callable[[], Network],
    ) -> Reducer:
        """Return the reducer of a network whose replicas the ranks of `data` train (see
        strategies.reducers.choose). It sums their gradients in every step, which keeps the
        replicas equal by the bit. Collective over `data`.
        """
        return choose(job, data, network, optimizer, build_replica)
