"""Times of steps: the slowest of many ranks beside draws, and between measured points."""

import numpy as np
import pytest

from ensync.core.scaling.steps import MOST_KEPT, Curve, StepTimes, curves, expected_maximum, summary


def point(rows, mean, threads=1, slowest=None, ranks=1):
    return StepTimes(threads, rows, ranks, mean, tuple(slowest or [mean]))


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_the_expected_maximum_is_that_of_draws(count):
    random = np.random.default_rng(count)
    values = random.gamma(2.0, size=9)
    drawn = random.choice(values, size=(20_000, count)).max(axis=1).mean()
    assert expected_maximum(values, count) == pytest.approx(drawn, rel=0.02)


def test_the_slowest_of_ranks():
    """Of two ranks that were measured: their mean alone, their slowest together, and for more that
    of pairs.
    """
    of_two = point(8, mean=1.0, slowest=[1.0, 3.0], ranks=2)
    assert of_two.of_slowest(1) == 1.0
    assert of_two.of_slowest(2) == 2.0
    assert of_two.of_slowest(4) == pytest.approx(2.5)  # 1, 1, 3, 3 of four equally likely pairs
    assert of_two.of_slowest(10**6) == pytest.approx(3.0)
    of_four = point(8, mean=1.0, slowest=[2.0], ranks=4)
    assert of_four.of_slowest(2) == pytest.approx(1.5)


def test_between_beyond_and_below_measured_rows():
    curve = Curve((point(2, 1.0), point(4, 2.0), point(8, 3.0)))
    found = [curve.seconds(rows) for rows in (0, 1, 2, 3, 6, 8, 12)]
    assert found == [0.0, 1.0, 1.0, 1.5, 2.5, 3.0, 4.0]
    assert Curve((point(4, 2.0),)).seconds(8) == 4.0


def test_curves_of_each_number_of_threads():
    found = curves([point(4, 2.0, threads=2), point(8, 5.0), point(2, 1.0)])
    assert sorted(found) == [1, 2]
    assert [each.rows for each in found[1].points] == [2, 8]


def test_interrupted_steps_are_left_out_and_counted():
    times = np.full((50, 2), 1.0)
    times[:, 1] = 1.5
    times[7, 0] = 40.0
    found = summary(2, 16, times)
    assert (found.threads, found.rows, found.ranks) == (2, 16, 2)
    assert found.mean == 1.25 and found.interrupted == pytest.approx(0.02)
    assert found.slowest == (1.5,) * MOST_KEPT
