"""The reducer of a network that several ranks hold together, beside one that sums gradients of the
same part (strategies.reducers).
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType

import numpy as np

from ensync.mpi.values import Holders
from ensync.nn.optimizers import Factors, Optimizer
from ensync.nn.step_metrics import StepMetrics
from ensync.training.reducers import Compute, Reducer


class SpreadReducer(Reducer):
    """Does what `inner` does with this rank's part, counts what passes between the parts in steps,
    and has all of them decide alike.
    """

    def __init__(self, inner: Reducer, exchange: Holders) -> None:
        super().__init__(inner.network, inner.part)
        self._inner, self._exchange = inner, exchange
        self._bytes, self._seconds = 0, 0.0

    @property
    def bytes(self) -> int:
        """Bytes of the summed vectors, and of the values that this rank has sent in steps."""
        return self._inner.bytes + self._bytes

    @property
    def seconds(self) -> float:
        """Seconds spent on sums, and on exchanges of values in steps."""
        return self._inner.seconds + self._seconds

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """Those of the inner one."""
        return self._inner.vectors

    @property
    def notes(self) -> list[str]:
        """Those of the inner one."""
        return self._inner.notes

    def __enter__(self) -> None:
        """Prepare for steps."""
        self._inner.left = self.left
        self._inner.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give back what is needed for steps only. What all parts have whole is again that of the
        first: their sums over replicas may differ in the last digit where nodes differ.
        """
        self._inner.__exit__(kind, error, traceback)
        parts, network = self.network.parts, self.network
        if kind is None and parts is not None:
            for values in (
                *parts.parameters.everywhere(network.parameters),
                *parts.statistics.everywhere(network.statistics),
            ):
                self._exchange.from_first(values)

    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Compute this rank's part of the network on its part of the batch. A request to stop of
        one rank is heard by all.
        """
        cost, timeline = self._exchange.cost, self.network.timeline
        is_noted = timeline is not None and timeline.on
        cost.note = partial(timeline.add, self._exchange.kind) if timeline and is_noted else None
        bytes_before, seconds_before = cost.bytes, cost.seconds
        metrics = self._inner.reduce(compute, lambda: self._exchange.most(stop_requested()))
        cost.note = None
        self._bytes += cost.bytes - bytes_before
        self._seconds += cost.seconds - seconds_before
        return metrics

    def apply(self, optimizer: Optimizer, factors: Factors) -> None:
        """Update this rank's part."""
        self._inner.apply(optimizer, factors)

    def meet(self) -> None:
        """Wait for the ranks that share this part's parameters."""
        self._inner.meet()

    def gather_state(self, optimizer: Optimizer) -> None:
        """Have the state of the optimiser of this rank's part."""
        self._inner.gather_state(optimizer)

    def anywhere(self, flag: bool) -> bool:
        """Return whether any rank that holds a part of the network passed a true flag."""
        return self._exchange.most(int(flag)) > 0

    def whole(self, named: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return on the first rank that holds a part the vectors of the whole network, of all
        ranks' parts; nothing elsewhere.
        """
        parts = self.network.parts
        assert parts is not None, "the network is split"
        found = {name: self._exchange.to_first(values) for name, values in named.items()}
        return {
            name: parts.of(name).joined(all_) for name, all_ in found.items() if all_ is not None
        }

    def restart(self) -> None:
        """Forget the steps so far."""
        self._inner.restart()

    def close(self) -> None:
        """Give back what both hold."""
        self._inner.close()
        self._exchange.close()
