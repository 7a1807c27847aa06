"""Shards that synchronise within a step, and what is left of them after an error."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from ensync.training.virtual_shards import DeterministicReducer


class PlainSum:
    """All shards on this rank, added in their order."""

    shards, mine, bytes, seconds = 4, range(4), 0, 0.0

    def over_shards(self, vectors, out, operation=None):
        out[:] = sum([vector.copy() for vector in vectors])


def make_shards(**values):
    def network():
        message = np.zeros(6)
        return SimpleNamespace(
            statistics=np.zeros(1),
            parameters=np.zeros(2),
            message=message,
            exact=message[2:],
            metrics=message[2:],
            bind_message=lambda vector: None,
            **{"synchronizes_statistics": True, "averages_statistics": False} | values,
        )

    return DeterministicReducer([network() for _ in range(4)], PlainSum())


def test_shards_compute_in_turn_from_sum_to_sum():
    shards, seen = make_shards(), []

    def compute(network, part):
        network.message[:] = 1
        for number in range(2):
            vector = np.array([part.index + 10.0 * number])
            seen.append((number, part.index))
            part.allreduce(vector)
            network.message[number] = vector[0]

    with shards:
        for _ in range(2):
            metrics = shards.reduce(compute, lambda: 1)
            assert metrics == (4, 4, 1)
            assert shards.network.message.tolist() == [
                4 * 6,
                4 * 46,
                4,
                4,
                1,
                4,
            ]  # the request to stop counts once for the rank
    assert seen == [(number, shard) for number in range(2) for shard in range(4)] * 2
    assert all(network.parameters is shards.network.parameters for network in shards.networks)


def test_an_error_in_one_shard_is_raised_and_ends_the_threads():
    shards, before = make_shards(), threading.active_count()

    def compute(network, part):
        part.allreduce(np.zeros(1))
        if part.index == 2:
            raise ValueError("the third shard")

    with pytest.raises(ValueError, match="the third shard"), shards:
        assert threading.active_count() == before + 4
        shards.reduce(compute, lambda: 0)
    assert threading.active_count() == before


def test_shards_that_do_not_synchronise_start_from_the_same_statistics_in_one_network():
    shards, before = make_shards(synchronizes_statistics=False), threading.active_count()
    shards.network.statistics[:] = 5

    def compute(network, part):
        assert part.allreduce is None and network is shards.network and network.statistics[0] == 5
        network.statistics += 1
        network.message[:] = part.index

    with shards:
        assert threading.active_count() == before
        shards.reduce(compute, lambda: 3)
    assert shards.network.message.tolist() == [6, 6, 6, 6, 3, 6]
