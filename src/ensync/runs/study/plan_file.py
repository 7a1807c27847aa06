"""plan.json of a study: what was asked for, beside the cells that were trained."""

import json
import re
from pathlib import Path

from ensync.core.errors import EnsyncError, reason
from ensync.report.results import from_json, to_json
from ensync.report.study_results import StudyPlan
from ensync.storage.atomic import write_atomically

NAME = "plan.json"
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
    try:
        plan = from_json(StudyPlan, json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refuse_plan(path, reason(error)) from error
    except ValueError as error:
        raise refuse_plan(path, "it is damaged") from error
    if not all(map(CELL.fullmatch, plan.cells)):
        raise refuse_plan(path, "it names cells that cannot be")
    if (plan.format, plan.version) != ("ensync-study-plan", 1):
        raise refuse_plan(path, f"it is {plan.format!r:.40}, version {plan.version}")
    return plan


def refuse_plan(path: Path, why: str) -> EnsyncError:
    """Return the error for a plan that cannot be used."""
    return EnsyncError(
        f"{path} cannot be used ({why})",
        "the plan of a study of this version",
        "remove it, and start the study again with --resume, which writes it anew",
    )
