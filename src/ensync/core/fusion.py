"""How members become one classifier: each fusion is a sum over members, then a finish.

A member contributes weight * f(its probabilities or parameters); ranks add contributions, so rank 0
needs one Reduce and memory that does not grow with the members. A member left out has weight 0 and
contributes zeros, whatever it computed.
"""

import numpy as np


def soft_votes(probabilities: np.ndarray, weight: float = 1.0) -> np.ndarray:
    """Return weight * probabilities as float64 (rows, classes): the member's contribution to
    soft voting.
    """
    if weight == 0:
        return np.zeros(probabilities.shape)
    return probabilities * np.float64(weight)


def hard_votes(probabilities: np.ndarray, weight: float = 1.0) -> np.ndarray:
    """Return `weight` at the likeliest class (of equal ones the smallest label), 0 elsewhere,
    float64 (rows, classes).
    """
    votes = np.zeros(probabilities.shape)
    if weight:
        votes[np.arange(len(votes)), probabilities.argmax(axis=1)] = weight
    return votes


# How a member's probabilities become votes; weighted voting is soft voting with the weights of
# validation_weights.
VOTES = {"soft_voting": soft_votes, "hard_voting": hard_votes, "weighted_voting": soft_votes}


def winners(votes: np.ndarray) -> np.ndarray:
    """Return the label int64 (rows,) with most of the summed votes (rows, classes); ties go to
    the smallest label.
    """
    labels: np.ndarray = votes.argmax(axis=1)
    return labels


def shares(votes: np.ndarray) -> np.ndarray:
    """Return summed votes (rows, classes) as probabilities: each row divided by its sum; rows of
    zeros become uniform.
    """
    totals = votes.sum(axis=1, keepdims=True)
    uniform = np.full(votes.shape, 1 / votes.shape[1])
    found: np.ndarray = np.divide(votes, totals, out=uniform, where=totals > 0)
    return found


def weighted_parameters(parameters: np.ndarray, weight: float = 1.0) -> np.ndarray:
    """Return weight * parameters as float64 (parameters,): the member's contribution to weight
    averaging.
    """
    if weight == 0:
        return np.zeros(parameters.shape)
    return parameters * np.float64(weight)


def averaged_parameters(
    total: np.ndarray, total_weight: float, dtype: np.dtype | type = np.float32
) -> np.ndarray:
    """Return the summed contributions (parameters,) over the summed weights, rounded once to
    `dtype`.
    """
    return (total / total_weight).astype(dtype)


def usable(*arrays: np.ndarray) -> bool:
    """Return whether a member may join a fusion: everything it computed is finite."""
    return all(bool(np.isfinite(array).all()) for array in arrays)


def validation_weights(correct: np.ndarray, rows: int, classes: int) -> np.ndarray:
    """Return voting weights float64 (members,), summing to 1, from how many of `rows` validation
    images each member has right.

    log((1 - e) / e) + log(classes - 1), the weight of a vote with error e (Zhu et al. 2009, SAMME),
    with e from one more right and one more wrong image so that it stays finite. No better than
    guessing gives weight 0; nobody better, equal weights.
    """
    error = 1 - (np.asarray(correct) + 1) / (rows + 2)
    weights = np.maximum(np.log((1 - error) / error) + np.log(max(classes - 1, 1)), 0)
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), 1 / len(weights))
