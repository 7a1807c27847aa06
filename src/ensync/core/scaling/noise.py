"""The gradient noise scale, and what it says of batches (McCandlish et al. 2018, arXiv 1812.06162).

With the true gradient G and the covariance S of one sample's gradient, B = tr S / |G|^2 samples is
the batch whose noise is as large as its gradient. To the same loss, batches of b samples take
1 + B / b times the fewest steps, and 1 + b / B times the fewest samples. B grows as the loss falls.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 8  # steps, below which nothing is said


@dataclass(frozen=True)
class NoiseScale:
    """The noise scale in samples, and its 95 % interval; infinity where the gradient cannot be told
    from noise. steps: from which it is estimated, `parts` gradients of `rows` samples each.
    """

    scale: float
    low: float
    high: float
    steps: int
    parts: int
    rows: int

    @property
    def is_known(self) -> bool:
        """Whether it has both ends."""
        return math.isfinite(self.scale) and math.isfinite(self.high)


def estimates(of_parts: np.ndarray, of_whole: np.ndarray, parts: int, rows: int) -> np.ndarray:
    """Return unbiased estimates float64 (steps, 2) of tr S and |G|^2 in each step.

    of_parts (steps,): the mean of |g|^2 over so many parts of so many samples each; of_whole
    (steps,): |g|^2 of the mean gradient of all parts. The expectation of |g|^2 over b samples is
    |G|^2 + tr S / b; two batch sizes give two equations.
    """
    trace = rows * parts / (parts - 1) * (of_parts - of_whole)
    signal = (parts * of_whole - of_parts) / (parts - 1)
    return np.stack([trace, signal], axis=1)


def noise_scale(of_parts: np.ndarray, of_whole: np.ndarray, parts: int, rows: int) -> NoiseScale:
    """Return the noise scale over steps: the ratio of the means, never the mean of ratios, since
    the gradient's estimate may be near zero or below in a step. The interval is Fieller's for a
    ratio of means, with steps taken for independent.
    """
    found = estimates(of_parts, of_whole, parts, rows)
    steps = len(found)
    trace, signal = found.mean(axis=0) if steps >= FEWEST else (0.0, 0.0)
    if signal <= 0 or trace <= 0:
        return NoiseScale(math.inf, 0.0, math.inf, steps, parts, rows)
    low, high = fieller(found)
    return NoiseScale(float(trace / signal), low, high, steps, parts, rows)


def fieller(pairs: np.ndarray, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of the ratio of the means of two columns (n, 2), not below 0: all r for
    which the mean of (first - r second) is within z standard errors of 0 (Fieller 1954). The upper
    end is infinity where the second mean is not surely above 0.
    """
    first, second = pairs.mean(axis=0)
    cov = np.cov(pairs.T) / len(pairs) * z**2
    a, b, c = second**2 - cov[1, 1], first * second - cov[0, 1], first**2 - cov[0, 0]
    if a <= 0:
        return 0.0, math.inf
    root = math.sqrt(max(0.0, b * b - a * c))
    return max(0.0, float((b - root) / a)), float((b + root) / a)


def parts_of(batch: int, slice_rows: int, ranks: int) -> int:
    """Return into how many equal parts batches are cut, of which each slice is cut alike: at least
    8 and one for each rank where that goes, else as many as there can be; 1 for none.
    """
    common = batch if batch <= slice_rows else math.gcd(batch, slice_rows)
    divisors = [count for count in range(1, common + 1) if common % count == 0]
    enough = [count for count in divisors if count >= max(8, ranks)]
    return enough[0] if enough else divisors[-1]


def steps_factor(noise: float, batch: float) -> float:
    """Return how many times the fewest steps batches of so many samples take to the same loss."""
    return 1 + noise / batch


def samples_factor(noise: float, batch: float) -> float:
    """Return how many times the fewest samples they take."""
    return 1 + batch / noise


@dataclass(frozen=True, kw_only=True)
class Together:
    """So many ranks that train one network with the batch that reaches the same loss soonest.

    step: seconds; time: to the same loss, over that of one rank with the job's batch; samples: the
    same of the samples that it takes; efficiency: of each rank, by that time, beside one rank with
    its own best batch (or the fewest ranks there are).
    """

    ranks: int
    batch: int
    rows: int
    step: float
    time: float
    samples: float
    efficiency: float


def soonest(times: Sequence[Together]) -> Together:
    """Return the fewest ranks that reach the same loss as soon as any, to a hundredth."""
    least = min(each.time for each in times)
    return next(each for each in sorted(times, key=_ranks) if each.time <= 1.01 * least)


def _ranks(each: Together) -> int:
    return each.ranks
