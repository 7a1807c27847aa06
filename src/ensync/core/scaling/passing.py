"""What ranks pass to each other in a step of each strategy, and what that costs.

A strategy is an entry of STRATEGIES: a function from the sizes of a job, and how often ranks meet,
to a Pattern. A new one adds its entry, and one of KINDS where it passes something in a new way.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from ensync.core.scaling.collectives import Terms, exchange
from ensync.core.scaling.links import Network

METRICS_BYTES = 32  # of four float64 numbers: what a meeting sums beside the replicas
GRADIENT, NODE_FIRST = "gradient", "node first"
PIECE_BYTES = 1 << 18  # of what ranks of a node sum at once between nodes (mpi.node_sum)


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


@dataclass(frozen=True)
class NodeSum:
    """Sums in the memory of a node, measured with so many ranks there: seconds whatever the length,
    and of a byte.

    Each rank reads its block of all vectors and writes it to all of them, so that the traffic of a
    node grows with its ranks.
    """

    ranks: int
    fixed: float
    byte: float

    def seconds(self, ranks: int, nbytes: float) -> float:
        """Return those of a sum over so many ranks."""
        if ranks == 1:
            return 0.0
        more = ranks / self.ranks
        return self.fixed * max(1.0, more) + nbytes * self.byte * more


@dataclass(frozen=True)
class Wires:
    """What ranks pass things over: the memory of a node, MPI within it, and MPI between nodes. None
    where that is not known.
    """

    node: NodeSum | None = None
    inside: Network | None = None
    between: Network | None = None


class Place(NamedTuple):
    """Ranks on so many nodes, as many on each."""

    nodes: int
    on_node: int

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.nodes * self.on_node


class Cost(NamedTuple):
    """Seconds in the memory of nodes, and of what goes by MPI: for its messages, for its bytes."""

    node: float = 0.0
    latency: float = 0.0
    bandwidth: float = 0.0

    def plus(self, other: "Cost", times: float = 1.0) -> "Cost":
        """Return both, the other so many times."""
        return Cost(*(mine + times * theirs for mine, theirs in zip(self, other, strict=True)))


def node_first(wires: Wires, place: Place, nbytes: float) -> Cost:
    """A sum as mpi.allreduce has it: blocks of ranks in the memory of a node, and each rank's block
    between nodes, piece by piece, all ranks of a node at once over its link; where nodes have one
    rank, the whole by MPI.
    """
    cost = Cost()
    if place.on_node > 1:
        assert wires.node is not None
        cost = Cost(node=wires.node.seconds(place.on_node, nbytes))
    if place.nodes == 1:
        return cost
    assert wires.between is not None
    if place.on_node == 1:
        return cost.plus(Cost(0.0, *wires.between.split(place.nodes, nbytes)))
    pieces = max(1, math.ceil(nbytes / place.on_node / PIECE_BYTES))
    length = nbytes / place.on_node / pieces
    messages, sent = wires.between.split(place.nodes, length)
    return cost.plus(Cost(0.0, pieces * messages, pieces * place.on_node * sent))


def gradient(wires: Wires, place: Place, nbytes: float) -> Cost:
    """A sum of gradients where ranks of a node share the update: what is behind the gradient is
    summed before it, by one more message (mpi.shared_update).
    """
    cost = node_first(wires, place, nbytes)
    if place.nodes == 1 or place.on_node == 1:
        return cost
    assert wires.between is not None
    return cost.plus(Cost(0.0, *wires.between.split(place.nodes, METRICS_BYTES)))


def over_all(wires: Wires, place: Place, nbytes: float) -> Cost:
    """A sum over all ranks by MPI, whose libraries sum within nodes, then between them, then hand
    the sum out.
    """
    cost = Cost()
    if place.on_node > 1:
        assert wires.inside is not None
        cost = cost.plus(Cost(0.0, *wires.inside.split(place.on_node, nbytes)))
    if place.nodes > 1:
        assert wires.between is not None
        cost = cost.plus(Cost(0.0, *wires.between.split(place.nodes, nbytes)))
    return cost


def with_partner(wires: Wires, place: Place, nbytes: float) -> Cost:
    """An exchange with one partner, on another node where there is one."""
    network = wires.between if place.nodes > 1 else wires.inside
    if place.ranks == 1:
        return Cost()
    assert network is not None
    terms = exchange(place.ranks, nbytes)
    messages = network.link.of_messages(terms)
    return Cost(0.0, messages, network.link.seconds(terms) - messages)


def to_all(wires: Wires, place: Place, nbytes: float) -> Cost:
    """Each rank passes a block of a vector of nbytes to each other rank, one by one: what a sum of
    words takes in its first hop, and its blocks' sums in the second. Ranks of a node share its
    link.
    """
    network = wires.between if place.nodes > 1 else wires.inside
    assert network is not None
    others = place.ranks - place.on_node if place.nodes > 1 else place.ranks - 1
    sharing = place.on_node if place.nodes > 1 else 1
    terms = Terms(place.ranks - 1, sharing * others / place.ranks * nbytes, 0)
    messages = network.link.of_messages(terms)
    return Cost(0.0, messages, network.link.seconds(terms) - messages)


def whole_to_all(wires: Wires, place: Place, nbytes: float) -> Cost:
    """Each rank passes all of its nbytes to each other rank."""
    return to_all(wires, place, place.ranks * nbytes)


class Kind(NamedTuple):
    """A way to pass vectors: its cost, and the bytes that each of some ranks passes to others, as
    mpi.wire and mpi.exchange count them.
    """

    cost: Callable[[Wires, Place, float], Cost]
    bytes: Callable[[int, int], int]


def _of_sum(nbytes: int, ranks: int) -> int:
    return 2 * (ranks - 1) * nbytes // ranks


def _of_pairs(nbytes: int, ranks: int) -> int:
    return nbytes * (ranks - ranks % 2) // ranks  # of an odd number one has no partner


KINDS: dict[str, Kind] = {
    NODE_FIRST: Kind(node_first, _of_sum),
    GRADIENT: Kind(gradient, _of_sum),
    "all": Kind(over_all, _of_sum),
    "partner": Kind(with_partner, _of_pairs),
    "blocks": Kind(to_all, lambda nbytes, ranks: (ranks - 1) * nbytes // ranks),
    "whole": Kind(whole_to_all, lambda nbytes, ranks: (ranks - 1) * nbytes),
}


def cost_of(pattern: Pattern, wires: Wires, place: Place, only: str = "") -> Cost:
    """Return what ranks pass in a step of a pattern costs, on average; only: of one kind."""
    cost = Cost()
    if place.ranks > 1:
        for each in pattern.passed:
            if only in ("", each.kind):
                cost = cost.plus(KINDS[each.kind].cost(wires, place, each.nbytes), each.times)
    return cost


@dataclass(frozen=True)
class Overlap:
    """What of the sums of gradients ranks do while they compute, where each has a node of its own.

    longer: seconds of sums in buckets over those of one sum; share: of a step's arithmetic, so many
    of whose seconds of sums are hidden.
    """

    longer: float
    share: float

    def exposed(self, cost: Cost, arithmetic: float) -> Cost:
        """Return what is seen of the cost of a gradient's sum beside so many seconds."""
        whole = cost.latency + cost.bandwidth
        if whole <= 0:
            return cost
        left = max(0.0, self.longer * whole - self.share * arithmetic) / whole
        return Cost(cost.node, left * cost.latency, left * cost.bandwidth)


def is_known(pattern: Pattern, wires: Wires, place: Place) -> bool:
    """Return whether all that a pattern passes over was measured, or is given."""
    if place.ranks == 1 or not pattern.passed:
        return True
    inside = wires.node is not None and wires.inside is not None
    return (place.on_node == 1 or inside) and (place.nodes == 1 or wires.between is not None)
