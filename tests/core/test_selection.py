"""Fitted fusions beside a loop over all members, scikit-learn, and what they must not do."""

import warnings

import numpy as np
import pytest
import simulated
from sklearn.linear_model import LogisticRegression

from ensync.core.errors import EnsyncError
from ensync.core.statistics import calibration, selection

MEMBERS, LABELS = simulated.members(4, 800, 3, 6)
NEW, NEW_LABELS = simulated.members(4, 2000, 3, 7)


def test_greedy_selection_adds_the_member_that_helps_most():
    chosen = []
    for _ in range(6):
        losses = [
            calibration.log_likelihood(MEMBERS[[*chosen, member]].mean(axis=0), LABELS)
            for member in range(4)
        ]
        chosen.append(int(np.argmax(losses)))
    scores = [
        calibration.log_likelihood(MEMBERS[chosen[:count]].mean(axis=0), LABELS)
        for count in range(1, 7)
    ]
    best = chosen[: int(np.argmax(scores)) + 1]
    expected = np.bincount(best, minlength=4) / len(best)
    assert selection.greedy_selection(MEMBERS, LABELS, 6) == pytest.approx(expected)
    assert 1 < len(best) and expected.max() < 1


def test_greedy_selection_leaves_out_what_only_harms():
    guess = np.full((1, 800, 3), 1 / 3, np.float32)
    wrong = np.roll(MEMBERS[:1], 1, axis=2)
    weights = selection.greedy_selection(np.concatenate([wrong, MEMBERS[:1], guess]), LABELS)
    assert weights[0] == 0 and weights.sum() == pytest.approx(1)
    pool = np.tensordot(selection.greedy_selection(MEMBERS, LABELS), MEMBERS, 1)
    alone = max(calibration.log_likelihood(member, LABELS) for member in MEMBERS)
    assert calibration.log_likelihood(pool, LABELS) > alone


def test_greedy_selection_keeps_the_best_round():
    first, _ = simulated.members(1, 800, 3, 6)
    assert selection.greedy_selection(first, LABELS).tolist() == [1]
    halves = np.where(np.arange(800)[:, None] % 2 == [[[0]], [[1]]], np.eye(3)[LABELS], 1 / 3)
    assert selection.greedy_selection(halves, LABELS, 3).tolist() == [0.5, 0.5]  # of 2 rounds
    alone = np.stack([MEMBERS[0], np.eye(3)[LABELS]])
    assert selection.greedy_selection(alone, LABELS).tolist() == [0, 1]


@pytest.mark.parametrize("classes", [2, 3])
def test_a_stack_is_scikit_learns_regression(classes):
    members, labels = simulated.members(4, 800, classes, 6)
    fitted = selection.stack(members[:, :790], labels[:790])
    features = np.log(np.maximum(members.astype(float), selection.FLOOR))
    features = np.concatenate(features, axis=1)
    mean, spread = features[:790].mean(axis=0), features[:790].std(axis=0)
    scaled = (features - mean) / spread
    peer = LogisticRegression(tol=1e-8, max_iter=5000).fit(scaled[:790], labels[:790])
    assert fitted(members) == pytest.approx(peer.predict_proba(scaled), abs=1e-2)
    assert fitted(members).sum(axis=1) == pytest.approx(1)


def test_a_stack_of_overconfident_members_is_better_on_new_rows():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no regression that has not converged
        stacked = selection.stack(MEMBERS, LABELS)(NEW)
    pool = NEW.mean(axis=0)
    assert calibration.log_likelihood(stacked, NEW_LABELS) > calibration.log_likelihood(
        pool, NEW_LABELS
    )
    accuracies = [(votes.argmax(axis=1) == NEW_LABELS).mean() for votes in (stacked, pool)]
    assert accuracies[0] > accuracies[1] - 0.01


def test_a_stack_needs_rows_and_classes():
    with pytest.raises(EnsyncError, match="39 weights, on 779 validation rows; .* 780 validation"):
        selection.stack(MEMBERS[:, :779], LABELS[:779])
    with pytest.raises(EnsyncError, match="class 2 has no validation row"):
        selection.stack(MEMBERS, LABELS % 2)
