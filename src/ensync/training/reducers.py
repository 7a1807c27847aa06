"""Gradient reducers: how the ranks that train one network bring their gradients together in each
step, and update their replicas by the sum.

A network has one reducer, chosen in one place (strategies.reducers.choose). A runner calls

    with reducer:
        metrics = reducer.reduce(compute, stop_requested)
        reducer.apply(optimizer, factors)

in each step, and leaves `apply` out where the loss is not finite. `compute(network, part)` fills
the network's message from a part of the global batch, and returns how many rows that is. All ranks
of the network call all methods alike. To add a reducer, derive from Reducer and return it from
`choose`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from ensync.core.sharding import block
from ensync.core.shares import Speeds, block_by_speed
from ensync.nn.network import Network
from ensync.nn.optimizers import Factors, Optimizer
from ensync.nn.step_metrics import METRICS, STOP, StepMetrics


@dataclass(frozen=True)
class Part:
    """The part of some rows that one network computes: block `index` of `count` blocks.

    allreduce: replaces a vector by its sum over all parts; None where there is one part only, or
    where batch normalisation is to take its statistics within the part. alone: whether the
    gradient is that of the mean loss of this part, not of all. speeds: of all parts, by which rows
    are cut; none: into equal blocks. after_layer: see nn.layers.base.Step.
    """

    count: int
    index: int
    allreduce: Callable[[np.ndarray], None] | None = None
    alone: bool = False
    speeds: Speeds = ()
    after_layer: Callable[[int], None] | None = None

    def block(self, n: int) -> tuple[int, int]:
        """Return (start, stop) of its rows when n rows are cut into the parts."""
        if self.speeds:
            return block_by_speed(n, self.speeds, self.index)
        return block(n, self.count, self.index)

    def rows(self, n: int, at_once: int) -> int:
        """Return how many of n rows it has, of which so many at once are cut into the parts."""
        if n <= at_once:
            start, stop = self.block(n)
            return stop - start
        spans = (self.block(min(at_once, n - first)) for first in range(0, n, at_once))
        return sum(stop - start for start, stop in spans)


WHOLE = Part(1, 0)
Compute = Callable[[Network, Part], int]
PENDING = StepMetrics(0.0, 0, 0)  # of a step that a later one sums with its own


class Reducer(ABC):
    """Sums what the ranks of one network compute in a step, and updates their replicas.

    network: this rank's replica, whose message may lie in memory of the reducer until `close`, and
    whose parameters within the `with`; these other ranks may share.
    part: this rank's part of rows that all ranks of the network share outside of steps. left: how
    many steps come before the end of the `with`, outside of which the replicas are equal;
    run_steps: how many the whole run has; both are set before it.
    """

    left: int = 0
    run_steps: int = 0

    def __init__(self, network: Network, part: Part = WHOLE) -> None:
        self.network, self.part = network, part

    @property
    def bytes(self) -> int:
        """Bytes that this rank has passed to others so far (mpi.wire.passed), those of batch
        normalisation included.
        """
        return 0

    @property
    def seconds(self) -> float:
        """Seconds that this rank has spent on sums so far, waiting included."""
        return 0.0

    @property
    def behind(self) -> int:
        """Steps so far whose metrics no `reduce` has returned yet, where these come one by one."""
        return 0

    @property
    def staleness(self) -> np.ndarray:
        """Gradients by the steps that the network was behind which they are of, int64, as far as
        `gather_state` has counted them; none where it is never behind.
        """
        return np.zeros(0, np.int64)

    @property
    def notes(self) -> list[str]:
        """What is to be told of it at the end of a run."""
        return []

    def __enter__(self) -> None:
        """Prepare for steps."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give back what is needed for steps only."""

    @abstractmethod
    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Compute the gradient of a global batch, and return the metrics of all its samples.

        The sums of metrics and statistics are exact: a reducer that sends a gradient with fewer
        digits sends `network.exact` whole. Collective.

        stop_requested: asked once; positive where this rank was asked to stop.
        """

    def apply(self, optimizer: Optimizer, factors: Factors) -> None:
        """Update the parameters by the gradient of the last `reduce`; factors: of the learning
        rates. Collective.
        """
        optimizer.step(self.network.parameters, self.network.gradient, factors)

    def meet(self) -> None:
        """Wait for all ranks with which this one shares its parameters. Who changes these between
        steps does so after it, on all ranks alike. Collective.
        """

    def gather_state(self, optimizer: Optimizer) -> None:
        """Have the whole state of the optimiser on every rank. Collective."""

    def anywhere(self, flag: bool) -> bool:
        """Return whether the flag is true on any rank that holds a part of this replica, where
        several do. Collective over these.
        """
        return flag

    def whole(self, named: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return vectors of the whole network by name, given those of this rank: on the first
        rank that holds a part of the replica, where several do. Collective over these.
        """
        return dict(named)

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """What it keeps from step to step by name, the same on all ranks."""
        return {}

    @property
    def differing(self) -> dict[str, np.ndarray]:
        """All that replicas may differ in outside of steps, by name."""
        return {}

    @property
    def replica(self) -> dict[str, np.ndarray]:
        """What is this rank's alone outside of steps, by name, after `gather_state`; nothing where
        the replicas are as equal as they look.
        """
        return {}

    @property
    def remark(self) -> str:
        """What a user should hear of the steps when training is over, "" for nothing."""
        return ""

    @property
    def estimates(self) -> bool:
        """Whether the network, outside of steps, wants moving statistics that no step led to."""
        return False

    def after_epoch(self, accuracy: float) -> None:
        """Hear the training accuracy of a whole epoch, the same on all ranks."""

    def restart(self) -> None:
        """Forget the steps so far."""

    def restore(self, replica: Mapping[str, np.ndarray]) -> None:
        """Begin the next steps from what is this rank's alone; nothing: from what all have."""

    def close(self) -> None:
        """Move the network's vectors to memory of its own, and give back what the reducer holds;
        only the figures stay. Collective.
        """

    def _take(self, sums: np.ndarray) -> StepMetrics:
        """Take the averaged statistics from the summed exact part of a message, and return the
        metrics there.
        """
        if self.network.averages_statistics:
            self.network.statistics[:] = sums[METRICS:]
        return StepMetrics.read(sums)


class SerialReducer(Reducer):
    """For a network on one rank: nothing is summed."""

    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Compute the gradient of the whole batch."""
        compute(self.network, self.part)
        self.network.metrics[STOP] = stop_requested()
        return self._take(self.network.exact)
