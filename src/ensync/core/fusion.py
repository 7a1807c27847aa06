"""How members become one classifier: every fusion once, in FUSIONS.

A fusion is a sum over members where it can be: a member contributes weight * f(its probabilities or
parameters), the ranks add contributions, and rank 0 needs one Reduce and memory that does not grow
with the members. A member left out has weight 0 and contributes zeros, whatever it computed.
Any other fusion combines the probabilities of all members, of a block of rows at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Contribution = Callable[[np.ndarray, float], np.ndarray]
Combination = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Fusion:
    """A way to fuse members, and all that settings, refusals, verbs and tables know of it.

    contribute(values, weight): what a member adds to the sum over members, float64 of the shape of
    `values`: its probabilities (rows, classes), or with `of_parameters` its parameters (n,).
    combine(probabilities): instead of a sum, votes float64 (rows, classes) from the probabilities
    float64 (members, rows, classes) of all members. One of the two is given.
    """

    name: str
    help: str
    contribute: Contribution | None = None
    combine: Combination | None = None
    yields_probabilities: bool = True  # votes divided by their sum, so that they have a loss
    of_parameters: bool = False  # one network comes out; the members need a common start
    needs_validation: bool = False  # members are weighed by their validation accuracy

    def __post_init__(self) -> None:
        assert (self.contribute is None) != (self.combine is None), self.name

    @property
    def label(self) -> str:
        """Its name in a table."""
        return fusion_label(self.name)

    @property
    def weighs_alike(self) -> bool:
        """Whether every member counts alike, so that any of them can be fused without the rest."""
        return not (self.of_parameters or self.needs_validation)


def fusion_label(name: str) -> str:
    """Return the name of a fusion as tables and pages show it, of one of another version too."""
    return name.replace("_", " ")


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


def median_votes(probabilities: np.ndarray) -> np.ndarray:
    """Return the median over members of probabilities (members, rows, classes), float64 (rows,
    classes); of an even number of members the mean of the middle two. `shares` has rows sum to 1.

    The median rule of Kittler et al. 1998, On combining classifiers, IEEE TPAMI 20(3): a member
    that is far off does not move it.
    """
    median: np.ndarray = np.median(probabilities.astype(np.float64, copy=False), axis=0)
    return median


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


FUSIONS = {
    fusion.name: fusion
    for fusion in (
        Fusion("soft_voting", "mean of outputs", soft_votes),
        Fusion("hard_voting", "majority", hard_votes, yields_probabilities=False),
        Fusion(
            "weighted_voting",
            "mean weighted by validation accuracy",
            soft_votes,
            needs_validation=True,
        ),
        Fusion("median_voting", "median of outputs", combine=median_votes),
        Fusion(
            "weight_averaging",
            "one network with the mean of the parameters (needs a shared start)",
            weighted_parameters,
            of_parameters=True,
        ),
    )
}
OF_ONE = "soft_voting"  # what the output of a single network is reported as
