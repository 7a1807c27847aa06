"""Costs of sums over ranks: beside a simulation that passes every message, and by hand."""

import pytest
from core.scaling import schedules

from ensync.core.scaling import collectives
from ensync.core.scaling.collectives import Terms, allreduce
from ensync.core.scaling.links import Link

LINK = Link(latency=3.0, byte=0.5, add=0.125)
NAMES = ("recursive_doubling", "rabenseifner", "ring", "reduce_broadcast")


@pytest.mark.parametrize("ranks", [2, 4, 8, 16])
@pytest.mark.parametrize("name", NAMES)
def test_costs_are_those_of_every_message_one_by_one(name, ranks):
    length = 48 * ranks
    simulated = getattr(schedules, name)(schedules.Ranks(ranks, length, LINK))
    terms = getattr(collectives, name)(ranks, 8 * length)
    assert LINK.seconds(terms) == pytest.approx(simulated)


@pytest.mark.parametrize("ranks", [3, 5, 6, 7, 12])
@pytest.mark.parametrize("name", NAMES)
def test_costs_for_other_numbers_of_ranks(name, ranks):
    """A formula takes the ranks that hand on first to be the last throughout; some are not."""
    length = 8 * 105
    simulated = getattr(schedules, name)(schedules.Ranks(ranks, length, LINK))
    terms = getattr(collectives, name)(ranks, 8 * length)
    assert simulated * (1 - 1e-9) <= LINK.seconds(terms) <= 1.02 * simulated


def test_by_hand():
    assert collectives.recursive_doubling(8, 100) == (3, 300, 300)
    assert collectives.rabenseifner(4, 100) == (4, 150, 75)
    assert collectives.rabenseifner(3, 100) == (2 + 2, 100 + 200, 50 + 100)
    assert collectives.ring(5, 100) == (8, 160, 80)
    assert collectives.reduce_broadcast(5, 100) == (6, 600, 300)
    assert collectives.exchange(7, 100) == (1, 100, 100)
    assert collectives.exchange(1, 100) == (0, 0, 0)


def test_what_a_library_takes():
    """MPICH: halving from 2,048 bytes on; Open MPI: by ranks and bytes; unknown ones as MPICH."""
    short, long = collectives.recursive_doubling, collectives.rabenseifner
    assert allreduce("MPICH 5.0.2", 8, 2048) == short(8, 2048)
    assert allreduce("MPICH 5.0.2", 8, 2052) == long(8, 2052)
    assert allreduce("MPICH 5.0.2", 1024, 4092) == short(1024, 4092)  # fewer numbers than ranks
    assert allreduce("Open MPI 5.0.11", 2, 100_000) == collectives.ring(2, 100_000)
    assert allreduce("Open MPI 5.0.11", 2, 300_000) == long(2, 300_000)
    assert allreduce("Open MPI 5.0.11", 200, 1000) == collectives.reduce_broadcast(200, 1000)
    assert allreduce("Open MPI 5.0.11", 1000, 4000) == short(1000, 4000)
    assert allreduce("Intel MPI", 4, 1 << 20) == long(4, 1 << 20)
    assert allreduce("MPICH 5.0.2", 1, 1 << 20) == (0, 0, 0)


def test_terms_add_up():
    assert Terms(1, 2, 3).plus(Terms(4, 5, 6).times(2)) == (9, 12, 15)
