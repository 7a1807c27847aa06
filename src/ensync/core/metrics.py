"""What a classifier got right, from counts: ranks add their counts, the division comes last."""

import numpy as np

TOP_K = 5  # of so many likeliest classes a report tells how often the label is among them


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Return counts int64 (classes, classes): row = true label, column = predicted label, both
    int64 (n,).
    """
    counts = np.bincount(labels * classes + predictions, minlength=classes * classes)
    return counts.astype(np.int64).reshape(classes, classes)


def top_k_correct(probabilities: np.ndarray, labels: np.ndarray, k: int) -> int:
    """Return how many labels (n,) are among the k likeliest of (n, classes); of equal ones the
    smaller label is likelier.
    """
    own = probabilities[np.arange(len(labels)), labels][:, None]
    before = (probabilities > own) | (
        (probabilities == own) & (np.arange(probabilities.shape[1]) < labels[:, None])
    )
    return int(np.count_nonzero(before.sum(axis=1) < k))


def cross_entropy_sum(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the sum over rows of -log p(label), float64; a probability of 0 counts as the
    smallest normal float32.
    """
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).sum())


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole as float64, 0 where whole is 0."""
    zeros = np.zeros(np.shape(part))
    ratio: np.ndarray = np.divide(part, whole, out=zeros, where=np.asarray(whole) != 0)
    return ratio


def accuracy(counts: np.ndarray) -> float:
    """Return the share of rows on the diagonal of the confusion counts (classes, classes); 0 of
    no rows is 0.
    """
    return float(_ratio(np.trace(counts), counts.sum()))


def precision(counts: np.ndarray) -> np.ndarray:
    """Return for each class (classes,) the share of right ones among those predicted as it; 0
    when never predicted.
    """
    return _ratio(np.diag(counts), counts.sum(axis=0))


def recall(counts: np.ndarray) -> np.ndarray:
    """Return for each class (classes,) the share of its rows that were found; 0 when it has
    none.
    """
    return _ratio(np.diag(counts), counts.sum(axis=1))


def f1(counts: np.ndarray) -> np.ndarray:
    """Return for each class (classes,) the harmonic mean of precision and recall, 2 hits /
    (predicted + present).
    """
    return _ratio(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1))


def macro_f1(counts: np.ndarray) -> float:
    """Return the mean of F1 over the classes that occur as label or prediction, each counted
    alike.
    """
    seen = (counts.sum(axis=0) + counts.sum(axis=1)) > 0
    return float(f1(counts)[seen].mean()) if seen.any() else 0.0


def weighted_f1(counts: np.ndarray) -> float:
    """Return the mean of F1 over classes, each counted by its number of rows."""
    return float(_ratio(f1(counts) @ counts.sum(axis=1), counts.sum()))


def worst_class(counts: np.ndarray) -> tuple[int, float]:
    """Return the class with the lowest recall, and that recall, among those that have rows; of
    equal ones the smallest. (0, 0.0) of no rows.
    """
    found = np.where(counts.sum(axis=1) > 0, recall(counts), np.inf)
    worst = int(np.argmin(found))
    return (worst, float(found[worst])) if np.isfinite(found[worst]) else (0, 0.0)
