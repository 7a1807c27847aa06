"""What the members of a cell come to by each fusion, from the outputs in its file."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.core.fusion import FUSIONS, Fusion, validation_weights, winners
from ensync.core.statistics.selection import greedy_selection, stack
from ensync.storage.outputs import Outputs, SplitOutputs

GREEDY_ROUNDS = 50
LABELS = {
    **{name: fusion.label for name, fusion in FUSIONS.items()},
    "weight_averaging": "weight averaging (uniform soup)",
    "greedy_soup": "greedy soup",
    "greedy_selection": "greedy selection",
    "stacking": "stacking",
}
ONE = "there is one network, which leaves nothing to fuse"
NO_VALIDATION = "there are no validation images to fit it on"
OTHER_STARTS = (
    "the members started from different weights, whose mean is no network, or their mean was not "
    "finite"
)


class Fused(NamedTuple):
    """Votes float64 (rows, classes) for the test and the validation images; is_probability: each
    divided by its sum is one. note: what was chosen on the way.
    """

    test: np.ndarray
    validation: np.ndarray
    is_probability: bool = True
    note: str = ""


class Senseless(NamedTuple):
    """Why members cannot be fused so."""

    why: str


def fuse(method: str, outputs: Outputs) -> Fused | Senseless:
    """Return what the members come to by a fusion of LABELS, or why it makes no sense. What it
    learns, it learns from the validation images.
    """
    if len(outputs.members) == 1:
        answers = (split.probabilities[0] for split in (outputs.test, outputs.validation))
        return Fused(*(each.astype(np.float64) for each in answers))
    if method in LEARNED:
        return LEARNED[method](outputs)
    fusion = FUSIONS[method]
    if fusion.of_parameters:
        return _averaged(outputs)
    if fusion.needs_validation and not len(outputs.validation.labels):
        return Senseless(NO_VALIDATION)
    weights = _weights(fusion, outputs)
    test, validation = (
        votes_of(fusion, split.probabilities, weights)
        for split in (outputs.test, outputs.validation)
    )
    return Fused(test, validation, fusion.yields_probabilities)


def _weights(fusion: Fusion, outputs: Outputs) -> np.ndarray:
    """Return the weight float64 (members,) of each member."""
    count = len(outputs.members)
    if not fusion.needs_validation:
        return np.full(count, 1 / count)
    labels, answers = outputs.validation.labels, outputs.validation.probabilities
    right = np.count_nonzero(answers.argmax(axis=2) == labels, axis=1)
    return validation_weights(right, len(labels), answers.shape[2])


def votes_of(fusion: Fusion, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the votes float64 (rows, classes) of members with probabilities (members, rows,
    classes) and weights (members,), by a fusion that is not one of parameters.
    """
    if fusion.combine is not None:
        return fusion.combine(probabilities.astype(np.float64))
    assert fusion.contribute is not None
    votes = np.zeros(probabilities.shape[1:])
    for answers, weight in zip(probabilities, weights, strict=True):
        votes += fusion.contribute(answers, weight)
    return votes


def _averaged(outputs: Outputs) -> Fused | Senseless:
    test, validation = outputs.test.averaged, outputs.validation.averaged
    if test is None or validation is None:
        return Senseless(OTHER_STARTS)
    return Fused(test.astype(np.float64), validation.astype(np.float64))


def _soup(outputs: Outputs) -> Fused | Senseless:
    test, validation = outputs.test.greedy_soup, outputs.validation.greedy_soup
    if test is None or validation is None:
        none = not len(outputs.validation.labels)
        return Senseless(NO_VALIDATION if none else OTHER_STARTS)
    note = f"{len(outputs.soup_members)} of {len(outputs.members)} members"
    return Fused(test.astype(np.float64), validation.astype(np.float64), note=note)


def _selected(outputs: Outputs) -> Fused | Senseless:
    if not len(outputs.validation.labels):
        return Senseless(NO_VALIDATION)
    learned: SplitOutputs = outputs.validation
    weights = greedy_selection(learned.probabilities, learned.labels, GREEDY_ROUNDS)
    test, validation = (
        votes_of(FUSIONS["soft_voting"], split.probabilities, weights)
        for split in (outputs.test, learned)
    )
    note = f"{np.count_nonzero(weights)} of {len(weights)} members"
    return Fused(test, validation, note=note)


def _stacked(outputs: Outputs) -> Fused | Senseless:
    if not len(outputs.validation.labels):
        return Senseless(NO_VALIDATION)
    learned = outputs.validation
    try:
        fitted = stack(learned.probabilities, learned.labels)
    except EnsyncError as error:
        return Senseless(f"{error.given}; expected: {error.expected}")
    return Fused(fitted(outputs.test.probabilities), fitted(learned.probabilities))


LEARNED: dict[str, Callable[[Outputs], Fused | Senseless]] = {
    "greedy_soup": _soup,
    "greedy_selection": _selected,
    "stacking": _stacked,
}


def right_of(votes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return bool (rows,): whether the votes (rows, classes) have a row's label."""
    found: np.ndarray = winners(votes) == labels
    return found
