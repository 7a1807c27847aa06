"""The figures of one cell, computed from its outputs: of the fused result, of every other fusion
and of the members.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from ensync.core import metrics
from ensync.core.fusion import shares, winners
from ensync.core.statistics import calibration
from ensync.report.results import CellResult
from ensync.runs.study import member_figures
from ensync.runs.study.fusing import LABELS, ONE, Fused, Senseless, fuse, right_of
from ensync.runs.study.member_figures import OfMembers
from ensync.storage.outputs import Outputs


class ScoresOfOne(NamedTuple):
    """Scores of probabilities, see `report.study_results.Scores`."""

    log_likelihood: float
    brier: float
    ece: float


class FusionOfOne(NamedTuple):
    """What a fusion reached in one cell; refused: why there is none."""

    accuracy: float | None = None
    log_likelihood: float | None = None
    refused: str = ""
    note: str = ""


@dataclass(frozen=True)
class CellFigures:
    """The figures of one cell on the test images.

    right: bool (images,); counts: confusion int64 (classes, classes); confidence: float64
    (images,), the largest probability of each image, calibrated_confidence: the same after the
    temperature, None of a fusion that has no probabilities.
    """

    cell: CellResult
    right: np.ndarray
    counts: np.ndarray
    top_k: float
    confidence: np.ndarray | None = None
    calibrated_confidence: np.ndarray | None = None
    temperature: float | None = None
    scores: ScoresOfOne | None = None
    calibrated_scores: ScoresOfOne | None = None
    fusions: dict[str, FusionOfOne] = field(default_factory=dict)
    members: OfMembers | None = None

    @property
    def accuracy(self) -> float:
        """The share of test images that are right."""
        return float(self.right.mean())


def figures_of(cell: CellResult, outputs: Outputs) -> CellFigures | Senseless:
    """Return the figures of a cell from its outputs, or why there are none."""
    labels = outputs.test.labels
    fused = fuse(cell.fusion, outputs)
    if isinstance(fused, Senseless):
        return fused
    found = CellFigures(
        cell=cell,
        right=right_of(fused.test, labels),
        counts=metrics.confusion(labels, winners(fused.test), fused.test.shape[1]),
        top_k=metrics.top_k_correct(fused.test, labels, min(metrics.TOP_K, fused.test.shape[1]))
        / len(labels),
    )
    several = len(outputs.members) > 1
    found = replace(
        found,
        fusions=_fusions(cell, outputs),
        members=member_figures.of_cell(outputs) if several else None,
    )
    return _with_probabilities(found, fused, outputs) if fused.is_probability else found


def _with_probabilities(found: CellFigures, fused: Fused, outputs: Outputs) -> CellFigures:
    """Return the figures with those of probabilities, after calibration where there are validation
    images.
    """
    labels, probabilities = outputs.test.labels, shares(fused.test)
    found = replace(
        found,
        confidence=probabilities.max(axis=1),
        scores=scores_of(probabilities, labels),
    )
    if not len(outputs.validation.labels):
        return found
    fitted = calibration.temperature(shares(fused.validation), outputs.validation.labels)
    calibrated = calibration.with_temperature(probabilities, fitted)
    return replace(
        found,
        temperature=fitted,
        calibrated_confidence=calibrated.max(axis=1),
        calibrated_scores=scores_of(calibrated, labels),
    )


def scores_of(probabilities: np.ndarray, labels: np.ndarray) -> ScoresOfOne:
    """Return the scores of probabilities float64 (rows, classes)."""
    return ScoresOfOne(
        calibration.log_likelihood(probabilities, labels),
        calibration.brier(probabilities, labels),
        calibration.ece(probabilities, labels),
    )


def _fusions(cell: CellResult, outputs: Outputs) -> dict[str, FusionOfOne]:
    """Return what every fusion reached."""
    if cell.members == 1:
        return {}
    if len(outputs.members) == 1:
        return {name: FusionOfOne(refused=ONE) for name in LABELS}
    return {name: _fusion(fuse(name, outputs), outputs.test.labels) for name in LABELS}


def _fusion(found: Fused | Senseless, labels: np.ndarray) -> FusionOfOne:
    if isinstance(found, Senseless):
        return FusionOfOne(refused=found.why)
    likelihood = None
    if found.is_probability:
        likelihood = calibration.log_likelihood(shares(found.test), labels)
    accuracy = float(right_of(found.test, labels).mean())
    return FusionOfOne(accuracy, likelihood, note=found.note)
