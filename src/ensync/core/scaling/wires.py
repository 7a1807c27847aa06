"""What ranks pass things over, and what each way to pass a vector costs there."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ensync.core.scaling.collectives import Terms, exchange
from ensync.core.scaling.links import Network

METRICS_BYTES = 32  # of four float64 numbers: what a meeting sums beside the replicas
GRADIENT, NODE_FIRST = "gradient", "node first"
PIECE_BYTES = 1 << 18  # of what ranks of a node sum at once between nodes (mpi.node_sum)


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
