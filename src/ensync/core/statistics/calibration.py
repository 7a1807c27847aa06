"""How good probabilities are, and one temperature that makes them better.

probabilities: (rows, classes), rows sum to 1; labels: int64 (rows,). Computed in float64. A
probability of 0 counts as the smallest normal float32, as in `metrics.cross_entropy_sum`.
"""

from typing import NamedTuple

import numpy as np

from ensync.core.fusion import winners
from ensync.core.metrics import cross_entropy_sum

COLDEST, HOTTEST = 0.01, 100.0  # temperatures that are looked at
BINS = 15
MOST_STEPS = 100
SMALLEST = np.finfo(np.float32).tiny


def log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over rows of log p(label): at most 0, higher is better."""
    return -cross_entropy_sum(probabilities, labels) / len(labels)


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over rows of the squared distance of p to the right answer, sum over classes
    of (p - [class = label])^2: 0 to 2, lower is better (Brier 1950, Monthly Weather Review 78).
    """
    distance = probabilities.astype(np.float64)
    distance[np.arange(len(labels)), labels] -= 1
    return float(np.square(distance).sum() / len(labels))


class Reliability(NamedTuple):
    """Rows in bins of equal numbers, from the least to the most confident: of each bin that has any
    the mean confidence, the share of right rows, float64, and the number of rows, int64 (bins,).
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    rows: np.ndarray


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Return what a reliability diagram shows; a row's confidence is its largest probability.

    The bins have equal numbers of rows, to one, as long as no confidences are equal. Equal ones
    share a bin, so that the order of rows does not matter.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = winners(probabilities) == labels
    below = np.searchsorted(np.sort(confidence), confidence)  # rows that are less confident
    place = below * bins // len(labels)
    rows = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, of, minlength=bins)[rows > 0] for of in (confidence, right)]
    rows = rows[rows > 0]
    return Reliability(sums[0] / rows, sums[1] / rows, rows)


def ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error, the mean over rows of |accuracy - confidence| of their
    bin (Naeini, Cooper and Hauskrecht 2015, AAAI), with bins of equal numbers of rows (Nixon et al.
    2019, Measuring calibration in deep learning).

    It is biased upwards, more so of few rows, and says little across different accuracies.
    """
    found = reliability(probabilities, labels, bins)
    return float(np.abs(found.accuracy - found.confidence) @ found.rows / len(labels))


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities proportional to p^(1 / temperature), float64 (..., classes): above 1
    they come closer to each other, below 1 they move apart (Guo et al. 2017, On calibration of
    modern neural networks).
    """
    return _softmax(_logarithms(probabilities) / temperature)


def temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature, 0.01 to 100, whose probabilities have the highest log-likelihood.

    Of an ensemble it is fitted after the members' probabilities have been pooled: a mean of
    calibrated members is not calibrated (Ashukha et al. 2020, Pitfalls of in-domain uncertainty
    estimation; Rahaman and Thiery 2021, Uncertainty quantification and deep ensembles).

    The negative log-likelihood is convex in 1 / temperature. So its slope there, mean over rows of
    sum over classes of q log p - log p(label) with q the tempered probabilities, has one zero at
    most. Newton's steps look for it, and halve the bracket (in the logarithm) where they leave it.
    Where most rows are worse than guessed the answer is 100. Where all are right there is none, as
    it would be 0, and the probabilities are left as they are: 1.
    """
    logarithms = _logarithms(probabilities)
    own = logarithms[np.arange(len(labels)), labels].mean()

    def slope(inverse: float) -> tuple[float, float]:
        tempered = _softmax(logarithms * inverse)
        mean = np.einsum("rc,rc->r", tempered, logarithms)
        square = np.einsum("rc,rc,rc->r", tempered, logarithms, logarithms)
        return float(mean.mean() - own), float((square - mean**2).mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slope(low)[0] >= 0:
        return HOTTEST
    if bool((winners(probabilities) == labels).all()):
        return 1.0
    if slope(high)[0] <= 0:
        return COLDEST
    inverse = 1.0
    for _ in range(MOST_STEPS):
        first, second = slope(inverse)
        low, high = (inverse, high) if first < 0 else (low, inverse)
        step = inverse - first / second if second > 0 else np.inf
        if abs(step - inverse) < 1e-9 * inverse:
            break
        inverse = step if low < step < high else float(np.sqrt(low * high))
    return 1 / inverse


def _logarithms(probabilities: np.ndarray) -> np.ndarray:
    logarithms: np.ndarray = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST))
    return logarithms


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Return softmax over the last axis, float64."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: np.ndarray = raised / raised.sum(axis=-1, keepdims=True)
    return shares
