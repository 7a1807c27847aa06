"""Ranks that train replicas of one network apart, and meet now and then: local SGD.

With the network w of the last meeting, the replicas w_k since then, and their shares s_k of the
samples since then, a meeting is

    d = sum_k s_k (w - w_k);  m = momentum m + d;  w = w - rate (d + momentum m);  w_k = w

With momentum 0 and rate 1 that is the mean of the replicas (local SGD, Stich 2019), after `start`
steps of summed gradients (post-local SGD, Lin et al. 2020); with Nesterov's momentum it is DiLoCo
(Douillard et al. 2023). Moving statistics of batch normalisation become their mean.

Between meetings nothing is sent but wishes (mpi.wishes), of a rank that was asked to stop or whose
loss is not finite. Outside of steps the network is the mean of the replicas, so that what is
validated, tested and saved is one network. The replicas wait beside it and train on from where they
were: neither an epoch's end nor a checkpoint changes what is trained.
"""

import math
from collections.abc import Callable, Mapping
from types import TracebackType

import numpy as np

from ensync.core.activity import Doing
from ensync.core.config.communication import NEVER, Communication
from ensync.mpi.allreduce import Allreduce, SummedVector
from ensync.nn.network import CORRECT, LOSS_SUM, STOP, StepMetrics
from ensync.nn.optimizers import Factors, Optimizer
from ensync.training.reducers import PENDING, Compute, Part, Reducer

SINCE, ROWS = range(2)  # places of the counts since the last meeting: steps, and this rank's rows
# Losses are rounded to parts of a sample's of 1/FINE: float64 adds these without rounding, so that
# sums don't depend on where they are cut.
FINE = 1 << 20
_COUNTS, _AVERAGE = float(Doing.COUNTS), float(Doing.EXCHANGE)


class LocalReducer(Reducer):
    """Steps a replica of this rank's own, which meets those of the others.

    together: does the steps before `settings.start`. gradient: the network's message, whose first
    elements hold s_k (w - w_k) in a meeting.
    """

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
        network = self.network
        self._meeting = np.zeros_like(network.parameters)  # the network of the last one
        self._outer = Optimizer(settings.outer, network.layout, network.dtype)
        self._counts = np.zeros(2, np.int64)
        self._metrics = np.zeros(4)  # of the steps that are not summed yet, and the rows since
        self._all_rows = 0.0
        self._kept: dict[str, np.ndarray] = {}

    @property
    def bytes(self) -> int:
        """Bytes passed to other ranks."""
        return self._together.bytes

    @property
    def seconds(self) -> float:
        """Seconds spent on sums."""
        return self._together.seconds

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """The network of the last meeting, the outer momentum, and what summing keeps."""
        return {"meeting": self._meeting, **self._outer.slots, **self._together.vectors}

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

    def restore(self, replica: Mapping[str, np.ndarray]) -> None:
        """Take a replica as it was saved; without one, as after a meeting."""
        self._counts[:] = replica.get("counts", 0)
        self._metrics[:] = 0
        self._together.restore(replica)
        others = {"counts", *self._together.differing}
        self._kept = {name: v.copy() for name, v in replica.items() if name not in others}

    def restart(self) -> None:
        """Forget all meetings."""
        self.restore({})
        self._together.restart()
        for slot in self._outer.slots.values():
            slot[:] = 0

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
        if self._counts[SINCE]:
            n = self.network
            self._kept = {"parameters": n.parameters.copy(), "statistics": n.statistics.copy()}
            self._take_differences()
            self._gradient.sum_whole()
            np.subtract(self._meeting, n.gradient, out=n.parameters)
            n.statistics[:] = n.statistics_share

    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Compute the gradient of this rank's part. The metrics are PENDING but in a meeting, in
        the last step before the `with` ends, and where a rank has a wish; then they are those of
        all steps since the last sum.
        """
        self.left -= 1
        if self._is_start:
            return self._together.reduce(compute, stop_requested)
        rows = compute(self.network, self._own)
        loss, stop = float(self.network.metrics[LOSS_SUM]), stop_requested()
        self._trains = rows > 0 and math.isfinite(loss)
        self._counts += (1, rows)
        self._metrics[LOSS_SUM] += float(np.rint(loss * FINE)) / FINE
        self._metrics[CORRECT] += self.network.metrics[CORRECT]
        self._metrics[STOP] = stop
        heard = self._wishes.after_step(stop > 0 or not math.isfinite(loss))
        return self._sum_metrics() if heard or self._meets or self.left == 0 else PENDING

    def apply(self, optimizer: Optimizer, factors: Factors) -> None:
        """Update the replica, and meet where that is due. A rank without rows waits."""
        if self._is_start:
            self._together.apply(optimizer, factors)
            return
        parameters = self.network.parameters
        if self._counts[SINCE] == 1:
            self._meeting[:] = parameters
        if self._trains:
            optimizer.step(parameters, self.network.gradient, factors)
        else:
            optimizer.steps += 1
        if self._meets:
            self._meet()

    def gather_state(self, optimizer: Optimizer) -> None:
        """Have the mean of the optimisers' states in the optimiser, and keep this rank's aside."""
        comm, settings = self._allreduce.comm, self._settings
        equal = settings.average_optimizer and not self._counts[SINCE]
        if comm.size == 1 or equal or optimizer.steps <= settings.start:
            return
        for name, slot in optimizer.slots.items():
            key = f"optimizer/{name}"
            if key not in self._kept:
                self._kept[key] = slot.copy()
                slot *= 1 / comm.size
                self._allreduce(slot, _AVERAGE)

    def close(self) -> None:
        """Give the memory of the message back."""
        self._together.close()

    @property
    def _is_start(self) -> bool:
        """Whether gradients are summed in the step at hand."""
        return self._optimizer.steps < self._settings.start

    @property
    def _meets(self) -> bool:
        """Whether the step at hand ends in a meeting."""
        every = self._settings.every
        return every != NEVER and bool(self._counts[SINCE] >= every)

    def _sum_metrics(self) -> StepMetrics:
        self._metrics[-1] = self._counts[ROWS]
        self._allreduce(self._metrics, _COUNTS)
        found, self._all_rows = StepMetrics.read(self._metrics), self._metrics[-1]
        self._metrics[:] = 0
        return found

    def _take_differences(self) -> None:
        """Write s_k (w - w_k) to the gradient, and this rank's share of the mean of the statistics
        to theirs.
        """
        n, share = self.network, float(self._counts[ROWS] / self._all_rows)
        np.subtract(self._meeting, n.parameters, out=n.gradient)
        n.gradient *= share
        n.metrics[:] = 0
        np.multiply(n.statistics, share, out=n.statistics_share)

    def _meet(self) -> None:
        n, share = self.network, float(self._counts[ROWS] / self._all_rows)
        self._take_differences()
        self._gradient.sum()
        self._outer.step(self._meeting, n.gradient)
        n.parameters[:] = self._meeting
        n.statistics[:] = n.statistics_share
        if self._settings.average_optimizer:
            for slot in self._optimizer.slots.values():
                slot *= share
                self._allreduce(slot, _AVERAGE)
        self._counts[:] = 0
