"""What a run asks of a strategy, wherever strategies differ.

The ranks are arranged by ensync.mpi.mesh: those along `data` hold replicas of one network.
A checkpoint holds the vectors of each member as its owner has them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from ensync.core.config.communication import Communication
from ensync.core.config.ensemble import Ensemble, Fusion
from ensync.core.config.parallel import Parallel
from ensync.core.config.training import Training
from ensync.core.errors import EnsyncError, plural
from ensync.mpi.values import Holders
from ensync.mpi.world import Comm
from ensync.nn.network import Network
from ensync.nn.optimizers import Optimizer
from ensync.strategies.reducers import choose
from ensync.strategies.spread import SpreadReducer
from ensync.training.reducers import Reducer


class Phase(NamedTuple):
    """A stretch of a training: how many networks are trained, up to the end of which epoch."""

    members: int
    last_epoch: int


@dataclass(frozen=True)
class Strategy(ABC):
    """One way to use the ranks, with the sections of a job that it goes by. Its methods are pure
    functions, the same on all ranks, but for `reducer`.
    """

    name: ClassVar[str]
    independent: ClassVar[bool] = False  # whether a member trains on where ranks of another die

    training: Training
    ensemble: Ensemble
    fusion: Fusion
    communication: Communication
    parallel: Parallel

    def replicas(self, ranks: int) -> int:
        """Return how many whole networks so many ranks hold at a time. EnsyncError where
        parallel.model or parallel.stages does not divide them.
        """
        each, name = self.parallel.ranks, self.parallel.setting
        if ranks % each:
            raise EnsyncError(
                f"{name} = {each} on {plural(ranks, 'rank')}",
                f"a multiple of {each} ranks, of which each {each} hold one network",
                f"start {plural(-(-ranks // each) * each, 'rank')}, or give --set {name}=1",
            )
        return ranks // each

    @abstractmethod
    def members(self, ranks: int) -> int:
        """Return how many networks come out of a training on so many ranks."""

    @abstractmethod
    def settled(self, ranks: int) -> Ensemble:
        """Return the section [ensemble] with the number of members that it leaves to the number
        of ranks.
        """

    @abstractmethod
    def phases(self, ranks: int) -> list[Phase]:
        """Return the phases of a training on so many ranks in order. They differ in the number
        of members, and each network of a phase starts from the first of the phase before.
        """

    @abstractmethod
    def rows(self, labels: np.ndarray, members: int, member: int) -> np.ndarray:
        """Return the training rows int64, ascending, of one of so many members, given the labels
        int64 (rows,) of all of them.
        """

    @abstractmethod
    def start_values(self, member: int) -> int:
        """Return the number of the random stream of a member's start values; members with the
        same number start from the same parameters.
        """

    @property
    @abstractmethod
    def fusion_method(self) -> str:
        """The fusion that makes the result (a name in core.fusion.FUSIONS)."""

    def reducer(
        self,
        data: Comm,
        network: Network,
        optimizer: Optimizer,
        build_replica: Callable[[], Network],
        exchange: Holders | None = None,
    ) -> Reducer:
        """Return the reducer of a network whose replicas the ranks of `data` train (see
        strategies.reducers.choose). It sums their gradients in every step, which keeps the
        replicas equal by the bit, or lets them meet as [communication] says. exchange: with the
        ranks that hold the other parts of a replica. Collective over the ranks of the network.
        """
        found = choose(self.training, self.communication, data, network, optimizer, build_replica)
        return found if exchange is None else SpreadReducer(found, exchange)
