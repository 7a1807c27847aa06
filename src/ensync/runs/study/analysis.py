"""What a study found, from the files of its cells alone: no training, no dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ensync.core.config.study import BUDGETS, Study
from ensync.core.errors import EnsyncError
from ensync.report.results import CellResult, Settings
from ensync.report.study_results import (
    DeclaredBudget,
    LeftOut,
    StudyAxis,
    StudyPlan,
    StudyResult,
)
from ensync.report.text import plural
from ensync.runs.study.cell_figures import CellFigures, figures_of
from ensync.runs.study.files import CELLS, OUTPUTS, RESULT, Refusal, read, read_cell
from ensync.runs.study.fusing import Senseless
from ensync.runs.study.growth import with_growth
from ensync.runs.study.over_seeds import contestant_of
from ensync.runs.study.pairing import Compared, Rules, pairs_of
from ensync.runs.study.plan_file import NAME as PLAN
from ensync.runs.study.plan_file import OF_PLAN, read_plan
from ensync.runs.study.predicting import predicted
from ensync.storage.outputs import read_outputs

STUDY = "study.json"
OF_STUDY = Refusal(
    "what a study of this version found", "run the study again, or put its cells beside the file"
)
UNKNOWN_BUDGET = DeclaredBudget(name="unknown", sentence="The study has no plan.json that says it.")

Group = tuple[str, int]  # the name of a contestant, and its ranks


@dataclass
class Found:
    """What the cells of a study gave: figures by contestant and ranks, ascending seeds, and what
    is left out.
    """

    groups: dict[Group, list[CellFigures]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def analyse(directory: Path) -> StudyResult:
    """Return what the cells of a study found that are done, also of one that is not finished.

    Errors: EnsyncError where no cell is done, where cells are of different code or images, or
    where a file is damaged.
    """
    plan, cells = read_plan(directory), _cells(directory)
    others = [name for name in cells if name not in plan.cells] if plan else []
    cells = {name: cell for name, cell in cells.items() if name not in others}
    _refuse_none(directory, cells)
    _refuse_mixed(directory, list(cells.values()))
    newest = max(cells.values(), key=lambda cell: cell.created)
    job = plan.job if plan else newest.job
    study = _study(directory, job)
    found = _figures(directory, dict(sorted(cells.items(), key=partial(_order, study.names))))
    names, cores = (plan.class_names, plan.cores) if plan else ([], None)
    compared = [
        Compared(
            contestant_of(group, names, cores),
            {each.cell.seed: each.right for each in group},
            {each.cell.seed: each.cell.validation_accuracy for each in group},
        )
        for group in found.groups.values()
    ]
    rules = Rules(study.practically_equal, _share(study, newest))
    missing = [name for name in plan.cells if name not in cells] if plan else []
    axis, figures = _axis(study), [each.figures for each in compared]
    times = predicted(directory, job, axis, figures)
    return StudyResult(
        created=newest.created,
        job=job,
        budget=_budget(job, study),
        practically_equal=rules.practically_equal,
        redraw_validation=study.redraw_validation,
        trials=study.trials,
        over=axis,
        predicted=[] if isinstance(times, LeftOut) else times,
        dataset=newest.dataset,
        machine=newest.machine,
        versions=dict(newest.versions),
        code=newest.code,
        class_names=list(names),
        cells_done=len(cells),
        cells_left=len(missing),
        contestants=with_growth(figures),
        pairs=pairs_of(compared, rules),
        left_out=[
            *_not_planned(plan),
            *found.left_out,
            *_together(missing, "not done yet"),
            *_together(others, "done in an earlier start, and not asked for now"),
            *([times] if isinstance(times, LeftOut) else []),
        ],
    )


def found_in(directory: Path) -> StudyResult:
    """Return what a study found, from its cells where there are any, else from its study.json.

    Errors: EnsyncError as `analyse`, or where that file is damaged.
    """
    path = directory / STUDY
    if (directory / CELLS).is_dir() or not path.exists():
        return analyse(directory)
    return read(StudyResult, path, OF_STUDY) or analyse(directory)


def _cells(directory: Path) -> dict[str, CellResult]:
    """Return the cells that are done, by name; trials of learning rates are not among them."""
    found = sorted((directory / CELLS).glob(f"*/ranks_*/seed_*/{RESULT}"))
    places = {str(each.parent.relative_to(directory / CELLS)): each.parent for each in found}
    done = {name: read_cell(place) for name, place in places.items()}
    return {name: cell for name, cell in done.items() if cell is not None}


def _study(directory: Path, job: Settings) -> Study:
    """Return the section [study] of a job, all defaults where it has none."""
    try:
        return Study.model_validate(job.get("study") or {})
    except ValueError as error:
        raise OF_PLAN.error(directory / PLAN, "its section study is not one") from error


def _axis(study: Study) -> StudyAxis | None:
    """Return the setting whose values are contestants, None where there is none."""
    axis = study.axis
    return StudyAxis(setting=axis.setting, values=dict(axis.values)) if axis else None


def _refuse_none(directory: Path, cells: Mapping[str, CellResult]) -> None:
    if not cells:
        raise EnsyncError(
            f"no cell of a study is done in {directory}",
            "the directory of a study (output.directory), with a cell.json in it",
            "run `ensync compare` with [study] in the job, or see its log",
        )


def _refuse_mixed(directory: Path, cells: Sequence[CellResult]) -> None:
    """Refuse cells whose difference would not be that of contestants and seeds."""
    for what, found in (
        ("sources of Ensync", {cell.code for cell in cells}),
        ("datasets", {cell.dataset.fingerprint for cell in cells}),
    ):
        if len(found) > 1:
            shown = ", ".join(sorted(each[:12] or "unknown" for each in found))
            raise EnsyncError(
                f"the cells in {directory} are of {len(found)} different {what} ({shown})",
                "cells that differ in contestant, ranks and seed alone",
                "run the study again into a directory of its own",
            )


def _figures(directory: Path, cells: Mapping[str, CellResult]) -> Found:
    """Return the figures of all cells; one without a usable result is left out.

    Errors: EnsyncError where cells were tested on other images, or in another order.
    """
    found, labels = Found(), None
    for name, cell in cells.items():
        if cell.failed:
            whys = "; ".join(dict.fromkeys(cell.excluded.values()))
            found.left_out.append(LeftOut(_called(cell), f"no network is usable: {whys}"))
            continue
        outputs = read_outputs(directory / CELLS / name / OUTPUTS)
        labels = outputs.test.labels if labels is None else labels
        if not np.array_equal(labels, outputs.test.labels):
            raise EnsyncError(
                f"the test labels of the cell {name} in {directory} are others than before",
                "cells that were tested on the same images in the same order",
                "remove the directory of that cell; the study with --resume trains it again",
            )
        figures = figures_of(cell, outputs)
        if isinstance(figures, Senseless):
            found.left_out.append(LeftOut(_called(cell), f"{cell.fusion}: {figures.why}"))
            continue
        found.groups.setdefault((cell.contestant, cell.ranks), []).append(figures)
    return found


def _order(names: Sequence[str], item: tuple[str, CellResult]) -> tuple[int, int, str, int]:
    """Return what cells are sorted by: ranks, the contestant's place in the job, seed."""
    cell = item[1]
    place = names.index(cell.contestant) if cell.contestant in names else len(names)
    return cell.ranks, place, cell.contestant, cell.seed


