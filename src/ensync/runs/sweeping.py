"""The runs of a sweep: the values of one setting, the job of each, and a directory of its own
for each.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from ensync.core.config.job import Job, load_job
from ensync.core.config.values import safe_name, split_values
from ensync.core.errors import EnsyncError


class Swept(NamedTuple):
    """One run of a sweep: the value as given, as the setting has it, and the job."""

    text: str
    value: Any
    job: Job


def swept(path: str, over: str, overrides: Sequence[str] = ()) -> list[Swept]:
    """Return the runs of `--over section.key=V1,V2,...`, each in a directory of its own below the
    job's.

    Errors: EnsyncError when the values are not a list, or one is empty, wrong or there twice.
    """
    key, _equals, listed = over.partition("=")
    section, dot, name = key.strip().partition(".")
    values = split_values(listed)
    if (
        not (dot and section and name)
        or "." in name
        or not all(value.isprintable() for value in values)
        or "" in values
    ):
        raise EnsyncError(
            f"--over {over}",
            "section.key=value,value,...",
            "write for example --over optimizer.learning_rate=0.05,0.1,0.2",
        )
    if (section, name) == ("output", "directory"):
        raise EnsyncError(
            "--over output.directory",
            "a setting of the training",
            "each value has a directory of its own below output.directory already",
        )
    if section == "study":
        raise EnsyncError(
            f"--over {key.strip()}, which no run has",
            "a setting of the training",
            "give it to `ensync compare`, which runs a study",
        )
    base = load_job(path, overrides).output.directory
    found: list[Swept] = []
    for text in values:
        directory = json.dumps(f"{base}/{name}_{safe_name(text)}")
        job = load_job(
            path, [*overrides, f"{section}.{name}={text}", f"output.directory={directory}"]
        )
        found.append(_checked(Swept(text, getattr(getattr(job, section), name), job), found, key))
    return found


def _checked(one: Swept, before: Sequence[Swept], key: str) -> Swept:
    """Return the run. Errors: EnsyncError when another has its value or its directory."""
    for other in before:
        if (
            repr(one.value) == repr(other.value)
            or one.job.output.directory == other.job.output.directory
        ):
            given = (
                f"--over {key} has {other.text} and {one.text}, the same value twice"
                if one.text != other.text
                else f"--over {key} has {one.text} twice"
            )
            raise EnsyncError(given, "values that differ", "leave one of them out")
    return one
