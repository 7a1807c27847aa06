"""Intervals and tests against published examples and simulation."""

import numpy as np
import pytest

from ensync.core import statistics


def test_the_interval_of_an_accuracy_is_wilsons():
    value, low, high = statistics.accuracy_interval(
        15, 148
    )  # Newcombe 1998, table I: 81/263, 15/148
    assert (value, low, high) == pytest.approx((15 / 148, 0.0624, 0.1605), abs=1e-4)
    assert statistics.accuracy_interval(81, 263)[1:] == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert statistics.accuracy_interval(10, 10).high == pytest.approx(
        1
    ) and statistics.accuracy_interval(0, 10).low == pytest.approx(0)
    assert statistics.accuracy_interval(0, 0) == (0, 0, 1)


def test_the_mean_over_seeds_has_students_interval():
    mean, low, high = statistics.mean_interval([1.0, 2.0, 3.0, 4.0])
    assert (mean, low, high) == pytest.approx(
        (2.5, 2.5 - 2.0543, 2.5 + 2.0543), abs=1e-4
    )  # t(0.975, 3) = 3.1824
    assert statistics.mean_interval([0.7]) == (0.7, -np.inf, np.inf)
    assert statistics.mean_interval([0.7, 0.7]) == pytest.approx((0.7, 0.7, 0.7))


def test_mcnemar_compares_what_only_one_of_two_gets_right():
    labels = np.array([0, 1, 2, 3, 4, 5])
    first, second = np.array([0, 1, 2, 0, 0, 5]), np.array([0, 0, 0, 3, 0, 5])
    assert statistics.paired_counts(labels, first, second).tolist() == [2, 1]
    assert statistics.mcnemar(2, 1) == (2, 1, 1.0)
    assert statistics.mcnemar(0, 0).p_value == 1.0
    assert statistics.mcnemar(6, 16).p_value == pytest.approx(
        0.0525, abs=1e-4
    )  # 2 * P(Binomial(22, 1/2) <= 6)
