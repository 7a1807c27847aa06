"""Permutation tests beside scipy.stats, sums written out, and values without a difference."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ensync.core.statistics.permutations import difference_of_means, permutation_test


def draw(seed, *sizes):
    random = np.random.default_rng(seed)
    return [random.uniform(size=size) for size in sizes]


def test_an_exact_test_is_scipys():
    groups = draw(0, 4, 5)
    found = permutation_test([groups])
    theirs = stats.permutation_test(
        groups,
        lambda x, y: abs(x.mean() - y.mean()),
        permutation_type="independent",
        alternative="greater",
        n_resamples=np.inf,
    )
    assert found.exact and found.assignments == 126
    assert found.difference == pytest.approx(theirs.statistic)
    assert found.p == pytest.approx(theirs.pvalue)


def test_strata_and_three_groups_are_looked_at_in_every_combination():
    strata = [draw(1, 2, 1, 2), draw(2, 2, 2)]
    found = permutation_test(strata)

    def differences(groups):
        values, ends = np.concatenate(groups), np.cumsum([len(group) for group in groups])
        return [
            difference_of_means(np.split(np.array(order), ends[:-1]))
            for order in itertools.permutations(values)
        ]

    every = np.add.outer(differences(strata[0]), differences(strata[1])) / 2
    seen = np.mean([difference_of_means(groups) for groups in strata])
    assert found.difference == pytest.approx(seen) and found.assignments == 30 * 6
    assert found.p == pytest.approx((every >= seen - 1e-12).mean())


def test_drawn_assignments_come_near_to_all_of_them_and_never_to_zero():
    groups = draw(3, 6, 6)
    exact = permutation_test([groups])
    drawn = permutation_test([groups], draws=900)
    assert exact.exact and not drawn.exact and drawn.assignments == 901
    assert drawn == permutation_test([groups], draws=900)  # from a seed
    assert drawn.p == pytest.approx(exact.p, abs=4 * np.sqrt(0.25 / 900))
    apart = [np.arange(20.0), np.arange(20.0) + 100]
    assert permutation_test([apart], draws=99).p == 0.01


def test_equal_values_are_not_told_apart():
    assert permutation_test([[np.full(30, 0.1), np.full(30, 0.1)]], draws=99).p == 1


def test_without_a_difference_every_p_is_as_likely():
    """With it all are small. Kolmogorov and Smirnov's test of 300 values, its own p above 1 %."""
    random = np.random.default_rng(4)
    values = random.normal(size=(300, 2, 20))
    p = [permutation_test([(a[:8], a[8:]), (b[:12], b[12:])], draws=199).p for a, b in values]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    shifted = [
        permutation_test([(a[:8], a[8:] + 2), (b[:12] + 2, b[12:])], draws=199).p for a, b in values
    ]
    assert np.mean(np.array(shifted) <= 0.05) > 0.95  # whichever group has the larger values
