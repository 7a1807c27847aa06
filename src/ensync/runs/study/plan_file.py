"""plan.json of a study: what was asked for, beside the cells that were trained."""

import json
from pathlib import Path

from ensync.core.errors import EnsyncError, reason
from ensync.report.results import from_json, to_json
from ensync.report.study_results import StudyPlan
from ensync.storage.atomic import write_atomically

NAME = "plan.json"


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
        raise _refused(path, reason(error)) from error
    except ValueError as error:
        raise _refused(path, "it is damaged") from error
    if (plan.format, plan.version) != ("ensync-study-plan", 1):
        raise _refused(path, f"it is {plan.format!r:.40}, version {plan.version}")
    return plan


def _refused(path: Path, why: str) -> EnsyncError:
    return EnsyncError(
        f"{path} cannot be used ({why})",
        "the plan of a study of this version",
        "remove it, and start the study again with --resume, which writes it anew",
    )
