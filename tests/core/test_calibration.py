"""Scores of probabilities beside scikit-learn, loops, and scipy's minimiser."""

import numpy as np
import pytest
import simulated
from scipy import optimize
from sklearn import metrics

from ensync.core.statistics import calibration

MEMBERS, LABELS = simulated.members(1, 1000, 4, 2)
ONE = MEMBERS[0]


def test_scores_are_those_of_scikit_learn():
    double = ONE.astype(np.float64)
    double /= double.sum(axis=1, keepdims=True)
    assert calibration.log_likelihood(double, LABELS) == pytest.approx(
        -metrics.log_loss(LABELS, double)
    )
    one_hot = np.eye(4)[LABELS]
    mean = np.mean([metrics.brier_score_loss(one_hot[:, k], double[:, k]) for k in range(4)])
    assert calibration.brier(double, LABELS) == pytest.approx(4 * mean)
    assert calibration.brier(one_hot, LABELS) == 0
    assert calibration.brier(np.roll(one_hot, 1, axis=1), LABELS) == 2


def test_a_bin_holds_as_many_rows_as_another():
    timid = calibration.with_temperature(ONE, 2)
    confidence, right = timid.max(axis=1), timid.argmax(axis=1) == LABELS
    found = calibration.reliability(timid, LABELS, 7)
    assert len(np.unique(confidence)) > 990 and found.rows.sum() == 1000
    assert np.abs(found.rows - 1000 / 7).max() < 6 and (np.diff(found.confidence) > 0).all()
    assert found.rows @ found.accuracy == pytest.approx(right.sum())
    assert found.rows @ found.confidence == pytest.approx(confidence.sum())


def test_the_calibration_error_is_that_of_a_loop():
    generator = np.random.default_rng(0)
    first = 0.5 + generator.random(600) / 2  # all confidences differ
    probabilities, labels = np.stack([first, 1 - first], axis=1), generator.integers(2, size=600)
    total = 0.0
    for rows in np.split(np.argsort(first), 15):
        total += abs((labels[rows] == 0).mean() - first[rows].mean()) * len(rows)
    assert calibration.ece(probabilities, labels) == pytest.approx(total / 600)
    assert calibration.ece(probabilities, labels, bins=1) == pytest.approx(
        abs((labels == 0).mean() - first.mean())
    )


def test_rows_in_another_order_have_the_same_calibration():
    sure = np.repeat([[1.0, 0.0], [0.7, 0.3]], 50, axis=0)
    labels = np.repeat([0, 1, 0, 1], 25)
    other = np.random.default_rng(1).permutation(100)
    found = calibration.reliability(sure, labels, 15)
    assert found.rows.tolist() == [50, 50] and found.confidence == pytest.approx([0.7, 1])
    assert found.accuracy.tolist() == [0.5, 0.5]
    assert calibration.ece(sure[other], labels[other]) == pytest.approx((0.2 + 0.5) / 2)
    assert calibration.ece(sure, labels) == pytest.approx((0.2 + 0.5) / 2)


def nll(log_temperature: float, probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the negative log-likelihood at a temperature, by scikit-learn."""
    raised = probabilities.astype(np.float64) ** np.exp(-log_temperature)
    return metrics.log_loss(labels, raised / raised.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("sharper", [0.05, 0.4, 1, 3])
def test_the_temperature_is_the_minimum_that_scipy_finds(sharper):
    probabilities = calibration.with_temperature(ONE, 1 / sharper)
    found = calibration.temperature(probabilities, LABELS)
    peer = optimize.minimize_scalar(
        nll, bounds=(-4.6, 4.6), args=(probabilities, LABELS), method="bounded"
    )
    assert found == pytest.approx(np.exp(peer.x), rel=1e-3)
    tempered = calibration.with_temperature(probabilities, found)
    assert -calibration.log_likelihood(tempered, LABELS) <= peer.fun + 1e-9


def test_the_temperature_undoes_what_one_did():
    own = calibration.temperature(ONE, LABELS)
    sharpened = calibration.with_temperature(ONE, 0.5)
    assert own > 1.4 and calibration.temperature(sharpened, LABELS) == pytest.approx(2 * own)
    assert calibration.temperature(calibration.with_temperature(ONE, own), LABELS) == pytest.approx(
        1
    )


def test_a_temperature_keeps_labels_and_sums():
    tempered = calibration.with_temperature(MEMBERS, 3)
    assert tempered.shape == MEMBERS.shape and tempered.sum(axis=2) == pytest.approx(1)
    assert np.array_equal(tempered.argmax(axis=2), MEMBERS.argmax(axis=2))
    assert calibration.with_temperature(MEMBERS, 1) == pytest.approx(MEMBERS, abs=1e-6)
    assert np.isfinite(calibration.with_temperature(np.array([[1.0, 0.0]]), 0.01)).all()


def test_there_is_always_a_temperature():
    right, wrong = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.1, 0.9], [0.8, 0.2]])
    labels = np.array([0, 1])
    assert calibration.temperature(right, labels) == 1  # nothing shows how sure is too sure
    assert calibration.temperature(wrong, labels) == calibration.HOTTEST
    timid = np.full((1000, 2), 0.5) + [1e-6, -1e-6]
    once = np.zeros(1000, np.int64)
    once[0] = 1
    assert calibration.temperature(timid, once) == calibration.COLDEST
    assert np.isfinite(calibration.temperature(np.full((3, 2), 0.5), np.array([0, 1, 1])))
    never = np.array([[1.0, 0.0]] * 9 + [[0.0, 1.0]])
    found = calibration.temperature(never, np.zeros(10, np.int64))
    assert found == pytest.approx(-np.log(calibration.SMALLEST) / np.log(9))
