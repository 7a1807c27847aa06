"""What makes an ensemble worth it: accuracy against the number of members, how members differ, and
how many of them another method equals.

probabilities: (members, rows, classes); labels: int64 (rows,).
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np

from ensync.core.fusion import shares, winners
from ensync.core.statistics.calibration import (
    brier,
    log_likelihood,
    temperature,
    with_temperature,
)

Fuse = Callable[[np.ndarray], np.ndarray]
STEEPEST, FLATTEST = -5.0, -0.02  # exponents of a power law that are looked at


class Held(NamedTuple):
    """Rows held back to fit on: probabilities (members, rows, classes), labels int64 (rows,)."""

    probabilities: np.ndarray
    labels: np.ndarray


class SizeCurve(NamedTuple):
    """Ensembles of each size drawn from the same members: arrays (sizes,). nll: the calibrated
    negative log-likelihood. sd: between the subsets of one size, which share members; 0 of one.
    """

    sizes: np.ndarray
    subsets: np.ndarray
    accuracy: np.ndarray
    accuracy_sd: np.ndarray
    nll: np.ndarray
    nll_sd: np.ndarray


def mean_vote(probabilities: np.ndarray) -> np.ndarray:
    """Return the mean over members, float64 (rows, classes): soft voting of all alike."""
    mean: np.ndarray = probabilities.mean(axis=0, dtype=np.float64)
    return mean


def accuracy_by_size(
    probabilities: np.ndarray,
    labels: np.ndarray,
    fuse: Fuse = mean_vote,
    most_subsets: int = 20,
    generator: np.random.Generator | None = None,
    validation: Held | None = None,
) -> SizeCurve:
    """Return accuracy and calibrated negative log-likelihood of ensembles of 1 to all members: mean
    and spread over all subsets of a size, or `most_subsets` different ones at random.

    fuse: votes (rows, classes) of some of the members. validation: the same members on other rows,
    on which the temperature of each subset is fitted. Without it, test rows are cut in random
    halves, and each is judged at the temperature of the other (test-time cross-validation, Ashukha
    et al. 2020, Pitfalls of in-domain uncertainty estimation).
    """
    generator = np.random.default_rng(0) if generator is None else generator
    halves = np.array_split(generator.permutation(len(labels)), 2)
    sizes = np.arange(1, len(probabilities) + 1)
    rows = []
    for size in sizes:
        found = []
        for members in _subsets(len(probabilities), int(size), most_subsets, generator):
            votes = shares(fuse(probabilities[members]))
            if validation is None:
                nll = _cross_validated(votes, labels, halves)
            else:
                held = shares(fuse(validation.probabilities[members]))
                heat = temperature(held, validation.labels)
                nll = -log_likelihood(with_temperature(votes, heat), labels)
            found.append((float((winners(votes) == labels).mean()), nll))
        spread = np.std(found, axis=0, ddof=1) if len(found) > 1 else np.zeros(2)
        rows.append((len(found), np.mean(found, axis=0), spread))
    subsets, means, spreads = (np.array(column) for column in zip(*rows, strict=True))
    return SizeCurve(sizes, subsets, means[:, 0], spreads[:, 0], means[:, 1], spreads[:, 1])


def _cross_validated(votes: np.ndarray, labels: np.ndarray, halves: list[np.ndarray]) -> float:
    """Return the negative log-likelihood of each half at the other's temperature."""
    total = 0.0
    for judged, fitted in (halves, halves[::-1]):
        heat = temperature(votes[fitted], labels[fitted])
        tempered = with_temperature(votes[judged], heat)
        total -= log_likelihood(tempered, labels[judged]) * len(judged)
    return total / len(labels)


def _subsets(
    members: int, size: int, most: int, generator: np.random.Generator
) -> Iterator[list[int]]:
    """Yield all subsets of the size, or `most` different ones at random."""
    if comb(members, size) <= most:
        yield from map(list, combinations(range(members), size))
        return
    seen: set[tuple[int, ...]] = set()
    while len(seen) < most:
        drawn = tuple(sorted(generator.choice(members, size, replace=False).tolist()))
        if drawn not in seen:
            seen.add(drawn)
            yield list(drawn)


