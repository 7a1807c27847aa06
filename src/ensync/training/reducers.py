"""Gradient reducers: how the ranks that train one network bring their gradients together in each
step, and update their replicas by the sum.

A network has one reducer, chosen in one place (strategies.reducers.choose). A runner calls

    with reducer:
        metrics = reducer.reduce(compute, stop_requested)
        reducer.apply(optimizer, factors)

in each step, and leaves `apply` out where the loss is not finite. `compute(network, part)` fills
the network's message from a part of the global batch. All ranks of the network call all methods
alike. To add a reducer, derive from Reducer and return it from `choose`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from ensync.nn.network import METRICS, STOP, Network, StepMetrics
from ensync.nn.optimizers import Factors, Optimizer


@dataclass(frozen=True)
class Part:
    """The part of some rows that one network computes: block `index` of `count` blocks.

    allreduce: replaces a vector by its sum over all parts; None where there is one part only, or
    where batch normalisation is to take its statistics within the part.
    """

    count: int
    index: int
    allreduce: Callable[[np.ndarray], None] | None = None


WHOLE = Part(1, 0)
Compute = Callable[[Network, Part], None]


class Reducer(ABC):
    """Sums what the ranks of one network compute in a step, and updates their replicas.

    network: this rank's replica, whose vectors may lie in memory of the reducer until `close`.
    part: this rank's part of rows that all ranks of the network share outside of steps.
    """

    def __init__(self, network: Network, part: Part = WHOLE) -> None:
        self.network, self.part = network, part

    @property
    def bytes(self) -> int:
        """Bytes that this rank has passed to others so far, those of batch normalisation
        included.
        """
        return 0

    @property
    def seconds(self) -> float:
        """Seconds that this rank has spent on sums so far, waiting included."""
        return 0.0

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

    def gather_state(self, optimizer: Optimizer) -> None:
        """Have the whole state of the optimiser on every rank. Collective."""

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
