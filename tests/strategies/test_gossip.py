"""Who averages with whom, on any number of ranks, in plain numpy."""

from itertools import pairwise

import numpy as np
import pytest

from ensync.strategies.gossip import is_butterfly, partner

MOST = 17
PATTERNS = ("butterfly", "ring")


def mixing(pattern, ranks, turn):
    """Return the matrix (ranks, ranks) of a turn's averages."""
    matrix = np.zeros((ranks, ranks))
    for rank in range(ranks):
        matrix[rank, rank] += 0.5
        matrix[rank, partner(pattern, ranks, rank, turn)] += 0.5
    return matrix


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("ranks", range(2, MOST))
def test_each_turn_is_doubly_stochastic_and_turns_lead_to_the_mean(pattern, ranks):
    """A rank is its partner's partner; one alone sits out where the ranks are odd in number."""
    product = np.eye(ranks)
    for turn in range(40 * ranks * ranks):
        matrix = mixing(pattern, ranks, turn)
        assert np.array_equal(matrix, matrix.T) and np.array_equal(matrix.sum(axis=0), [1] * ranks)
        odd_one = 0 if is_butterfly(pattern, ranks) else ranks % 2
        assert (np.diag(matrix) == 1).sum() == odd_one
        product = matrix @ product
        if turn >= ranks and np.allclose(product, 1 / ranks, atol=1e-6):
            return
    pytest.fail(f"{product}")


@pytest.mark.parametrize("bits", range(1, 5))
def test_a_butterfly_has_the_mean_after_as_many_turns_as_bits(bits):
    ranks = 1 << bits
    product = np.eye(ranks)
    for turn in range(bits):
        assert [partner("butterfly", ranks, r, turn) for r in range(ranks)] == [
            r ^ (1 << turn) for r in range(ranks)
        ]
        product = mixing("butterfly", ranks, turn) @ product
    assert np.array_equal(product, np.full((ranks, ranks), 1 / ranks))


@pytest.mark.parametrize("ranks", range(3, MOST))
def test_partners_in_a_ring_are_neighbours_and_soon_both(ranks):
    for rank in range(ranks):
        met = [partner("ring", ranks, rank, turn) for turn in range(ranks)]
        assert set(met) == {(rank - 1) % ranks, (rank + 1) % ranks, *[rank] * (ranks % 2)}
        assert not any(one == other for one, other in pairwise(met) if one != rank)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("ranks", range(2, MOST))
def test_the_mean_of_replicas_on_a_quadratic_is_gradient_descent_on_its_mean(pattern, ranks):
    """Of f_k(w) = (w - b_k)' A (w - b_k) / 2 with another b_k on each rank; and replicas draw
    near each other when the rate falls.
    """
    generator = np.random.default_rng(ranks)
    basis = generator.standard_normal((5, 5))
    curvature, targets = basis @ basis.T / 5, generator.standard_normal((ranks, 5))
    replicas, mean, spread = np.zeros((ranks, 5)), np.zeros(5), []
    for step in range(400):
        rate = 0.2 if step < 200 else 0.02
        gradients = (replicas - targets) @ curvature
        replicas = mixing(pattern, ranks, step) @ replicas - rate * gradients
        mean = mean - rate * (mean - targets.mean(axis=0)) @ curvature
        np.testing.assert_allclose(replicas.mean(axis=0), mean, atol=1e-12)
        spread.append(np.abs(replicas - mean).max())
    assert spread[-1] < 0.5 * max(spread[150:200])