def disagreement(probabilities: np.ndarray) -> np.ndarray:
    """Return for each pair of members the share of rows that they label differently, float64
    (members, members), 0 on the diagonal (Fort, Hu and Lakshminarayanan 2019, Deep ensembles: a
    loss landscape perspective, who divide it by 1 - accuracy).
    """
    labels = probabilities.argmax(axis=2)
    return np.array([(labels != of_one).mean(axis=1) for of_one in labels])


def double_fault(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each pair of members the share of rows that both have wrong, float64 (members,
    members); on the diagonal each one's error (Giacinto and Roli 2001, Image and Vision Computing
    19).
    """
    wrong = (probabilities.argmax(axis=2) != labels).astype(np.float64)
    shared: np.ndarray = wrong @ wrong.T / len(labels)
    return shared


def oracle_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows that at least one member has right: what no choice among members'
    labels can exceed.
    """
    return float((probabilities.argmax(axis=2) == labels).any(axis=0).mean())


class Ambiguity(NamedTuple):
    """What pooling gains over its members, by two losses: members' mean loss - gain = the pool's
    loss. Both gains are at least 0.
    """

    member_nll: float
    nll_gain: float
    ensemble_nll: float
    member_brier: float
    brier_gain: float
    ensemble_brier: float


def ambiguity(probabilities: np.ndarray, labels: np.ndarray) -> Ambiguity:
    """Return the losses of members and of their mean, and what lies between.

    Of the Brier score the gain is exactly the variance of the members' probabilities around their
    mean, summed over classes (Krogh and Vedelsby 1995, NIPS 7). Of the negative log-likelihood it
    is Jensen's gap, log of the mean - mean of the logs of p(label).
    """
    pool = mean_vote(probabilities)
    member_nll = -float(np.mean([log_likelihood(member, labels) for member in probabilities]))
    member_brier = float(np.mean([brier(member, labels) for member in probabilities]))
    variance = float(np.mean([np.square(member - pool).sum() for member in probabilities]))
    nll = -log_likelihood(pool, labels)
    return Ambiguity(
        member_nll, member_nll - nll, nll, member_brier, variance / len(labels), brier(pool, labels)
    )


def equivalent_members(curve: np.ndarray, value: float) -> float:
    """Return how many independently trained networks equal a method, the deep-ensemble equivalent
    (Ashukha et al. 2020): the smallest k >= 1 at which `curve`, linear between whole numbers,
    reaches `value`; inf when it never does.

    curve: float64 (sizes,) of 1, 2, ... members, higher is better: accuracy, or the log-likelihood
    (- SizeCurve.nll).
    """
    reached = np.flatnonzero(curve >= value)
    if not reached.size:
        return float(np.inf)
    last = int(reached[0])
    if last == 0:
        return 1.0
    below, above = float(curve[last - 1]), float(curve[last])
    return last + (value - below) / (above - below)


class PowerLaw(NamedTuple):
    """values ~ limit + scale * size^exponent."""

    limit: float
    scale: float
    exponent: float

    def at(self, size: float) -> float:
        """Return the value that the law predicts for a size."""
        return float(self.limit + self.scale * size**self.exponent)


def power_law(sizes: np.ndarray, values: np.ndarray) -> PowerLaw:
    """Return the power law c + b k^a through values (sizes,) of at least 3 different sizes k, by
    least squares with a from -5 to -0.02: how the calibrated negative log-likelihood falls with
    members (Lobacheva et al. 2020, On power laws in deep ensembles).

    For each exponent the other two follow from a line; the best of a grid is looked for again and
    again in a finer one around it.
    """
    assert len(np.unique(sizes)) >= 3, sizes
    low, high = np.log(-FLATTEST), np.log(-STEEPEST)
    for _ in range(8):
        grid = np.linspace(low, high, 101)
        best = int(np.argmin([_line(sizes, values, -np.exp(each))[0] for each in grid]))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 100)]
    exponent = float(-np.exp(grid[best]))
    _, limit, scale = _line(sizes, values, exponent)
    return PowerLaw(limit, scale, exponent)


def _line(sizes: np.ndarray, values: np.ndarray, exponent: float) -> tuple[float, float, float]:
    """Return (sum of squared errors, limit, scale) of the best line over size^exponent."""
    raised = np.asarray(sizes, np.float64) ** exponent
    along, mean = raised - raised.mean(), float(np.mean(values))
    scale = float(along @ (values - mean) / (along @ along))
    error = values - mean - scale * along
    return float(error @ error), float(mean - scale * raised.mean()), scale
