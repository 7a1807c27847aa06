"""The two ends of a study: what was asked for, written before, and what its cells found together,
written and shown after. Both are on disk, so that `ensync report` makes the second anew.
"""

from pathlib import Path

from ensync.core.activity import Doing, doing
from ensync.core.config.job import plain_settings
from ensync.mpi.world import Comm, on_root
from ensync.report.console import Console
from ensync.report.study_results import StudyPlan, StudyResult
from ensync.runs.launch import cores_of
from ensync.runs.study.analysis import analyse
from ensync.runs.study.execution import Execution
from ensync.runs.study.plan_file import write_plan
from ensync.storage.lock import confirm


def note_plan(comm: Comm, run: Execution) -> None:
    """Write plan.json, of all units. Collective."""
    found, together = on_root(comm, run.whole_plan), cores_of(comm)
    names = [cell.name for cell in found.cells if not cell.calibration and cell.trial is None]
    names += [name for name in found.pending if "/trial_" not in name]
    plan = StudyPlan(
        job=plain_settings(run.job),
        class_names=run.dataset.class_names,
        cores=together,
        cells=names,
        left_out=found.left_out,
    )

    def write() -> None:
        confirm(run.directory)
        write_plan(run.directory, plan)

    on_root(comm, write)


def gather(comm: Comm, directory: Path, console: Console) -> StudyResult:
    """Write and show what the cells of a study found so far, and return it on all ranks.
    Collective.
    """
    from ensync.report.study_files import write_study

    def write() -> tuple[StudyResult, dict[str, Path]]:
        found = analyse(directory)
        confirm(directory)
        return found, dict(write_study(found, directory))

    with doing(Doing.WRITING):
        found, files = on_root(comm, write)
    console.study(found)
    console.files({**files, "cells": directory / "cells"})
    return found
