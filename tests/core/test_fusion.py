"""Fusions as sums over members against the obvious way with all members at hand."""

import numpy as np
import pytest

from ensync.core import fusion

MEMBERS = np.random.default_rng(0).dirichlet(np.ones(5), size=(4, 200)).astype(np.float32)


def fused(method, weights):
    return sum(
        fusion.FUSIONS[method].contribute(member, weight)
        for member, weight in zip(MEMBERS, weights, strict=True)
    )


def test_soft_voting_is_the_mean_of_probabilities():
    votes = fused("soft_voting", [1, 1, 1, 1])
    mean = MEMBERS.astype(np.float64).mean(axis=0)
    assert np.array_equal(fusion.winners(votes), mean.argmax(axis=1))
    np.testing.assert_allclose(fusion.shares(votes), mean, rtol=1e-6)


def test_hard_voting_counts_heads_and_gives_ties_to_the_smallest_label():
    votes = fused("hard_voting", [1, 1, 1, 1])
    for row in range(200):
        heads = np.bincount(MEMBERS[:, row].argmax(axis=1), minlength=5)
        assert (
            np.array_equal(votes[row], heads)
            and fusion.winners(votes)[row] == np.flatnonzero(heads == heads.max())[0]
        )
    tie = sum(fusion.hard_votes(np.eye(3)[[label]]) for label in (2, 1))
    assert fusion.winners(tie).tolist() == [1]
    assert fusion.winners(fusion.hard_votes(np.array([[0.2, 0.4, 0.4]]))).tolist() == [1]


@pytest.mark.parametrize("members", [1, 2, 3, 4])
def test_median_voting_is_the_renormalised_median_of_probabilities(members):
    found = fusion.shares(fusion.FUSIONS["median_voting"].combine(MEMBERS[:members]))
    ordered = np.sort(MEMBERS[:members].astype(np.float64), axis=0)
    median = (ordered[(members - 1) // 2] + ordered[members // 2]) / 2
    expected = median / median.sum(axis=1, keepdims=True)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_median_gives_ties_to_the_smallest_label_and_no_outlier_moves_it():
    tie = fusion.median_votes(np.array([[[0.2, 0.4, 0.4]], [[0.0, 0.5, 0.5]]]))
    assert fusion.winners(tie).tolist() == [1]
    none = fusion.median_votes(np.eye(3)[:, None])  # each of three sure of another class
    assert fusion.winners(none).tolist() == [0]
    np.testing.assert_allclose(fusion.shares(none), 1 / 3)
    close = np.array([[[0.6, 0.4]], [[0.55, 0.45]], [[0.0, 1.0]]])
    assert fusion.winners(fusion.median_votes(close)).tolist() == [0]
    assert fusion.winners(close.mean(axis=0)).tolist() == [1]


def test_weights_are_shares_of_the_vote():
    weights = [0.1, 0.2, 0.3, 0.4]
    expected = np.average(MEMBERS.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(
        fusion.shares(fused("weighted_voting", weights)), expected, rtol=1e-6
    )


@pytest.mark.parametrize("method", ["soft_voting", "hard_voting", "weighted_voting"])
def test_a_member_left_out_changes_nothing_even_when_it_diverged(method):
    diverged = np.full_like(MEMBERS[0], np.nan)
    assert not fusion.usable(diverged) and fusion.usable(*MEMBERS)
    assert np.array_equal(
        fused(method, [1, 1, 1, 1]),
        fused(method, [1, 1, 1, 1]) + fusion.FUSIONS[method].contribute(diverged, 0),
    )
    assert not fusion.weighted_parameters(diverged, 0).any()


def test_averaged_parameters_are_the_weighted_mean_in_double():
    parameters = np.random.default_rng(1).normal(size=(3, 50)).astype(np.float32)
    total = sum(
        fusion.weighted_parameters(vector, weight)
        for vector, weight in zip(parameters, (1, 2, 1), strict=True)
    )
    mean = fusion.averaged_parameters(total, 4)
    assert mean.dtype == np.float32
    assert np.array_equal(
        mean,
        np.average(parameters.astype(np.float64), axis=0, weights=[1, 2, 1]).astype(np.float32),
    )


def test_validation_weights_grow_with_accuracy_and_drop_guessing():
    weights = fusion.validation_weights(np.array([90, 80, 5, 100]), 100, 10)
    assert weights[3] > weights[0] > weights[1] > weights[
        2
    ] == 0 and weights.sum() == pytest.approx(1)
    assert fusion.validation_weights(np.array([0, 0]), 100, 10).tolist() == [0.5, 0.5]
    assert np.isfinite(fusion.validation_weights(np.array([3, 0]), 3, 1)).all()


def test_no_votes_at_all_are_an_even_share():
    assert fusion.shares(np.zeros((2, 4))).tolist() == [[0.25] * 4] * 2
