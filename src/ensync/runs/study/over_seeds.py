"""The figures of a contestant on one number of ranks, over the cells of its seeds."""

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest

import numpy as np

from ensync.core.metrics import TOP_K, macro_f1, recall
from ensync.core.statistics import calibration
from ensync.core.statistics.intervals import mean_interval
from ensync.core.statistics.pairs import difference
from ensync.report.results import CellResult
from ensync.report.study_results import (
    Accuracy,
    ContestantResult,
    Cost,
    FusionOutcome,
    MemberFigures,
    ReliabilityBin,
    Scores,
    SizeFigures,
    Spread,
    TopKSpread,
    WorstClass,
)
from ensync.runs.study.cell_figures import CellFigures, ScoresOfOne
from ensync.runs.study.fusing import LABELS
from ensync.runs.study.member_figures import OfMembers
from ensync.runs.study.pairing import range_of

Values = Sequence[float | None]
MOST_CLASSES = 200  # of which a result has the confusion counts; of more it would be a large file


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return a figure over seeds from its values, None where none is known."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    if not known:
        return None
    several = len(known) > 1
    return Spread(
        mean=float(np.mean(known)),
        sd=float(np.std(known, ddof=1)) if several else None,
        interval=range_of(mean_interval(known)) if several else None,
        values=listed,
    )


def contestant_of(
    cells: Sequence[CellFigures], class_names: Sequence[str], cores: int | None
) -> ContestantResult:
    """Return the figures of a contestant from those of its cells, ascending seeds. cores: that
    all ranks may use, None where that is not known.
    """
    first = cells[0].cell
    counts = np.sum([each.counts for each in cells], axis=0)
    return ContestantResult(
        name=first.contestant,
        label=first.label or first.contestant,
        ranks=first.ranks,
        threads=first.threads,
        together=first.members == 1,
        members=first.members,
        parameters=first.parameters,
        fusion=first.fusion,
        seeds=[each.cell.seed for each in cells],
        learning_rate_factor=first.learning_rate_factor,
        accuracy=_accuracy(cells),
        validation_accuracy=spread(each.cell.validation_accuracy for each in cells),
        scores=_scores([each.scores for each in cells]),
        calibrated=_scores([each.calibrated_scores for each in cells]),
        temperature=spread(each.temperature for each in cells),
        macro_f1=spread(macro_f1(each.counts) for each in cells),
        worst_class=_worst(cells, class_names),
        top_k=TopKSpread(k=min(TOP_K, len(counts)), accuracy=_known([c.top_k for c in cells])),
        cost=_cost([each.cell for each in cells], cores),
        fusions=_fusions(cells),
        member_figures=_members(cells),
        reliability=_reliability(cells, lambda each: each.confidence),
        reliability_calibrated=_reliability(cells, lambda each: each.calibrated_confidence),
        confusion=counts.tolist() if len(counts) <= MOST_CLASSES else [],
        staleness=_summed([each.cell.staleness for each in cells]),
        excluded=_excluded([each.cell for each in cells]),
        notes=_notes([each.cell for each in cells]),
    )


def _summed(counts: Sequence[Sequence[int]]) -> list[int]:
    """Return the sum of counts by place, of which some may be longer."""
    return [sum(each) for each in zip_longest(*counts, fillvalue=0)]


def _known(values: Values) -> Spread:
    """Return the spread of values of which one is known at least."""
    found = spread(values)
    assert found is not None
    return found


def _accuracy(cells: Sequence[CellFigures]) -> Accuracy:
    """Return the accuracy with both intervals: its difference from a contestant that has nothing
    right.
    """
    right = np.stack([each.right for each in cells])
    found = difference(right, np.zeros_like(right))
    values = [each.accuracy for each in cells]
    return Accuracy(
        mean=float(np.mean(values)),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        values=values,
        on_these_images=range_of(found.on_these),
        on_new_images=range_of(found.on_new),
    )


def _scores(found: Sequence[ScoresOfOne | None]) -> Scores | None:
    known = [each for each in found if each is not None]
    if not known:
        return None
    return Scores(
        **{name: _known([getattr(one, name) for one in known]) for name in ScoresOfOne._fields}
    )


def _worst(cells: Sequence[CellFigures], class_names: Sequence[str]) -> WorstClass:
    """Return the class with the smallest mean recall of those that the test images have."""
    recalls = np.stack([recall(each.counts) for each in cells])
    there = np.flatnonzero(cells[0].counts.sum(axis=1))
    worst = int(there[recalls[:, there].mean(axis=0).argmin()])
    name = class_names[worst] if worst < len(class_names) else str(worst)
    return WorstClass(name=name, recall=_known(recalls[:, worst].tolist()))


