"""The sum of one vector per shard along one tree over the shards, whoever holds them: its bits do
not depend on the number of ranks.

Shards 0 to 7 are added as ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)). A rank holds neighbouring
shards, and first adds the subtrees that it holds whole. Then ranks exchange the sums of these
(Alltoallv), so that each rank gets one block of all of them. It adds the rest of the tree for its
block, and the ranks gather the blocks (Allgatherv).
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
        self._exchanges: dict[tuple[int, np.dtype], _Exchange] = {}

    def over_shards(
        self, vectors: Iterable[np.ndarray], out: np.ndarray, operation: int = Doing.GRADIENT
    ) -> None:
        """Write to `out` (n,) the sum of the vectors (n,) of all shards, the same bits on all
        ranks. Collective.

        vectors: of the shards in `mine`, in their order; each is read before the next is taken from
        the iterable, and `out` may be one of them. operation: what the watchdog calls the wait.
        """
        key = len(out), out.dtype
        if key not in self._exchanges:
            self._exchanges[key] = _Exchange(self.comm, self.shards, *key)
        exchange = self._exchanges[key]
        exchange.own.nodes.clear()
        for shard, vector in zip(self.mine, vectors, strict=True):
            exchange.own.add(Node(shard, 1), vector)
        if self.comm.size == 1:
            out[:] = exchange.own.total()
            return
        start = perf_counter()
        with doing(operation):
            exchange.run(out)
        self.calls += 1
        self.bytes += exchange.bytes
        self.seconds += perf_counter() - start


class _Exchange:
    """The buffers and counts with which vectors (n,) of one type are exchanged."""

    def __init__(self, comm: Comm, shards: int, n: int, dtype: np.dtype) -> None:
        self.comm, self.own, self.all = comm, Tree(), Tree()
        self.held = [
            whole_subtrees(range(*block(shards, comm.size, rank))) for rank in range(comm.size)
        ]
        self.blocks = [slice(*block(n, comm.size, rank)) for rank in range(comm.size)]
        self.lengths = [part.stop - part.start for part in self.blocks]
        subtrees, length = len(self.held[comm.rank]), self.lengths[comm.rank]
        self.sent = np.empty(subtrees * n, dtype)
        self.received = np.empty((sum(map(len, self.held)), length), dtype)
        self.sent_counts = [subtrees * other for other in self.lengths]
        self.received_counts = [len(nodes) * length for nodes in self.held]
        # what stays on this rank is not passed
        places = subtrees * (n - length) + (comm.size - 1) * length
        self.bytes = places * dtype.itemsize

    def run(self, out: np.ndarray) -> None:
        """Write to `out` the sum of all ranks' own subtrees. Collective."""
        start = 0
        for part, length in zip(self.blocks, self.lengths, strict=True):
            for buffer in self.own.buffers[: len(self.own.nodes)]:
                self.sent[start : start + length] = buffer[part]
                start += length
        self.comm.Alltoallv([self.sent, self.sent_counts], [self.received, self.received_counts])
        self.all.nodes.clear()
        for node, row in zip(
            (node for nodes in self.held for node in nodes), self.received, strict=True
        ):
            self.all.add(node, row)
        self.comm.Allgatherv(self.all.total(), [out, self.lengths])
