"""What the members of one cell are like, from its outputs."""

from typing import NamedTuple

import numpy as np

from ensync.core.statistics import ensembles
from ensync.storage.outputs import Outputs

SUBSETS = 20  # of members of one size, at most
ALL_SUBSETS = 200  # of all sizes together, about, as long as each size has a few
FEWEST = 3


class SizeOfOne(NamedTuple):
    """Soft voting of so many members of one cell, over subsets; log_likelihood: calibrated."""

    members: int
    accuracy: float
    sd: float
    log_likelihood: float


class OfMembers(NamedTuple):
    """Figures of the members of one cell, see `report.study_results.MemberFigures`; accuracies by
    member number.
    """

    accuracies: dict[int, float]
    disagreement: float
    double_fault: float
    oracle: float
    losses: ensembles.Ambiguity
    by_size: list[SizeOfOne]


def of_cell(outputs: Outputs) -> OfMembers:
    """Return the figures of the members of a cell, of which there are several."""
    labels, answers = outputs.test.labels, outputs.test.probabilities
    right = answers.argmax(axis=2) == labels
    pairs = np.triu_indices(len(answers), 1)
    return OfMembers(
        {int(m): float(share) for m, share in zip(outputs.members, right.mean(axis=1))},
        float(ensembles.disagreement(answers)[pairs].mean()),
        float(ensembles.double_fault(answers, labels)[pairs].mean()),
        ensembles.oracle_accuracy(answers, labels),
        ensembles.ambiguity(answers, labels),
        _by_size(outputs),
    )


def _by_size(outputs: Outputs) -> list[SizeOfOne]:
    """Return soft voting of 1 to all members; the temperature of each subset is fitted on the
    validation images, or where there are none on the other half of the test images.
    """
    held = None
    if len(outputs.validation.labels):
        held = ensembles.Held(outputs.validation.probabilities, outputs.validation.labels)
    answers = outputs.test.probabilities
    most = max(FEWEST, min(SUBSETS, ALL_SUBSETS // len(answers)))
    curve = ensembles.accuracy_by_size(
        answers, outputs.test.labels, most_subsets=most, validation=held
    )
    columns = zip(curve.sizes, curve.accuracy, curve.accuracy_sd, -curve.nll, strict=True)
    return [SizeOfOne(int(size), *map(float, rest)) for size, *rest in columns]
