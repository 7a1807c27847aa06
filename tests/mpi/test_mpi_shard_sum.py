"""Sums over shards against the tree written down, on any number of ranks."""

import numpy as np
import pytest

from ensync.mpi.shard_sum import ShardSum, whole_subtrees
from ensync.mpi.world import world

pytestmark = pytest.mark.mpi


def vector_of(shard, n, dtype):
    return np.random.default_rng(shard).normal(size=n).astype(dtype)


def tree_sum(vectors):
    """The largest power of two below the number of vectors on the left, the rest on the right."""
    if len(vectors) == 1:
        return vectors[0]
    half = 1 << (len(vectors) - 1).bit_length() - 1
    return tree_sum(vectors[:half]) + tree_sum(vectors[half:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shards", [4, 5, 7, 8, 11, 16])
def test_the_sum_is_the_trees_to_the_bit(shards, dtype):
    if shards < world().size:
        pytest.skip("wants fewer ranks")
    total = ShardSum(world(), shards)
    for n in (0, 1, 3, 1000, 4099, 1000):
        out = np.full(n, np.nan, dtype)
        total.over_shards((vector_of(shard, n, dtype) for shard in total.mine), out)
        assert np.array_equal(
            out, tree_sum([vector_of(shard, n, dtype) for shard in range(shards)])
        )


def test_a_vector_may_be_reused_for_the_next_shard_and_for_the_sum():
    total, vector = ShardSum(world(), 8), np.empty(50)

    def one_after_the_other():
        for shard in total.mine:
            vector[:] = vector_of(shard, 50, float)
            yield vector

    total.over_shards(one_after_the_other(), vector)
    assert np.array_equal(vector, tree_sum([vector_of(shard, 50, float) for shard in range(8)]))


def test_only_sums_of_whole_subtrees_are_sent():
    assert [tuple(node) for node in whole_subtrees(range(3, 12))] == [(3, 1), (4, 4), (8, 4)]
    assert [tuple(node) for node in whole_subtrees(range(8))] == [(0, 8)]
    total = ShardSum(world(), 8)
    total.over_shards((np.ones(800) for _ in total.mine), np.empty(800))
    subtrees = {1: 0, 2: 1, 3: 2 - (total.comm.rank == 2), 4: 1, 5: 1, 8: 1}
    if total.comm.size in subtrees:
        ranks = total.comm.size
        stretch = len(range(800)[total.comm.rank :: ranks])
        own, others = subtrees[ranks] * (800 - stretch), (ranks - 1) * stretch
        assert total.bytes == 8 * (own + others)