def _cost(cells: Sequence[CellResult], cores: int | None) -> Cost:
    """Return what the cells took."""
    sent = [cell.bytes_sent for cell in cells]
    busy = max(cell.ranks * cell.threads for cell in cells)
    return Cost(
        seconds=spread(cell.seconds for cell in cells),
        core_seconds=spread(cell.seconds * cell.ranks * cell.threads for cell in cells),
        samples=float(np.mean([cell.samples for cell in cells])),
        steps=float(np.mean([cell.steps for cell in cells])),
        bytes_sent=None if None in sent else float(np.mean(np.array(sent, float))),
        bytes_per_sample=spread(map(_sent_per_sample, cells)),
        seconds_to_target=[cell.seconds_to_target for cell in cells],
        packed=any(cell.packed for cell in cells),
        oversubscribed=cores is not None and busy > cores,
    )


def _sent_per_sample(cell: CellResult) -> float | None:
    """Return the bytes that all ranks sent for each sample, None where either is not known."""
    if cell.bytes_sent is None or not cell.samples:
        return None
    return cell.bytes_sent / cell.samples


def _fusions(cells: Sequence[CellFigures]) -> list[FusionOutcome]:
    """Return every fusion over the seeds."""
    found = []
    for name in cells[0].fusions:
        of_seeds = [each.fusions[name] for each in cells if name in each.fusions]
        refused = sorted({one.refused for one in of_seeds if one.refused})
        accuracy = spread(one.accuracy for one in of_seeds)
        notes = [one.note for one in of_seeds if one.note]
        found.append(
            FusionOutcome(
                name=name,
                label=LABELS[name],
                accuracy=accuracy,
                log_likelihood=spread(one.log_likelihood for one in of_seeds),
                refused="; ".join(refused) if accuracy is None else "",
                note=_by_seed(notes),
            )
        )
    return found


def _by_seed(notes: Sequence[str]) -> str:
    """Return what was noted of each seed in one phrase."""
    if len(set(notes)) == 1:
        return f"{notes[0]} with every seed"
    return f"by seed: {', '.join(notes)}" if notes else ""


def _members(cells: Sequence[CellFigures]) -> MemberFigures | None:
    """Return what the members are like over the seeds whose cells have several."""
    known = [each.members for each in cells if each.members is not None]
    if not known:
        return None
    numbers = sorted({number for each in known for number in each.accuracies})
    return MemberFigures(
        accuracies=[
            float(np.mean([each.accuracies[n] for each in known if n in each.accuracies]))
            for n in numbers
        ],
        disagreement=spread(each.disagreement for each in known),
        double_fault=spread(each.double_fault for each in known),
        oracle=spread(each.oracle for each in known),
        member_loss=spread(each.losses.member_nll for each in known),
        fused_loss=spread(each.losses.ensemble_nll for each in known),
        ambiguity=spread(each.losses.nll_gain for each in known),
        by_size=[
            _size(size, known) for size in range(1, max(len(each.by_size) for each in known) + 1)
        ],
    )


def _size(size: int, known: Sequence[OfMembers]) -> SizeFigures:
    """Return soft voting of so many members, the mean of the cells that have as many."""
    found = [one for each in known for one in each.by_size if one.members == size]
    return SizeFigures(
        members=size,
        accuracy=float(np.mean([one.accuracy for one in found])),
        sd=float(np.mean([one.sd for one in found])),
        log_likelihood=float(np.mean([one.log_likelihood for one in found])),
    )


def _reliability(
    cells: Sequence[CellFigures], of: Callable[[CellFigures], np.ndarray | None]
) -> list[ReliabilityBin]:
    """Return the bins of the images of all seeds together, by confidences float64 (images,)."""
    known = [(found, each.right) for each in cells if (found := of(each)) is not None]
    if not known:
        return []
    confidence, right = (np.concatenate(part) for part in zip(*known, strict=True))
    # class 0 is what was answered, class 1 any other
    answered = np.stack([confidence, np.zeros_like(confidence)], axis=1)
    columns = zip(*calibration.reliability(answered, 1 - right), strict=True)
    return [
        ReliabilityBin(confidence=float(sure), accuracy=float(part), share=rows / len(right))
        for sure, part, rows in columns
    ]


def _excluded(cells: Sequence[CellResult]) -> dict[str, str]:
    return {
        f"seed {cell.seed}, member {member}": why
        for cell in cells
        for member, why in cell.excluded.items()
    }


def _notes(cells: Sequence[CellResult]) -> list[str]:
    """Return what must be said of the cells: members left out, notes of their own."""
    left = [f"{where} left out: {why}" for where, why in _excluded(cells).items()]
    return list(dict.fromkeys([*left, *(cell.note for cell in cells if cell.note)]))
