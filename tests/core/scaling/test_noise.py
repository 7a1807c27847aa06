"""The gradient noise scale of gradients whose noise is known, and what follows for batches."""

import math
from dataclasses import replace

import numpy as np
import pytest
from core.scaling.test_prediction import BETWEEN, SIZES, WIRES, steps

from ensync.core.scaling.advice import together
from ensync.core.scaling.links import Link
from ensync.core.scaling.noise import (
    Together,
    fieller,
    noise_scale,
    parts_of,
    samples_factor,
    soonest,
    steps_factor,
)
from ensync.core.scaling.prediction import Calibration

PARTS, ROWS, SIZE = 8, 4, 50


def norms(scale, count, seed):
    """|g|^2 of parts and of the whole in so many steps: a gradient of length 1 in 50 dimensions,
    and samples whose noise has the trace `scale`.
    """
    random = np.random.default_rng(seed)
    gradient = np.zeros(SIZE)
    gradient[0] = 1.0
    noise = math.sqrt(scale / SIZE / ROWS)
    parts = gradient + noise * random.normal(size=(count, PARTS, SIZE))
    of_parts = np.square(parts).sum(axis=2).mean(axis=1)
    return of_parts, np.square(parts.mean(axis=1)).sum(axis=1)


@pytest.mark.parametrize("scale", [2.0, 50.0, 400.0])
def test_a_known_scale_is_found(scale):
    found = noise_scale(*norms(scale, 4000, seed=1), PARTS, ROWS)
    assert found.scale == pytest.approx(scale, rel=0.1)
    assert 0.99 * found.low < scale < 1.01 * found.high and found.is_known
    assert (found.steps, found.parts, found.rows) == (4000, PARTS, ROWS)


def test_the_interval_covers_as_often_as_it_says():
    covered = [
        found.low <= 60.0 <= found.high
        for found in (noise_scale(*norms(60.0, 100, seed), PARTS, ROWS) for seed in range(400))
    ]
    assert 0.92 <= np.mean(covered) <= 0.98


def test_a_gradient_lost_in_noise_has_no_scale():
    """The upper end is open, if there is a scale at all; of few steps nothing is known."""
    found = noise_scale(*norms(1e6, 40, seed=3), PARTS, ROWS)
    assert not found.is_known and found.high == math.inf
    few = noise_scale(*norms(10.0, 7, seed=3), PARTS, ROWS)
    assert (few.scale, few.low, few.high) == (math.inf, 0.0, math.inf)


def test_fieller_by_hand():
    """Independent columns of means 4 and 2 with a standard error of 1 / z each: the ends are where
    |4 - 2 r| = sqrt(1 + r^2).
    """
    random = np.random.default_rng(1).normal(size=(400, 2))
    random -= random.mean(axis=0)
    white = random @ np.linalg.inv(np.linalg.cholesky(np.cov(random.T))).T
    low, high = fieller(white * math.sqrt(400) + [4.0, 2.0], z=1.0)
    for end in (low, high):
        assert abs(4 - 2 * end) == pytest.approx(math.sqrt(1 + end**2))
    assert low < 2 < high
    assert fieller(white * math.sqrt(400) + [4.0, 0.5], z=1.0)[1] == math.inf


@pytest.mark.parametrize(
    "batch,slice_rows,ranks,parts",
    [(32, 512, 1, 8), (32, 512, 16, 16), (50, 512, 3, 10), (31, 512, 2, 31), (6, 512, 4, 6)]
    + [(1024, 512, 4, 8), (768, 512, 4, 8), (513, 512, 2, 1), (2, 512, 1, 2)],
)
def test_batches_are_cut_into_equal_parts(batch, slice_rows, ranks, parts):
    assert parts_of(batch, slice_rows, ranks) == parts
    assert batch % parts == 0


def test_at_the_noise_scale_a_batch_costs_twice():
    assert steps_factor(100, 100) == samples_factor(100, 100) == 2.0
    assert steps_factor(100, 300) == pytest.approx(4 / 3) and samples_factor(100, 300) == 4.0


@pytest.fixture
def calibration():
    return Calibration(
        **dict(sizes=SIZES, threads=1, ranks_on_node=1, cores_of_node=1, steps=steps()),
        **dict(freely=1.0, update=1.0, loop=0.0, meeting=0.0, wires=WIRES),
    )


def test_the_best_batch_is_the_best_of_all(calibration):
    """Seconds 2 + b / 4, steps 1 + 60 / b, on one rank: least at b = sqrt(8 * 60), which is 22."""
    (one,) = together(calibration, 60.0, [1])
    step = {16: 6.0, 32: 10.0}
    times = {batch: seconds * (1 + 60 / batch) for batch, seconds in step.items()}
    best = min(times, key=times.get)
    assert (one.batch, one.step) == (best, step[best])
    assert one.time == pytest.approx(times[best] / (18 * (1 + 60 / 64)))
    assert one.samples == pytest.approx((1 + best / 60) / (1 + 64 / 60))
    assert one.efficiency == 1.0


def test_more_ranks_take_larger_batches_until_the_noise_is_used_up(calibration):
    fast = replace(WIRES, between=replace(BETWEEN, link=Link(0.01, 1e-6)))
    found = together(replace(calibration, wires=fast), 500.0, [1, 4, 16, 64, 256])
    batches, times = [each.batch for each in found], [each.time for each in found]
    assert batches == sorted(batches) and batches[0] < batches[-1]
    assert times == sorted(times, reverse=True)
    assert [each.efficiency for each in found] == sorted(
        (each.efficiency for each in found), reverse=True
    )
    slow = replace(WIRES, between=replace(BETWEEN, link=Link(4.0, 0.0)))
    few = together(replace(calibration, wires=slow), 500.0, [1, 4, 16, 64, 256])
    assert soonest(few).ranks < soonest(found).ranks == 256


def test_the_fewest_of_equal_ranks_are_chosen():
    row = Together(ranks=1, batch=8, rows=8, step=1.0, time=1.0, samples=1.0, efficiency=1.0)
    rows = [replace(row, ranks=16, time=0.4999), replace(row, ranks=4, time=0.5), row]
    assert soonest(rows).ranks == 4
