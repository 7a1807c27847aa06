"""Shards that advance from meeting to meeting, and what is left of them after an error."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from ensync.training.virtual_shards import VirtualShards


class PlainSum:
    """All shards on this rank, added in their order."""

    shards, mine = 4, range(4)

    def over_shards(self, vectors, out, operation=None):
        out[:] = sum([vector.copy() for vector in vectors])


def make_shards(**values):
    def network():
        reduced = np.zeros(6)
        return SimpleNamespace(
            statistics=np.zeros(1),
            parameters=np.zeros(2),
            reduced=reduced,
            tail=reduced[2:],
            reduce_in=lambda vector: None,
            **{"statistics_travel": False} | values,
        )

    return VirtualShards([network() for _ in range(4)], PlainSum())


def test_shards_compute_in_turn_from_meeting_to_meeting():
    shards, seen = make_shards(), []

    def share(network, shard, meet):
        network.reduced[:] = 1
        for number in range(2):
            vector = np.array([shard + 10.0 * number])
            seen.append((number, shard))
            meet(vector)
            network.reduced[number] = vector[0]

    with shards:
        for _ in range(2):
            shards.gradient(share, stop=1)
            assert shards.network.reduced.tolist() == [
                4 * 6,
                4 * 46,
                4,
                4,
                1,
                4,
            ]  # the wish to stop counts once for the rank
    assert seen == [(number, shard) for number in range(2) for shard in range(4)] * 2
    assert all(network.parameters is shards.network.parameters for network in shards.networks)


def test_an_error_in_one_shard_is_raised_and_ends_the_threads():
    shards, before = make_shards(), threading.active_count()

    def share(network, shard, meet):
        meet(np.zeros(1))
        if shard == 2:
            raise ValueError("the third shard")

    with pytest.raises(ValueError, match="the third shard"), shards:
        assert threading.active_count() == before + 4
        shards.gradient(share, stop=0)
    assert threading.active_count() == before


def test_shards_that_do_not_meet_start_from_the_same_statistics_in_one_network():
    shards, before = make_shards(statistics_travel=True), threading.active_count()
    shards.network.statistics[:] = 5

    def share(network, shard, meet):
        assert meet is None and network is shards.network and network.statistics[0] == 5
        network.statistics += 1
        network.reduced[:] = shard

    with shards:
        assert threading.active_count() == before
        shards.gradient(share, stop=3)
    assert shards.network.reduced.tolist() == [6, 6, 6, 6, 3, 6]
