"""Measured times of steps: against the rows of a rank, and of the slowest of many ranks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LONGEST = 3.0  # times the usual step, beyond which a step was interrupted
MOST_KEPT = 40  # steps of which times are kept


@dataclass(frozen=True)
class StepTimes:
    """Times of steps of so many rows on so many threads, begun together by `ranks` ranks.

    mean: seconds of a rank; slowest: of each step, or of evenly spaced ones by their length, the
    seconds of the slowest of these ranks. interrupted: the share of steps that were left out.
    """

    threads: int
    rows: int
    ranks: int
    mean: float
    slowest: tuple[float, ...]
    interrupted: float = 0.0

    def of_slowest(self, ranks: int) -> float:
        """Return the mean seconds of the slowest of so many ranks. Up to those that were measured,
        between their mean and their slowest by the logarithm of their number; beyond, the ranks
        are taken for groups as large as the measured one, each as fast as some measured step.
        """
        if ranks <= 1:
            return self.mean
        together = float(np.mean(self.slowest))
        if ranks < self.ranks:
            share = math.log(ranks) / math.log(self.ranks)
            return self.mean + share * (together - self.mean)
        return expected_maximum(self.slowest, ranks / self.ranks)


def summary(threads: int, rows: int, times: np.ndarray) -> StepTimes:
    """Return what is kept of the seconds (steps, ranks). Steps whose slowest rank took more than
    LONGEST times the usual are left out: another program had its core.
    """
    slowest = times.max(axis=1)
    usual = slowest <= LONGEST * np.median(slowest)
    kept = np.sort(slowest[usual])
    if len(kept) > MOST_KEPT:
        kept = np.quantile(kept, (np.arange(MOST_KEPT) + 0.5) / MOST_KEPT)
    return StepTimes(
        threads,
        rows,
        times.shape[1],
        float(times[usual].mean()),
        tuple(map(float, kept)),
        float(1 - usual.mean()),
    )


def expected_maximum(samples: Sequence[float], count: float) -> float:
    """Return the expected maximum of `count` draws (at least 1, not always whole) from measured
    values, with replacement: the i-th smallest of n is the largest with probability
    (i / n)^count - ((i - 1) / n)^count.
    """
    ordered = np.sort(np.asarray(samples, float))
    below = (np.arange(len(ordered) + 1) / len(ordered)) ** count
    return float(np.diff(below) @ ordered)


@dataclass(frozen=True)
class Curve:
    """Seconds against rows on one number of threads, as measured at some of them."""

    points: tuple[StepTimes, ...]  # by rows, ascending

    def seconds(self, rows: int, ranks: int = 1) -> float:
        """Return the mean seconds of the slowest of so many ranks that have so many rows each, 0
        without rows. Between measured points a straight line; beyond the last, which is the
        longest, in proportion to the rows that are more; below the first as long as that.
        """
        if rows <= 0:
            return 0.0
        places = [point.rows for point in self.points]
        values = [point.of_slowest(ranks) for point in self.points]
        if rows <= places[-1]:
            return float(np.interp(rows, places, values))
        before = (places[-2], values[-2]) if len(places) > 1 else (0, 0.0)
        slope = max(0.0, (values[-1] - before[1]) / (places[-1] - before[0]))
        return values[-1] + slope * (rows - places[-1])


def curves(points: Sequence[StepTimes]) -> dict[int, Curve]:
    """Return the curve of each number of threads."""
    threads = sorted({point.threads for point in points})
    return {
        count: Curve(tuple(sorted(_of(points, count), key=lambda point: point.rows)))
        for count in threads
    }


def _of(points: Sequence[StepTimes], threads: int) -> list[StepTimes]:
    return [point for point in points if point.threads == threads]
