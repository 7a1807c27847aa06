"""Exchanges of values between the parts of a network: what arrives where, adjoints, and bytes."""

import numpy as np
import pytest
from mpi4py import MPI

from ensync.mpi.values import ValueExchange

COMM = MPI.COMM_WORLD
pytestmark = pytest.mark.mpi
EACH = 6  # values of a rank


@pytest.fixture
def exchange():
    made = ValueExchange(COMM)
    yield made
    made.close()


def own(rank=COMM.rank, seed=0):
    """Return the values of a rank, which all ranks know."""
    return np.random.default_rng([seed, rank]).standard_normal(EACH)


def test_all_ranks_get_what_each_has(exchange):
    parts = np.zeros((COMM.size, EACH))
    exchange.gather(own(), parts)
    np.testing.assert_array_equal(parts, [own(rank) for rank in range(COMM.size)])
    assert exchange.cost.bytes == 8 * EACH * (COMM.size - 1)


def test_scattering_is_the_adjoint_of_gathering(exchange):
    """The sums over all ranks of <gather(x), y> and <x, scatter(y)> are one."""
    parts, back = np.zeros((COMM.size, EACH)), np.zeros(EACH)
    given = np.random.default_rng([1, COMM.rank]).standard_normal(parts.shape)
    exchange.gather(own(), parts)
    exchange.scatter(given, back)
    there = COMM.allreduce(float((parts * given).sum()))
    assert there == pytest.approx(COMM.allreduce(float((own() * back).sum())), rel=1e-12)
    assert exchange.cost.bytes == 2 * 8 * EACH * (COMM.size - 1)


def test_a_sum_is_the_same_on_all(exchange):
    values = own()
    exchange.sum(values)
    np.testing.assert_allclose(values, sum(own(rank) for rank in range(COMM.size)), rtol=1e-12)
    assert np.array_equal(COMM.bcast(values), values)
    assert exchange.cost.bytes == 2 * 8 * EACH * (COMM.size - 1) // COMM.size


def test_neighbours_swap(exchange):
    low, high, before, after = own(seed=1), own(seed=2), np.zeros(EACH), np.zeros(EACH)
    exchange.swap(low, high, before, after)
    first, last = COMM.rank == 0, COMM.rank == COMM.size - 1
    np.testing.assert_array_equal(before, 0 * low if first else own(COMM.rank - 1, 2))
    np.testing.assert_array_equal(after, 0 * low if last else own(COMM.rank + 1, 1))
    assert exchange.cost.bytes == 8 * EACH * ((not first) + (not last))


def test_groups_of_neighbours_gather_by_themselves(exchange):
    groups = next(number for number in (2, 3, 1) if COMM.size % number == 0)
    group, size = exchange.of_groups(groups), COMM.size // groups
    assert (group.ranks, group.rank) == (size, COMM.rank % size)
    assert exchange.of_groups(groups) is group, "split once"
    parts = np.zeros((size, EACH))
    group.gather(own(), parts)
    first = COMM.rank // size * size
    np.testing.assert_array_equal(parts, [own(rank) for rank in range(first, first + size)])
    assert exchange.cost.bytes == 8 * EACH * (size - 1), "counted with the others"


def test_the_first_has_all_and_all_hear_the_largest(exchange):
    found = exchange.to_first(own())
    if COMM.rank == 0:
        np.testing.assert_array_equal(found, [own(rank) for rank in range(COMM.size)])
    else:
        assert found is None
    assert exchange.most(COMM.rank % 2) == min(1, COMM.size - 1)
    assert exchange.cost.bytes == 0, "no values of layers"
