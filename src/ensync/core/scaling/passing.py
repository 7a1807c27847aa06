"""What ranks pass to each other in a step of each strategy, and what that costs.

A strategy is an entry of STRATEGIES: a function from the sizes of a job, and how often ranks meet,
to a Pattern. A new one adds its entry, and one of KINDS where it passes something in a new way.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ensync.core.scaling.wires import GRADIENT, KINDS, METRICS_BYTES, NODE_FIRST, Cost, Place, Wires


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What of a job decides what its steps cost.

    rows: of the training split; batch: of a network, in its first epoch; slice: what of it goes
    through at once; itemsize: bytes of a number. parameters, statistics (of batch normalisation):
    numbers. exact: numbers that are summed behind the gradient. slots: vectors of the optimiser.
    sums: bytes of each sum of batch normalisation over all ranks within a step; averages: whether
    the statistics are averaged behind the gradient instead. elementwise: whether ranks of a node
    may share the update.
    """

    rows: int
    batch: int
    slice: int
    itemsize: int
    parameters: int
    statistics: int
    exact: int
    slots: int
    sums: tuple[int, ...] = ()
    averages: bool = False
    elementwise: bool = True

    @property
    def gradient(self) -> int:
        """Bytes of what is summed in a step: gradient, metrics, averaged statistics."""
        statistics = self.statistics if self.averages else 0
        return self.itemsize * (self.parameters + self.exact + statistics)

    @property
    def replica(self) -> int:
        """Bytes of what is summed in a meeting of replicas."""
        return self.itemsize * (self.parameters + self.exact + self.statistics)


class Passed(NamedTuple):
    """Vectors of so many bytes that each rank passes so many times a step, on average, in a way of
    KINDS.
    """

    kind: str
    nbytes: int
    times: float = 1.0


@dataclass(frozen=True)
class Pattern:
    """What ranks do in a step of a strategy.

    meets: steps from one moment when ranks wait for each other to the next, infinity for never;
    among: how many of them, 0 for all. own: whether each rank trains a network of its own, on whole
    batches. shares_update: whether ranks of a node may share the update. coded: vectors that are
    compressed in a step, on average.
    """

    passed: tuple[Passed, ...]
    meets: float
    among: int = 0
    own: bool = False
    shares_update: bool = False
    coded: float = 0.0

    def bytes(self, ranks: int) -> float:
        """Return the bytes that so many ranks together pass to others in a step."""
        each = (KINDS[one.kind].bytes(one.nbytes, ranks) * one.times for one in self.passed)
        return ranks * sum(each) if ranks > 1 else 0.0

    def compressed(self, parts: tuple[Passed, ...], gradient: int) -> "Pattern":
        """Return the pattern with `parts` in place of the first `gradient` bytes of each sum of a
        gradient or a replica, all ranks of which then update their whole replicas.
        """
        passed, coded = [], 0.0
        for each in self.passed:
            if each.kind not in (GRADIENT, NODE_FIRST):
                passed.append(each)
                continue
            coded += each.times
            passed += [part._replace(times=part.times * each.times) for part in parts]
            passed.append(Passed("all", each.nbytes - gradient, each.times))
        return replace(self, passed=tuple(passed), shares_update=False, coded=coded)


def synchronous(sizes: Sizes, every: float) -> Pattern:
    """The gradient is summed in every step, and so are statistics of batch normalisation."""
    sums = tuple(Passed("all", nbytes) for nbytes in sizes.sums)
    return Pattern((Passed(GRADIENT, sizes.gradient), *sums), 1, shares_update=True)


def local(sizes: Sizes, every: float) -> Pattern:
    """Local SGD: replicas are summed every so many steps."""
    if math.isinf(every):
        return Pattern((), every)
    passed = Passed(NODE_FIRST, sizes.replica, 1 / every), Passed("all", METRICS_BYTES, 1 / every)
    return Pattern(passed, every)


def gossip(sizes: Sizes, every: float) -> Pattern:
    """Each rank exchanges its parameters with one partner every so many steps. Without a thread of
    its own MPI passes long vectors on while ranks wait, so that none of that is taken for hidden.
    """
    return Pattern((Passed("partner", sizes.itemsize * sizes.parameters, 1 / every),), every, 2)


def apart(sizes: Sizes, every: float) -> Pattern:
    """An ensemble: nothing is passed."""
    return Pattern((), math.inf, own=True)


STRATEGIES: dict[str, Callable[[Sizes, float], Pattern]] = {
    "synchronous": synchronous,
    "local SGD": local,
    "gossip": gossip,
    "apart": apart,
}


def cost_of(pattern: Pattern, wires: Wires, place: Place, only: str = "") -> Cost:
    """Return what ranks pass in a step of a pattern costs, on average; only: of one kind."""
    cost = Cost()
    if place.ranks > 1:
        for each in pattern.passed:
            if only in ("", each.kind):
                cost = cost.plus(KINDS[each.kind].cost(wires, place, each.nbytes), each.times)
    return cost


def is_known(pattern: Pattern, wires: Wires, place: Place) -> bool:
    """Return whether all that a pattern passes over was measured, or is given."""
    if place.ranks == 1 or not pattern.passed:
        return True
    inside = wires.node is not None and wires.inside is not None
    return (place.on_node == 1 or inside) and (place.nodes == 1 or wires.between is not None)
