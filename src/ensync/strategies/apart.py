"""Ranks that train replicas of one network apart: what all strategies of that kind share.

Outside of steps the network is the mean of the replicas, so that what is validated, tested and
saved is one network. The replicas wait beside it and train on from where they were: neither an
epoch's end nor a checkpoint changes what is trained. In steps nothing need be sent but wishes
(mpi.wishes), of a rank that was asked to stop or whose loss is not finite.

They part after `start` steps of summed gradients, or where the training accuracy of an epoch
reaches `start_accuracy` (the first phase of SWAP, Gupta et al. 2020).
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import ClassVar

import numpy as np

from ensync.core.activity import Doing
from ensync.core.config.communication import Communication
from ensync.mpi.allreduce import Allreduce, SummedVector
from ensync.nn.optimizers import Factors, Optimizer
from ensync.nn.step_metrics import CORRECT, LOSS_SUM, STOP, StepMetrics
from ensync.training.reducers import PENDING, Compute, Part, Reducer

SINCE, ROWS = range(2)  # places of the counts since the last meeting: steps, and this rank's rows
# Losses are rounded to parts of a sample's of 1/FINE: float64 adds these without rounding, so that
# sums don't depend on where they are cut.
FINE = 1 << 20
_COUNTS, AVERAGE = float(Doing.COUNTS), float(Doing.EXCHANGE)


class ApartReducer(Reducer):
    """Steps a replica of this rank's own.

    together: does the steps before the ranks part. gradient: the network's message, whose first
    elements hold what a mean is made of. needs_rows: whether a rank without rows does no step.
    """

    needs_rows: ClassVar[bool] = True

    def __init__(
        self,
        settings: Communication,
        optimizer: Optimizer,
        together: Reducer,
        allreduce: Allreduce,
        gradient: SummedVector,
    ) -> None:
        super().__init__(together.network, together.part)
        self._settings, self._optimizer, self._together = settings, optimizer, together
        self._allreduce, self._gradient, self._wishes = allreduce, gradient, allreduce.wishes()
        self._own = Part(allreduce.comm.size, allreduce.comm.rank, alone=True)
        self._counts = np.zeros(2, np.int64)
        self._metrics = np.zeros(4)  # of the steps that are not summed yet, and the rows since
        self._all_rows = 0.0
        self._parted = np.zeros(1, np.int64)  # the steps at which the accuracy was there, 0: not
        self._kept: dict[str, np.ndarray] = {}

    @property
    def bytes(self) -> int:
        """Bytes passed to other ranks."""
        return self._together.bytes

    @property
    def seconds(self) -> float:
        """Seconds spent on sums and exchanges."""
        return self._together.seconds

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """When the ranks parted, where an accuracy decides that, and what summing keeps."""
        parted = {"parted": self._parted} if self._settings.start_accuracy else {}
        return parted | self._together.vectors

    @property
    def differing(self) -> dict[str, np.ndarray]:
        """Parameters, statistics, the optimiser's state, counts since the last meeting, and what
        this rank has not sent yet.
        """
        slots = {f"optimizer/{name}": slot for name, slot in self._optimizer.slots.items()}
        n = self.network
        own = {"parameters": n.parameters, "statistics": n.statistics, "counts": self._counts}
        return own | slots | self._together.differing

    @property
    def replica(self) -> dict[str, np.ndarray]:
        """What was kept aside, the counts since the last meeting, and what is not sent yet."""
        kept = self._kept | {"counts": self._counts} if self._kept else {}
        return kept | self._together.replica

    @property
    def estimates(self) -> bool:
        """Whether the network is a mean whose statistics the job wants estimated."""
        return self._settings.estimate_statistics and "statistics" in self._kept

    @property
    def remark(self) -> str:
        """That the ranks never parted."""
        if not self._is_start:
            return ""
        return (
            "the ranks never parted: no epoch before the last had a training accuracy of "
            f"{self._settings.start_accuracy:g} (communication.start_accuracy)"
            if self._settings.start_accuracy
            else f"the ranks never parted: communication.start = {self._settings.start:,} steps is "
            "no less than the whole training"
        )

    def restore(self, replica: Mapping[str, np.ndarray]) -> None:
        """Take a replica as it was saved; without one, as after a meeting."""
        self._counts[:] = replica.get("counts", 0)
        self._metrics[:] = 0
        self._together.restore(replica)
        others = {"counts", *self._together.differing}
        self._kept = {name: v.copy() for name, v in replica.items() if name not in others}

    def restart(self) -> None:
        """Forget all steps apart."""
        self.restore({})
        self._together.restart()
        self._parted[:] = 0

    def after_epoch(self, accuracy: float) -> None:
        """Part where that is the accuracy to part at."""
        wanted = self._settings.start_accuracy
        if wanted and not self._parted[0] and accuracy >= wanted:
            self._parted[0] = self._optimizer.steps

    def __enter__(self) -> None:
        """Put the replica back into the network."""
        self._together.run_steps = self.run_steps
        self._together.__enter__()
        vectors = self.differing
        for name, values in self._kept.items():
            vectors[name][:] = values
        self._kept = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Have the mean of the replicas in the network, and keep this rank's aside."""
        if kind is not None:
            return
        self._wishes.finish()
        n = self.network
        if self._counts[SINCE]:
            self._kept = {"parameters": n.parameters.copy(), "statistics": n.statistics.copy()}
            self._take_mean()
        elif self._settings.estimate_statistics and self._optimizer.steps > self._first:
            self._kept = {"statistics": n.statistics.copy()}

    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Compute the gradient of this rank's part. The metrics are PENDING but in a meeting, in
        the last step before the `with` ends, and where a rank has a wish; then they are those of
        all steps since the last sum.
        """
        self.left -= 1
        if self._is_start:
            return self._together.reduce(compute, stop_requested)
        rows = self._compute(compute)
        loss, stop = float(self.network.metrics[LOSS_SUM]), stop_requested()
        self._trains = math.isfinite(loss) and (rows > 0 or not self.needs_rows)
        self._counts += (1, rows)
        self._metrics[LOSS_SUM] += float(np.rint(loss * FINE)) / FINE
        self._metrics[CORRECT] += self.network.metrics[CORRECT]
        self._metrics[STOP] = stop
        heard = self._wishes.after_step(stop > 0 or not math.isfinite(loss))
        return self._sum_metrics() if heard or self._meets or self.left == 0 else PENDING

    def apply(self, optimizer: Optimizer, factors: Factors) -> None:
        """Update the replica; not where the loss is not finite, or where rows are needed."""
        if self._is_start:
            self._together.apply(optimizer, factors)
        else:
            self._apply(optimizer, factors)

    def gather_state(self, optimizer: Optimizer) -> None:
        """Have the mean of the optimisers' states in the optimiser, and keep this rank's aside."""
        comm, settings = self._allreduce.comm, self._settings
        equal = settings.average_optimizer and not self._counts[SINCE]
        if comm.size == 1 or equal or optimizer.steps <= self._first:
            return
        for name, slot in optimizer.slots.items():
            key = f"optimizer/{name}"
            if key not in self._kept:
                self._kept[key] = slot.copy()
                slot *= 1 / comm.size
                self._allreduce(slot, AVERAGE)

    def close(self) -> None:
        """Give the memory of the message back."""
        self._together.close()

    @abstractmethod
    def _take_mean(self) -> None:
        """Make the network the mean of the replicas, with their statistics. Collective."""

    def _compute(self, compute: Compute) -> int:
        """Compute the gradient of this rank's part; return its rows."""
        return compute(self.network, self._own)

    def _apply(self, optimizer: Optimizer, factors: Factors) -> None:
        """Update the replica in a step apart."""
        if self._trains:
            optimizer.step(self.network.parameters, self.network.gradient, factors)
        else:
            optimizer.steps += 1

    @property
    def _first(self) -> float:
        """How many steps are done together; infinite where that is not known yet."""
        s, parted = self._settings, int(self._parted[0])
        if not s.start_accuracy:
            return s.start
        return min(s.start or math.inf, parted or math.inf)

    @property
    def _is_start(self) -> bool:
        """Whether gradients are summed in the step at hand."""
        return self._optimizer.steps < self._first

    @property
    def _meets(self) -> bool:
        """Whether the step at hand ends in a meeting of all."""
        return False

    def _sum_metrics(self) -> StepMetrics:
        self._metrics[-1] = self._counts[ROWS]
        self._allreduce(self._metrics, _COUNTS)
        found, self._all_rows = StepMetrics.read(self._metrics), self._metrics[-1]
        self._metrics[:] = 0
        return found

    def _sum(self, share: float, add: Callable[[], None]) -> None:
        """Have `add` sum the message, of which the gradient is filled, over the ranks, and with it
        this share of each rank's statistics, which are their mean afterwards. Collective.
        """
        n = self.network
        n.metrics[:] = 0
        np.multiply(n.statistics, share, out=n.statistics_share)
        add()
        n.statistics[:] = n.statistics_share
