"""Replicas that meet now and then: local SGD.

With the network w of the last meeting, the replicas w_k since then, and their shares s_k of the
samples since then, a meeting is

    d = sum_k s_k (w - w_k);  m = momentum m + d;  w = w - rate (d + momentum m);  w_k = w

With momentum 0 and rate 1 that is the mean of the replicas (local SGD, Stich 2019), after `start`
steps of summed gradients (post-local SGD, Lin et al. 2020); with Nesterov's momentum it is DiLoCo
(Douillard et al. 2023). Moving statistics of batch normalisation become their mean. With
`growth` the interval to the next meeting grows as the learning rate falls (the quadratic
synchronization rule, Gu et al. 2024, arXiv 2310.14423, and localopt.py of its authors).
"""

from collections.abc import Callable, Mapping

import numpy as np

from ensync.core.config.communication import NEVER, Communication
from ensync.mpi.allreduce import Allreduce, SummedVector
from ensync.nn.optimizers import Factors, Optimizer
from ensync.strategies.apart import AVERAGE, ROWS, SINCE, ApartReducer
from ensync.training.reducers import Reducer


class LocalReducer(ApartReducer):
    """Steps a replica of this rank's own, which meets those of the others."""

    def __init__(
        self,
        settings: Communication,
        optimizer: Optimizer,
        together: Reducer,
        allreduce: Allreduce,
        gradient: SummedVector,
    ) -> None:
        super().__init__(settings, optimizer, together, allreduce, gradient)
        network = self.network
        self._meeting = np.zeros_like(network.parameters)  # the network of the last one
        self._outer = Optimizer(settings.outer, network.layout, network.dtype)
        self._interval = np.zeros(1, np.int64)  # steps from the last meeting to the next
        self._peak = np.zeros(1)  # the largest learning rate with which an interval began

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """The network of the last meeting, the outer momentum, and the largest rate so far where
        intervals depend on it.
        """
        peak = {"peak": self._peak} if self._settings.growth else {}
        return {"meeting": self._meeting, **self._outer.slots, **peak, **super().vectors}

    @property
    def differing(self) -> dict[str, np.ndarray]:
        """What all such replicas differ in, and the interval where that changes."""
        return super().differing | ({"interval": self._interval} if self._settings.growth else {})

    @property
    def replica(self) -> dict[str, np.ndarray]:
        """What was kept aside, the counts, and the interval where that changes."""
        found = super().replica
        return (
            found | {"interval": self._interval} if self._kept and self._settings.growth else found
        )

    def restore(self, replica: Mapping[str, np.ndarray]) -> None:
        """Take a replica as it was saved; without one, as after a meeting."""
        self._interval[:] = replica.get("interval", 0)
        super().restore({name: v for name, v in replica.items() if name != "interval"})

    def restart(self) -> None:
        """Forget all meetings."""
        super().restart()
        self._peak[:] = 0
        for slot in self._outer.slots.values():
            slot[:] = 0

    def _apply(self, optimizer: Optimizer, factors: Factors) -> None:
        """Update the replica, and meet where that is due."""
        if self._counts[SINCE] == 1:
            self._meeting[:] = self.network.parameters
            self._begin_interval(optimizer.settings.learning_rate * (factors[0] or 0.0))
        super()._apply(optimizer, factors)
        if self._meets:
            self._meet()

    @property
    def _meets(self) -> bool:
        every = self._settings.every
        if every == NEVER:
            return False
        return bool(self._counts[SINCE] >= max(every, int(self._interval[0])))

    def _begin_interval(self, rate: float) -> None:
        """Choose how long the interval is whose first step has this learning rate. While the rate
        rises, as in a warm-up, it is as short as ever.
        """
        rises, self._peak[0] = rate > self._peak[0], max(rate, self._peak[0])
        self._interval[0] = 0 if rises else self._settings.grown(rate)

    @property
    def _share(self) -> float:
        """This rank's share of the samples since the last meeting."""
        return float(self._counts[ROWS] / self._all_rows)

    def _sum_differences(self, add: Callable[[], None]) -> None:
        """Have the sum of s_k (w - w_k) in the gradient, and the mean of the statistics. add: what
        sums the message.
        """
        n, share = self.network, self._share
        np.subtract(self._meeting, n.parameters, out=n.gradient)
        n.gradient *= share
        self._sum(share, add)

    def _take_mean(self) -> None:
        self._sum_differences(self._gradient.sum_whole)
        np.subtract(self._meeting, self.network.gradient, out=self.network.parameters)

    def _meet(self) -> None:
        n, share = self.network, self._share
        self._sum_differences(self._gradient.sum)
        self._outer.step(self._meeting, n.gradient)
        n.parameters[:] = self._meeting
        if self._settings.average_optimizer:
            for slot in self._optimizer.slots.values():
                slot *= share
                self._allreduce(slot, AVERAGE)
        self._counts[:] = 0