def _called(cell: CellResult) -> str:
    return f"{cell.label or cell.contestant}, {plural(cell.ranks, 'rank')}, seed {cell.seed}"


def _share(study: Study, cell: CellResult) -> float | None:
    """Return the share of the validation images where they are redrawn for each seed."""
    rows = [cell.dataset.sizes.get(split, 0) for split in ("validation", "train")]
    return rows[0] / sum(rows) if study.redraw_validation and all(rows) else None


def _budget(job: Settings, study: Study) -> DeclaredBudget:
    """Return the budget of a study, its letters explained."""
    if not job.get("study"):
        return UNKNOWN_BUDGET
    spec, amount = BUDGETS[study.budget], study.amount
    sentence = spec.help[:1].upper() + spec.help[1:]
    if spec.amount:
        sentence = sentence.replace("`amount`", f"{amount:g}")
    if sentence.startswith("As samples"):
        sentence += f"; samples: {BUDGETS['samples'].help}"
    if "E * D" in sentence:
        epochs = job.get("training", {}).get("epochs")
        sentence += f" (E = {epochs}, the epochs of the job; D: the training images)"
    return DeclaredBudget(
        name=study.budget, sentence=f"{sentence}.", amount=amount if spec.amount else None
    )


def _not_planned(plan: StudyPlan | None) -> list[LeftOut]:
    """Return the contestants that the plan left out, with their reasons."""
    return [LeftOut(*_halves(sentence)) for sentence in (plan.left_out if plan else [])]


def _halves(sentence: str) -> tuple[str, str]:
    what, _, why = sentence.partition(": ")
    return what, why


def _together(names: Sequence[str], reason: str) -> list[LeftOut]:
    """Return cells with one reason, those of one contestant and rank count together."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name in names:
        contestant, ranks, seed = name.split("/")
        place = contestant, int(ranks.removeprefix("ranks_"))
        groups.setdefault(place, []).append(seed.removeprefix("seed_"))
    return [
        LeftOut(
            f"{contestant} on {plural(ranks, 'rank')}, seed{'s' * (len(seeds) > 1)} "
            f"{', '.join(seeds)}",
            reason,
        )
        for (contestant, ranks), seeds in groups.items()
    ]
