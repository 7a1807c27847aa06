"""Metrics from counts against scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics as reference

from ensync.core import metrics


def predictions(seed, n=500, classes=6):
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=n)
    probabilities = random.dirichlet(np.ones(classes), size=n)
    probabilities[np.arange(n), labels] += 0.3
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", [1, 2])
def test_counts_and_scores_match_scikit_learn(seed):
    labels, probabilities = predictions(seed)
    predicted = probabilities.argmax(axis=1)
    counts = metrics.confusion(labels, predicted, 6)
    assert counts.dtype == np.int64 and np.array_equal(
        counts, reference.confusion_matrix(labels, predicted)
    )
    assert metrics.accuracy(counts) == pytest.approx(reference.accuracy_score(labels, predicted))
    each = reference.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for mine, theirs in zip((metrics.precision, metrics.recall, metrics.f1), each, strict=False):
        np.testing.assert_allclose(mine(counts), theirs)
    assert metrics.macro_f1(counts) == pytest.approx(
        reference.f1_score(labels, predicted, average="macro")
    )
    assert metrics.weighted_f1(counts) == pytest.approx(
        reference.f1_score(labels, predicted, average="weighted")
    )


def test_probabilities_match_scikit_learn():
    labels, probabilities = predictions(3)
    for k in (1, 2, 5):
        assert metrics.top_k_correct(probabilities, labels, k) / len(labels) == pytest.approx(
            reference.top_k_accuracy_score(labels, probabilities, k=k)
        )
    assert metrics.cross_entropy_sum(probabilities, labels) / len(labels) == pytest.approx(
        reference.log_loss(labels, probabilities)
    )


def test_counts_of_shards_add_up():
    labels, probabilities = predictions(4)
    predicted = probabilities.argmax(axis=1)
    parts = [slice(0, 3), slice(3, 3), slice(3, 400), slice(400, None)]
    total = sum(metrics.confusion(labels[part], predicted[part], 6) for part in parts)
    assert np.array_equal(total, metrics.confusion(labels, predicted, 6))


def test_classes_that_never_occur_and_no_rows_at_all_give_zeros():
    counts = metrics.confusion(np.array([0, 1, 1]), np.array([0, 1, 0]), 4)
    labels, predicted = [0, 1, 1], [0, 1, 0]
    assert metrics.macro_f1(counts) == pytest.approx(
        reference.f1_score(labels, predicted, average="macro")
    )
    assert metrics.precision(counts)[2:].tolist() == metrics.recall(counts)[2:].tolist() == [0, 0]
    nothing = np.zeros((4, 4), np.int64)
    assert (
        metrics.accuracy(nothing) == metrics.macro_f1(nothing) == metrics.weighted_f1(nothing) == 0
    )


def test_among_equal_probabilities_the_smaller_label_comes_first():
    flat = np.full((3, 3), 1 / 3)
    assert [metrics.top_k_correct(flat, np.arange(3), k) for k in (1, 2, 3)] == [1, 2, 3]
    assert np.isfinite(metrics.cross_entropy_sum(np.array([[0.0, 1.0]]), np.array([0])))


def test_the_worst_class_has_the_lowest_recall_of_those_with_rows():
    counts = np.array([[8, 2, 0, 0], [3, 5, 2, 0], [1, 1, 8, 0], [0, 0, 0, 0]])
    assert metrics.worst_class(counts) == (1, 0.5)
    assert metrics.worst_class(np.array([[1, 1], [1, 1]])) == (0, 0.5)
    assert metrics.worst_class(np.zeros((3, 3), np.int64)) == (0, 0.0)
