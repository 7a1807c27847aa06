"""What is in the directory of a study already: which cells are done, which may be continued, and
what must not be mixed.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ensync.core.errors import EnsyncError
from ensync.report.text import plural
from ensync.runs.existing import holds_run
from ensync.runs.study.calibration import read_pace
from ensync.runs.study.cells import Cell, Known, Pace, Place
from ensync.runs.study.files import CELLS, RESULT, read_cell
from ensync.runs.study.origin import NAME, Origin, check_origin, read_origin
from ensync.storage.lock import GONE, describe_holder

PLAN, FOUND = "plan.json", ("study.*", "study_*", "comparison.*")  # what is made beside them


def is_begun(directory: Path) -> bool:
    """Return whether a cell in a directory is done or may be continued."""
    return (directory / RESULT).exists() or holds_run(directory)


def is_done(cell: Cell) -> bool:
    """Return whether a cell needs to be run no more."""
    if cell.calibration:
        return read_pace(cell.directory) is not None
    return (cell.directory / RESULT).exists()


def all_done(cells: Sequence[Cell]) -> list[bool]:
    """Return of each cell whether it needs to be run no more."""
    return list(map(is_done, cells))


def refuse_earlier(directory: Path, cells: Iterable[Cell] | None = None) -> None:
    """Refuse a directory that holds a study or a comparison; cells: only these, which another
    process trains the rest of.
    """
    if cells is None:
        begun = [path.parent for path in _cells(directory) if is_begun(path.parent)]
        files = _files(directory, FOUND)
    else:
        mine = [cell.directory for cell in cells if not cell.calibration]
        begun, files = [each for each in mine if is_begun(each)], []
    if begun or files:
        there = [*map(str, begun), *map(str, files)]
        more = f" and {len(there) - 3} more" * (len(there) > 3)
        raise EnsyncError(
            f"earlier results are there already: {', '.join(repr(x) for x in there[:3])}{more}",
            "a place without any",
            "continue them with --resume, keep them by giving --set output.directory=DIR, or "
            "delete them with --overwrite",
        )


def remove_all(directory: Path, cells: Iterable[Cell] | None = None) -> str:
    """Delete the cells of a study and what was made of them, or only these cells; return what that
    was, in words.
    """
    if cells is None:
        found = [path.parent for path in _cells(directory)]
        files = _files(directory, (PLAN, *FOUND[:2]))
    else:
        mine = [cell.directory for cell in cells if not cell.calibration]
        found, files = [each for each in mine if each.is_dir()], []
    _refuse_held(found)
    for each in found:
        shutil.rmtree(each)
    for path in files:
        path.unlink()
    words = [plural(len(found), "cell")] * bool(found) + [path.name for path in files]
    return f"deleted in {directory}: {', '.join(words)}" if words else ""


def _refuse_held(found: Iterable[Path]) -> None:
    """Refuse cells that another process is about."""
    for each in found:
        holder = describe_holder(each)
        if holder and not holder.startswith(GONE):
            raise EnsyncError(
                f"the cell '{each}' is in use by {holder}",
                "cells that no other process trains",
                "wait for its end, stop it, or give --set output.directory=DIR",
            )


def _files(directory: Path, patterns: Sequence[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(directory.glob(pattern))]


def _cells(directory: Path) -> list[Path]:
    """Return started.json of each cell of a study."""
    return sorted((directory / CELLS).glob(f"*/ranks_*/*/{NAME}"))


def check_planned(cells: Iterable[tuple[Cell, Origin]]) -> None:
    """Refuse cells that were begun with something else than what they rest on now."""
    for cell, origin in cells:
        if is_begun(cell.directory):
            check_origin(cell.directory, read_origin(cell.directory), origin)


def others(directory: Path, names: Sequence[str], now: Origin) -> list[str]:
    """Return the names of cells that were begun and are none of those that are asked for.

    Errors: EnsyncError where one of these is of other code or data.
    """
    found = []
    for path in _cells(directory):
        name = str(path.parent.relative_to(directory / CELLS))
        if name not in names and is_begun(path.parent):
            there = read_origin(path.parent)
            if there is not None:
                check_origin(path.parent, there, Origin(now.code, now.dataset, there.job))
            found.append(name)
    return found


def known_of(cells: Iterable[Cell]) -> Known:
    """Return what calibrations and trials that are done have told."""
    pace: dict[Place, Pace] = {}
    trials: dict[Place, list[tuple[float, float]]] = {}
    waiting: set[Place] = set()
    for cell in cells:
        if cell.calibration:
            if (found := read_pace(cell.directory)) is not None:
                pace[cell.place] = found
        elif cell.trial is not None:
            result = read_cell(cell.directory)
            if result is None:
                waiting.add(cell.place)
            else:
                accuracy = result.validation_accuracy
                trials.setdefault(cell.place, []).append(
                    (cell.learning_rate_factor, -1.0 if accuracy is None else accuracy)
                )
    winners = {place: best_factor(found) for place, found in trials.items() if place not in waiting}
    return Known(pace, winners)


def best_factor(trials: Sequence[tuple[float, float]]) -> float:
    """Return of trials (factor, validation accuracy) the factor of the most accurate one; of equal
    ones the nearest to 1, then the smaller.
    """
    return min(trials, key=lambda trial: (-trial[1], max(trial[0], 1 / trial[0]), trial[0]))[0]
