"""How sure a figure is: intervals of accuracies, means over seeds, and a paired test of two classifiers.

scipy.stats takes half a second to import, so it is imported where it is used and training starts without it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A value with the interval that holds the true one with the confidence asked for."""

    value: float
    low: float
    high: float


def accuracy_interval(correct: int, rows: int, confidence: float = 0.95) -> Interval:
    """Return an accuracy of correct / rows with Wilson's score interval (Wilson 1927); no rows leave it between 0 and 1."""
    from scipy.stats import binomtest

    if rows == 0:
        return Interval(0.0, 0.0, 1.0)
    interval = binomtest(correct, rows).proportion_ci(confidence, method="wilson")
    return Interval(correct / rows, float(interval.low), float(interval.high))


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean over runs (seeds) with Student's t interval; one run alone has the interval of all numbers."""
    from scipy.stats import t

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, -np.inf, np.inf)
    half = float(t.ppf((1 + confidence) / 2, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return Interval(mean, mean - half, mean + half)


class PairedTest(NamedTuple):
    """On how many of the same images only the first, or only the second classifier is right, and the chance of that by luck."""

    only_first: int
    only_second: int
    p_value: float


def paired_counts(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (only first right, only second right) int64 (2,) of two predictions of the same rows; ranks may add them."""
    first, second = first == labels, second == labels
    return np.array([np.count_nonzero(first & ~second), np.count_nonzero(second & ~first)], np.int64)


def mcnemar(only_first: int, only_second: int) -> PairedTest:
    """Return McNemar's exact two-sided test (McNemar 1947): are two classifiers equally good on the same images?"""
    from scipy.stats import binomtest

    both = only_first + only_second
    p_value = float(binomtest(only_first, both).pvalue) if both else 1.0
    return PairedTest(int(only_first), int(only_second), p_value)
