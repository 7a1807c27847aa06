"""No two cells have a rank at once, none waits in a circle, and packing is near the best."""

import itertools

import numpy as np
import pytest

from ensync.runs.study.places import Load, Turn, in_order, packed


def played(loads, turns, size):
    """Return when each cell starts and ends, where each rank takes its cells in the order of the
    turns and each cell waits for all its ranks.
    """
    free, times = [0.0] * size, {}
    for number, group in turns:
        ranks, cost = loads[number]
        mine = range(group * ranks, (group + 1) * ranks)
        assert mine.stop <= size
        begun = max(free[rank] for rank in mine)
        times[number] = (begun, begun + cost, mine)
        for rank in mine:
            free[rank] = begun + cost
    return times


def test_in_turn_all_are_on_the_first_ranks():
    assert in_order([Load(2, 1.0), Load(1, 5.0)]) == [Turn(0, 0), Turn(1, 0)]


@pytest.mark.parametrize("seed", range(20))
def test_packed_cells_never_meet_on_a_rank(seed):
    random = np.random.default_rng(seed)
    size = int(random.integers(1, 7))
    loads = [
        Load(int(random.integers(1, size + 1)), float(random.random()))
        for _ in range(random.integers(1, 30))
    ]
    turns = packed(loads, size)
    assert sorted(turn.cell for turn in turns) == list(range(len(loads)))
    times = played(loads, turns, size)
    for (a, b, mine), (c, d, theirs) in itertools.combinations(times.values(), 2):
        assert not set(mine) & set(theirs) or b <= c or d <= a


def test_cells_of_one_rank_fill_all_ranks_the_longest_first():
    loads = [Load(1, cost) for cost in (1.0, 1.0, 2.0, 3.0, 1.0)]
    turns = packed(loads, 2)
    assert [turn.cell for turn in turns] == [3, 2, 0, 1, 4]
    assert max(end for _, end, _ in played(loads, turns, 2).values()) == 4.0


@pytest.mark.parametrize("seed", range(5))
def test_packing_keeps_grahams_bound_against_the_best_there_is(seed):
    random = np.random.default_rng(seed)
    loads = [Load(1, float(cost)) for cost in random.random(7)]
    found = max(end for _, end, _ in played(loads, packed(loads, 3), 3).values())
    best = min(
        max(np.bincount(places, [load.cost for load in loads], 3))
        for places in itertools.product(range(3), repeat=7)
    )
    assert best - 1e-12 <= found <= (4 / 3 - 1 / 9) * best
