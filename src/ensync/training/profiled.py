"""A runner whose steps are noted in a timeline (output.profile).

Only the runner of a recorded step sees the objects here, which stand before the replica's own and
do what these do. Other steps are done by the runner itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import cast

import numpy as np

from ensync.core.activity import Doing
from ensync.core.timeline import Kind, Timeline
from ensync.nn.network import Network
from ensync.nn.optimizers import Factors, Optimizer
from ensync.nn.step_metrics import StepMetrics
from ensync.training.batches import BatchLoader, Changes
from ensync.training.reducers import Compute, Part, Reducer
from ensync.training.runners import MiniBatchRunner, Replica, Runner
from ensync.training.virtual_shards import DeterministicReducer, Sum


class ProfiledRunner:
    """Does what a runner does, and notes when. Of a runner that does several steps a call, in one
    kernel, it notes the whole call.
    """

    def __init__(self, runner: Runner, timeline: Timeline) -> None:
        self.runner, self.replica, self.steps = runner, runner.replica, runner.steps
        self.recorded, self.timeline = runner, timeline
        if isinstance(runner, MiniBatchRunner):
            self.recorded = MiniBatchRunner(_profiled(self.replica, timeline), runner.batch)

    def run(self, rows: np.ndarray, epoch: int, factors: Factors) -> StepMetrics:
        """Do the steps, and note their events where the timeline wants them."""
        timeline, replica, first = self.timeline, self.replica, self.replica.optimizer.steps
        timeline.begin()
        runner, start = self.recorded if timeline.on else self.runner, perf_counter()
        metrics = runner.run(rows, epoch, factors)
        timeline.end(start, replica.member, first, replica.optimizer.steps - first)
        return metrics


def _profiled(r: Replica, timeline: Timeline) -> Replica:
    """Return a replica for a runner, with objects that note what those of `r` do."""
    reducer, loader = ProfiledReducer(r.reducer, timeline), ProfiledLoader(r.loader, timeline)
    seen = (r.job, r.member, r.network, r.optimizer, reducer, loader, r.rows, r.stop_requested)
    return Replica(*seen, r.shares)


class ProfiledLoader(BatchLoader):
    """Notes when images are loaded."""

    def __init__(self, loader: BatchLoader, timeline: Timeline) -> None:
        super().__init__(loader.images, loader.labels, loader.mean, loader.inverse_std)
        self.loader, self.timeline = loader, timeline

    def load(
        self, rows: np.ndarray, out: np.ndarray, changes: Changes | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Load as the loader does."""
        start = perf_counter()
        found = self.loader.load(rows, out, changes)
        self.timeline.add(Kind.LOAD, start, perf_counter())
        return found


class ProfiledReducer(Reducer):
    """Notes when the parts of a batch are computed, when ranks meet, and when the parameters are
    updated; for `reduce` and `apply` alone.
    """

    def __init__(self, reducer: Reducer, timeline: Timeline) -> None:
        super().__init__(reducer.network, reducer.part)
        self.reducer, self.timeline, self.shards_at_once = reducer, timeline, False
        self.computed = 0.0
        networks = [reducer.network]
        if isinstance(reducer, DeterministicReducer):
            networks = list(reducer.networks)
            self.shards_at_once = self.network.synchronizes_statistics
            if not isinstance(reducer.total, ProfiledSum):
                reducer.total = ProfiledSum(reducer.total, timeline)
        for network in networks:
            network.timeline = timeline

    @property
    def seconds(self) -> float:
        """Seconds spent on sums."""
        return self.reducer.seconds

    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Reduce as the reducer does; what follows the last computation is the meeting."""
        metrics = self.reducer.reduce(partial(self._compute, compute), stop_requested)
        self.timeline.add(Kind.REDUCE, self.computed, perf_counter())
        return metrics

    def _compute(self, compute: Compute, network: Network, part: Part) -> int:
        if self.shards_at_once:
            self.timeline.take_row(1 + part.index)
        if part.allreduce is not None:
            part = replace(part, allreduce=partial(self._sum, part.allreduce))
        start = perf_counter()
        rows = compute(network, part)
        self.computed = perf_counter()
        self.timeline.add(Kind.COMPUTE, start, self.computed)
        return rows

    def _sum(self, allreduce: Callable[[np.ndarray], None], vector: np.ndarray) -> None:
        start = perf_counter()
        allreduce(vector)
        kind = Kind.PAUSE if self.shards_at_once else Kind.SUM
        self.timeline.add(kind, start, perf_counter())

    def apply(self, optimizer: Optimizer, factors: Factors) -> None:
        """Update as the reducer does. Where that is piece by piece, ranks meet at its end."""
        updates, start = _Updates(optimizer), perf_counter()
        self.reducer.apply(cast(Optimizer, updates), factors)
        end = perf_counter()
        last = end if updates.whole else updates.last or start
        self.timeline.add(Kind.UPDATE, start, last, busy=updates.seconds)
        if not updates.whole:
            self.timeline.add(Kind.FINISH, last, end)


class _Updates:
    """An optimiser as reducers use it, which counts the seconds of its pieces.

    whole: whether one piece was all. last: the end of the last piece.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.whole, self.seconds, self.last = optimizer, False, 0.0, 0.0

    @property
    def steps(self) -> int:
        """The optimiser's."""
        return self.optimizer.steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self.optimizer.steps = steps

    def step(self, parameters: np.ndarray, gradient: np.ndarray, factors: Factors) -> None:
        """Do all of a step."""
        start = perf_counter()
        self.optimizer.step(parameters, gradient, factors)
        self.whole, self.seconds = True, perf_counter() - start

    def step_piece(
        self, piece: slice, parameters: np.ndarray, gradient: np.ndarray, factors: Factors
    ) -> None:
        """Do a piece of a step."""
        start = perf_counter()
        self.optimizer.step_piece(piece, parameters, gradient, factors)
        self.last = perf_counter()
        self.seconds += self.last - start


class ProfiledSum:
    """Notes when the statistics of virtual shards are summed, beside which nothing computes."""

    def __init__(self, total: Sum, timeline: Timeline) -> None:
        self.total, self.timeline = total, timeline
        self.shards, self.mine = total.shards, total.mine

    @property
    def bytes(self) -> int:
        """Bytes sent to other ranks."""
        return self.total.bytes

    @property
    def seconds(self) -> float:
        """Seconds spent on sums over ranks."""
        return self.total.seconds

    def over_shards(
        self, vectors: Iterable[np.ndarray], out: np.ndarray, operation: int = Doing.GRADIENT
    ) -> None:
        """Sum over the shards of all ranks."""
        start = perf_counter()
        self.total.over_shards(vectors, out, operation)
        if self.timeline.on and operation == Doing.STATISTICS:
            self.timeline.add(Kind.SUM, start, perf_counter())
