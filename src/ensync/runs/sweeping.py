"""The runs of a sweep: the values of one setting, the job of each, and a directory of its own
for each.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ensync.core.config.job import Job, load_job
from ensync.core.errors import EnsyncError

PLAIN = re.compile(
    r"[A-Za-z0-9._+-]{1,60}"
)  # values that are part of a directory's name as they are
LONGEST_NAME = 40  # characters of others, before the digest that tells them apart
BRACKETS = {"[": 1, "{": 1, "]": -1, "}": -1}


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


def split_values(text: str) -> list[str]:
    """Return the values of "V1,V2,...": commas within brackets and quotes, as TOML has them, belong
    to a value.

    Errors: EnsyncError when a bracket or quote is not closed.
    """
    values, depth, quote, escaped = [""], 0, "", False
    for character in text:
        if not quote:
            depth += BRACKETS.get(character, 0)
        if character == "," and not quote and depth == 0:
            values.append("")
            continue
        values[-1] += character
        if character in "\"'" and not escaped and quote in ("", character):
            quote = "" if quote else character
        escaped = character == "\\" and quote == '"' and not escaped
    if quote or depth:
        raise EnsyncError(
            f"--over ...={text}",
            "values with their brackets and quotes closed",
            "write for example --over 'network.hidden=[64,32],[32]'",
        )
    return [value.strip() for value in values]


def safe_name(text: str) -> str:
    """Return a part of a file's name for a value: as it is, or what letters and digits it has,
    and a digest.
    """
    if PLAIN.fullmatch(text):
        return text
    letters = re.sub(r"[^A-Za-z0-9._+-]+", "_", text).strip("_")[:LONGEST_NAME]
    return f"{letters or 'value'}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
