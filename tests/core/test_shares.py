"""Rows by speed: beside all ways to cut a batch, and over epochs of ranks of given speeds."""

from itertools import product

import numpy as np
import pytest

from ensync.core.sharding import block
from ensync.core.shares import (
    adjusted,
    block_by_speed,
    longest,
    most_rows,
    rows_by_speed,
)

DRAWN = [tuple(np.random.default_rng(seed).uniform(0.05, 3, 2 + seed % 3)) for seed in range(12)]


def ways(n, ranks):
    """Yield all ways to cut n rows into as many parts as each rank may have."""
    least = int(n >= ranks)
    for rows in product(range(least, most_rows(n, ranks) + 1), repeat=ranks - 1):
        last = n - sum(rows)
        if least <= last <= most_rows(n, ranks):
            yield (*rows, last)


@pytest.mark.parametrize("speeds", DRAWN)
def test_no_other_cut_ends_sooner(speeds):
    for n in (1, 2, 3, 7, 20):
        rows = rows_by_speed(n, speeds)
        assert sum(rows) == n and rows in set(ways(n, len(speeds)))
        assert longest(rows, speeds) == min(longest(each, speeds) for each in ways(n, len(speeds)))


@pytest.mark.parametrize("n", [0, 1, 2, 5, 50, 512])
def test_equal_speeds_cut_as_blocks_do(n):
    for ranks in (1, 2, 3, 7):
        spans = [block_by_speed(n, (0.7,) * ranks, rank) for rank in range(ranks)]
        assert spans == [block(n, ranks, rank) for rank in range(ranks)]


def test_parts_follow_each_other_and_are_bounded():
    spans = [block_by_speed(60, (1e-300, 1.0, 5e300), rank) for rank in range(3)]
    assert spans == [(0, 1), (1, 20), (20, 60)]


def epochs(speeds, costs, n, count):
    """Return the speeds after so many epochs of ranks whose step takes costs[k] = (a, b) as
    a + b rows.
    """
    for _ in range(count):
        rows = rows_by_speed(n, speeds or (1.0,) * len(costs))
        speeds = adjusted(speeds, [r / (a + b * r) for r, (a, b) in zip(rows, costs)], n)
    return speeds


def test_the_parts_of_steady_ranks_come_to_those_of_their_speeds():
    """Also where a step has costs beside its rows: then all ranks end together."""
    assert epochs((), [(0, 1), (0, 1 / 3)], 64, 1) == pytest.approx((0.5, 1.5))
    costs = [(5, 1), (5, 1 / 2), (1, 1 / 2)]
    rows = rows_by_speed(90, epochs((), costs, 90, 12))
    ends = [a + b * r for r, (a, b) in zip(rows, costs)]
    assert max(ends) < 1.06 * min(ends)


def test_what_saves_little_changes_nothing():
    assert adjusted((), [1.0, 1.04], 64) == ()
    assert adjusted((0.5, 1.5), [1.0, 3.1], 64) == (0.5, 1.5)
    assert adjusted((), [1.0, 3.0], 2) == ()  # a row each in any case
    half_way = adjusted((0.5, 1.5), [1.0, 1.0], 64)
    assert half_way == (0.75, 1.25)


def test_a_rank_without_rows_keeps_its_speed():
    assert adjusted((), [4.0, None, 4.0, 1.0], 64) == pytest.approx((4 / 3, 1.0, 4 / 3, 1 / 3))
