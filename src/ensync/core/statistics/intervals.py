"""How sure a figure is: intervals of accuracies and of means over seeds."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A value with the interval that holds the true one with the confidence asked for."""

    value: float
    low: float
    high: float


def accuracy_interval(correct: int, rows: int, confidence: float = 0.95) -> Interval:
    """Return an accuracy of correct / rows with Wilson's score interval (Wilson 1927); no rows
    leave it between 0 and 1.
    """
    if rows == 0:
        return Interval(0.0, 0.0, 1.0)
    z, share = NormalDist().inv_cdf((1 + confidence) / 2), correct / rows
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * np.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return Interval(share, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def share_interval(share: float, rows: int, confidence: float = 0.95) -> Interval:
    """Return an accuracy, a share of so many rows, with the interval of `accuracy_interval`."""
    return accuracy_interval(round(share * rows), rows, confidence)


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    """Return the mean over runs (seeds) with Student's t interval; one run alone has the
    interval of all numbers.
    """
    from scipy.special import stdtrit

    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, -np.inf, np.inf)
    half = float(stdtrit(count - 1, (1 + confidence) / 2) * np.std(values, ddof=1) / np.sqrt(count))
    return Interval(mean, mean - half, mean + half)
