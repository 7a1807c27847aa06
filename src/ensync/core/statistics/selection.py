"""Fusions that are fitted, on validation rows only: greedy selection of members, and stacking.

probabilities: (members, rows, classes) of validation rows; labels: int64 (rows,).
"""

from dataclasses import dataclass

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.core.statistics.calibration import SMALLEST

ROWS_PER_WEIGHT = 20  # fewer validation rows for each fitted weight fit their noise
FLOOR = float(np.finfo(np.float32).eps)  # a smaller probability is as good as none
ANOTHER_WAY = "prepare the dataset with more of them (--validation), or take another fusion"


def greedy_selection(probabilities: np.ndarray, labels: np.ndarray, rounds: int = 50) -> np.ndarray:
    """Return weights of members float64 (members,), summing to 1: how often each was chosen
    (Caruana et al. 2004, Ensemble selection from libraries of models).

    Each round adds the member, chosen before or not, with which the mean of all chosen has the
    highest log-likelihood, of equal ones the first. The weights of the best round are kept, so that
    on these rows no single member is better.
    """
    own = probabilities[:, np.arange(len(labels)), labels].astype(np.float64)  # (members, rows)
    total, counts = np.zeros(len(labels)), np.zeros(len(probabilities))
    best, kept = -np.inf, counts
    for chosen in range(1, rounds + 1):
        reached = np.log(np.maximum((total + own) / chosen, SMALLEST)).mean(axis=1)
        member = int(np.argmax(reached))
        total += own[member]
        counts[member] += 1
        if reached[member] > best:
            best, kept = reached[member], counts.copy()
    weights: np.ndarray = kept / kept.sum()
    return weights


@dataclass(frozen=True, slots=True)
class Stack:
    """A multinomial logistic regression on the members' log-probabilities.

    weights: float64 (classes, members * classes), a member's classes side by side; biases: float64
    (classes,).
    """

    weights: np.ndarray
    biases: np.ndarray

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Return probabilities float64 (rows, classes) from the members' (members, rows,
        classes).
        """
        logits = _features(probabilities) @ self.weights.T + self.biases
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
        return shares


def stack(probabilities: np.ndarray, labels: np.ndarray) -> Stack:
    """Return a regression fitted on validation rows (Wolpert 1992, Stacked generalization), with
    scikit-learn's L2 penalty of strength 1 on weights of standardised log-probabilities.

    Raises EnsyncError when there are fewer than 20 rows for each of its classes * (members *
    classes + 1) weights, or when a class has no row.
    """
    from sklearn.linear_model import LogisticRegression

    members, rows, classes = probabilities.shape
    weights = classes * (members * classes + 1)
    if rows < ROWS_PER_WEIGHT * weights:
        raise EnsyncError(
            f"stacking {members} members of {classes} classes fits {weights:,} weights, on "
            f"{rows:,} validation rows",
            f"at least {ROWS_PER_WEIGHT * weights:,} validation rows, {ROWS_PER_WEIGHT} a weight",
            ANOTHER_WAY,
        )
    present = np.bincount(labels, minlength=classes)
    if not present.all():
        raise EnsyncError(
            f"class {int(np.argmin(present))} has no validation row",
            "validation rows of every class, for stacking",
            ANOTHER_WAY,
        )
    features = _features(probabilities)
    mean, spread = features.mean(axis=0), np.maximum(features.std(axis=0), FLOOR)
    regression = LogisticRegression(solver="newton-cg", max_iter=1000)
    fitted = regression.fit((features - mean) / spread, labels)
    found, biases = fitted.coef_ / spread, fitted.intercept_
    if classes == 2:  # scikit-learn keeps one row, the second class against the first
        found, biases = np.concatenate([-found, found]) / 2, np.concatenate([-biases, biases]) / 2
    return Stack(found, biases - found @ mean)


def _features(probabilities: np.ndarray) -> np.ndarray:
    """Return the log-probabilities of all members beside each other, float64 (rows, members *
    classes).
    """
    logarithms = np.log(np.maximum(probabilities.astype(np.float64), FLOOR))
    return logarithms.transpose(1, 0, 2).reshape(probabilities.shape[1], -1)
