"""The sum of one vector per shard along one tree over the shards, whoever holds them: its bits do
not depend on the number of ranks.

Shards 0 to 7 are added as ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)). A rank holds neighbouring
shards and adds up the subtrees that it holds whole; only these travel. Each rank gets its stretch
of all of them, goes on up the tree, and hands the sum round.
"""

from collections.abc import Iterable
from time import perf_counter
from typing import NamedTuple

import numpy as np

from ensync.core.activity import Doing, doing
from ensync.core.sharding import block
from ensync.mpi.allreduce import Allreduce
from ensync.mpi.world import Comm


class Node(NamedTuple):
    """A subtree: its first shard and how many it has, a power of two that divides the first."""

    first: int
    size: int


class Tree:
    """Adds vectors of one length, given from left to right, in buffers of its own, of which it
    needs no more than the tree is high, twice.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.buffers: list[np.ndarray] = []  # the nodes' sums, and room for more of them

    def add(self, node: Node, vector: np.ndarray) -> None:
        """Take the sum of the next subtree to the right; two halves of a larger one become that."""
        place = len(self.nodes)
        while place and _are_halves(self.nodes[-1], node):
            place -= 1
            node = Node(self.nodes.pop().first, 2 * node.size)
            vector = np.add(self.buffers[place], vector, out=self.buffers[place])
        if place == len(self.buffers):
            self.buffers.append(np.empty_like(vector))
        if vector is not self.buffers[place]:
            self.buffers[place][:] = vector
        self.nodes.append(node)

    def total(self) -> np.ndarray:
        """Return the sum of all; where the number of shards is no power of two, the last
        subtrees are added first.
        """
        total, *before = self.buffers[: len(self.nodes)][::-1]
        for buffer in before:
            total = np.add(buffer, total, out=buffer)
        return total


def _are_halves(left: Node, right: Node) -> bool:
    return left.size == right.size and left.first % (2 * left.size) == 0


def whole_subtrees(shards: range) -> list[Node]:
    """Return the largest subtrees among neighbouring shards, from left to right."""
    tree, nothing = Tree(), np.empty(0)
    for shard in shards:
        tree.add(Node(shard, 1), nothing)
    return tree.nodes


class ShardSum(Allreduce):
    """Sums over `shards` that the ranks of a communicator hold in blocks, besides sums over its
    ranks; both are counted.
    """

    def __init__(self, comm: Comm, shards: int) -> None:
        super().__init__(comm)
        self.shards = shards
        self.mine = range(*block(shards, comm.size, comm.rank))
        self._routes: dict[tuple[int, np.dtype], _Route] = {}

    def over_shards(
        self, vectors: Iterable[np.ndarray], out: np.ndarray, operation: int = Doing.GRADIENT
    ) -> None:
        """Write to `out` (n,) the sum of the vectors (n,) of all shards, the same bits on all
        ranks. Collective.

        vectors: of the shards in `mine`, in their order; each is read before the next is asked for,
        and `out` may be one of them. operation: what the watchdog calls the wait.
        """
        key = len(out), out.dtype
        if key not in self._routes:
            self._routes[key] = _Route(self.comm, self.shards, *key)
        route = self._routes[key]
        route.own.nodes.clear()
        for shard, vector in zip(self.mine, vectors, strict=True):
            route.own.add(Node(shard, 1), vector)
        if self.comm.size == 1:
            out[:] = route.own.total()
            return
        start = perf_counter()
        with doing(operation):
            route.exchange(out)
        self.calls += 1
        self.bytes += route.bytes
        self.seconds += perf_counter() - start


class _Route:
    """How vectors (n,) of one type travel, and the room that they need on the way."""

    def __init__(self, comm: Comm, shards: int, n: int, dtype: np.dtype) -> None:
        self.comm, self.own, self.all = comm, Tree(), Tree()
        self.held = [
            whole_subtrees(range(*block(shards, comm.size, rank))) for rank in range(comm.size)
        ]
        self.stretches = [slice(*block(n, comm.size, rank)) for rank in range(comm.size)]
        self.lengths = [part.stop - part.start for part in self.stretches]
        subtrees, length = len(self.held[comm.rank]), self.lengths[comm.rank]
        self.given = np.empty(subtrees * n, dtype)
        self.taken = np.empty((sum(map(len, self.held)), length), dtype)
        self.given_counts = [subtrees * other for other in self.lengths]
        self.taken_counts = [len(nodes) * length for nodes in self.held]
        self.bytes = self.given.nbytes + length * dtype.itemsize

    def exchange(self, out: np.ndarray) -> None:
        """Write to `out` the sum of all ranks' own subtrees. Collective."""
        start = 0
        for part, length in zip(self.stretches, self.lengths, strict=True):
            for buffer in self.own.buffers[: len(self.own.nodes)]:
                self.given[start : start + length] = buffer[part]
                start += length
        self.comm.Alltoallv([self.given, self.given_counts], [self.taken, self.taken_counts])
        self.all.nodes.clear()
        for node, row in zip(
            (node for nodes in self.held for node in nodes), self.taken, strict=True
        ):
            self.all.add(node, row)
        self.comm.Allgatherv(self.all.total(), [out, self.lengths])
