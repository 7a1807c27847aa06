"""plan.json of a study: what was asked for, beside the cells that were trained."""

import re
from pathlib import Path

from ensync.report.results import to_json
from ensync.report.study_results import StudyPlan
from ensync.runs.study.files import Refusal, read
from ensync.storage.atomic import write_atomically

NAME = "plan.json"
OF_PLAN = Refusal(
    "the plan of a study of this version",
    "remove it, and start the study again with --resume, which writes it anew",
)
CELL = re.compile(r"[^/]+/ranks_\d+/seed_\d+")


def write_plan(directory: Path, plan: StudyPlan) -> None:
    """Write the plan into the directory of a study, whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / NAME, [to_json(plan).encode()])


def read_plan(directory: Path) -> StudyPlan | None:
    """Return the plan of the study in a directory, None where there is none. Errors: EnsyncError
    where the file is not one.
    """
    path = directory / NAME
    plan = read(StudyPlan, path, OF_PLAN)
    if plan and not all(map(CELL.fullmatch, plan.cells)):
        raise OF_PLAN.error(path, "it names cells that cannot be")
    return plan
