"""The schedules of a run of so many steps: each spans exactly these, against the formula."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from training.test_training_features import make_job

from ensync.training.learning_rate import EpochPlan, LearningRate, Part
from ensync.training.position import Position

ROWS, BATCH = 95, 10  # ten steps an epoch


def factors(steps, schedule, **sections):
    """Return the factor of each step of a run."""
    training = {"batch": BATCH, "max_steps": steps, "epochs": -(-steps // 10)}
    job = make_job(schedule=schedule, training=training, **sections)
    plan = EpochPlan(job, ROWS)
    assert plan.starts[-1] == steps
    places = [
        (epoch, step) for epoch in range(job.training.epochs) for step in range(plan.end(epoch))
    ]
    assert len(places) == steps
    rate = LearningRate(job, plan)
    return np.array([rate.factor(Position(epoch, step)) for epoch, step in places])


@pytest.mark.parametrize("steps", [1, 3, 10, 17, 30, 43])
def test_schedules_span_the_steps(steps):
    share = np.arange(steps) / steps
    np.testing.assert_allclose(factors(steps, {"name": "linear"}), 1 - share, atol=1e-15)
    cosine = 0.5 * (1 + np.cos(math.pi * share))
    np.testing.assert_allclose(factors(steps, {"name": "cosine"}), cosine, atol=1e-15)
    squared = factors(steps, {"name": "polynomial", "power": 2.0, "minimum": 0.1})
    np.testing.assert_allclose(squared, 0.1 + 0.9 * (1 - share) ** 2, atol=1e-15)
    if steps >= 10:
        cycle = factors(steps, {"name": "one_cycle", "minimum": 0.01})
        assert cycle[-1] == 0.01 and cycle[0] == pytest.approx(0.04, abs=0.02)
        warm = factors(steps, {"name": "linear", "warmup_epochs": 0.5})
        np.testing.assert_allclose(warm[:5], np.arange(1, 6) / 5)
        np.testing.assert_allclose(warm[5:], 1 - np.arange(steps - 5) / (steps - 5), atol=1e-15)


def test_a_triangle_has_its_peak_at_a_share_of_the_steps():
    found = factors(35, {"name": "triangular", "peak": 0.4, "start": 0.2})
    np.testing.assert_allclose(found[:14], 0.2 + 0.8 * np.arange(14) / 14)
    np.testing.assert_allclose(found[14:], 1 - np.arange(21) / 21, atol=1e-15)


def test_lengths_count_the_rows_of_each_part():
    """Two epochs of 95 rows, then epochs of 24: 10 + 10 + 3 + 3 + 2 of 3 steps."""
    job = make_job(training={"batch": BATCH, "max_steps": 28})
    plan = EpochPlan(job, 24, (Part(95, 2), Part(24, 9)))
    assert plan.length == 4 + Fraction(2, 3) and plan.updates(3) == 23
    assert [plan.end(epoch) for epoch in range(6)] == [3, 3, 3, 3, 2, 0]
    assert replace(plan, rows=95).length == plan.length


def test_lengths_count_growing_batches():
    growth = {"every_epochs": 1, "largest_batch": 40}
    job = make_job(training={"batch": BATCH, "max_steps": 100}, growth=growth)
    steps = [10, 5] + [3] * 100  # of 10, 20 and 40 rows
    epoch = next(e for e in range(100) if sum(steps[: e + 1]) >= 100)
    assert EpochPlan(job, ROWS).length == epoch + Fraction(100 - sum(steps[:epoch]), 3)
    same = make_job(training={"batch": BATCH, "max_steps": 25}, growth={**growth, "batch": 1})
    assert EpochPlan(same, ROWS).length == Fraction(5, 2)


def test_a_long_run_is_not_walked():
    job = make_job(training={"batch": BATCH, "max_steps": 10**12 + 5})
    assert EpochPlan(job, ROWS).length == 10**11 + Fraction(1, 2)
