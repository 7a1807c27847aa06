"""Whether groups of values differ in their means: a permutation test, over strata such as seeds."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import factorial, prod
from typing import NamedTuple

import numpy as np

DRAWS = 9_999  # assignments that are drawn where there are more
TIE = 1e-9  # values that differ by less than this share of themselves are equal

Groups = Sequence[np.ndarray]  # float64 (values,) of each group; none is empty


class PermutationTest(NamedTuple):
    """What a test found.

    difference: the statistic; p: how often chance alone makes it as large; assignments: how many
    were looked at; exact: whether these are all.
    """

    difference: float
    p: float
    assignments: int
    exact: bool


def difference_of_means(groups: Groups) -> float:
    """Return the largest mean of a group less the smallest; of two groups it is the absolute
    difference.
    """
    means = [float(np.mean(group)) for group in groups]
    return max(means) - min(means)


def permutation_test(
    strata: Sequence[Groups], draws: int = DRAWS, seed: int = 0
) -> PermutationTest:
    """Return whether the groups of strata differ more than if values had come into them by chance.

    The statistic is the mean over strata of `difference_of_means`, so that it does not matter which
    group of a stratum has the larger values. Values change places within their stratum alone. All
    assignments are looked at where there are no more than `draws`; else so many are drawn from the
    seed, and the one that was found counts among them (Phipson and Smyth 2010, Permutation p-values
    should never be zero).
    """
    found = float(np.mean([difference_of_means(groups) for groups in strata]))
    exact = prod(map(_ways, strata)) <= draws
    if exact:
        by_chance = _all(strata)
    else:
        random = np.random.default_rng(seed)
        by_chance = np.mean([_drawn(groups, draws, random) for groups in strata], axis=0)
    as_large = int(np.count_nonzero(by_chance >= found * (1 - TIE)))
    count = len(by_chance) + (not exact)
    return PermutationTest(found, (as_large + (not exact)) / count, count, exact)


def _ways(groups: Groups) -> int:
    """Return in how many ways the values can be put into groups of these sizes."""
    sizes = [len(group) for group in groups]
    return factorial(sum(sizes)) // prod(map(factorial, sizes))


def _all(strata: Sequence[Groups]) -> np.ndarray:
    """Return the statistic of every assignment, float64 (assignments,)."""
    sums = np.zeros(1)
    for groups in strata:
        values, sizes = np.concatenate(groups), [len(group) for group in groups]
        differences = [
            difference_of_means([values[list(places)] for places in each])
            for each in _assignments(range(len(values)), sizes)
        ]
        sums = np.add.outer(sums, np.array(differences)).ravel()
    means: np.ndarray = sums / len(strata)
    return means


def _assignments(
    places: Sequence[int], sizes: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Yield every way to put places into groups of these sizes."""
    if len(sizes) == 1:
        yield (tuple(places),)
        return
    for first in combinations(places, sizes[0]):
        left = [place for place in places if place not in first]
        for others in _assignments(left, sizes[1:]):
            yield (first, *others)


def _drawn(groups: Groups, draws: int, random: np.random.Generator) -> np.ndarray:
    """Return `difference_of_means` of so many random assignments, float64 (draws,)."""
    values, sizes = np.concatenate(groups), np.array([len(group) for group in groups])
    shuffled = random.permuted(np.broadcast_to(values, (draws, len(values))), axis=1)
    means = np.add.reduceat(shuffled, np.cumsum(sizes) - sizes, axis=1) / sizes
    differences: np.ndarray = means.max(axis=1) - means.min(axis=1)
    return differences
