"""What a cell rests on: the code, the dataset and the job. Cells of a study have these alike, so
that their differences are those of the contestants and seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path

import ensync
from ensync.core.config.job import flat_settings
from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError, reason
from ensync.report.results import to_json
from ensync.runs.planned import FREE
from ensync.runs.study.cells import Cell
from ensync.runs.study.files import Refusal, read
from ensync.storage.atomic import write_atomically
from ensync.strategies import settled

NAME = "started.json"
OF_ORIGIN = Refusal(
    "what a cell of this version was started with",
    "remove the directory of this cell; --resume trains it again",
)
# Settings of [study] that change what a cell is, or what is known of it.
OF_CELLS = ("budget", "amount", "redraw_validation")
SHOWN = 3  # differences that an error names
LONGEST = 60  # characters of a value that it shows
SHOWING = ("cli", "report")  # packages that show results and change none


@dataclass(frozen=True)
class Origin:
    """What a cell was started with, started.json in its directory.

    code: sha256 of the sources (see code_sha256); dataset: its fingerprint; job: settings by their
    whole names, without those that change no result.
    """

    code: str
    dataset: str
    job: Mapping[str, object]
    format: str = "ensync-cell-start"
    version: int = 1


@cache
def code_sha256() -> str:
    """Return the sha256 of the sources that decide results: the path and the content of each file,
    but for packages that only show them.
    """
    return _digest(Path(ensync.__file__).parent)


def _digest(root: Path) -> str:
    found = sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if name.parts[0] not in SHOWING:
            content = path.read_bytes()
            found.update(f"{name} {len(content)}\n".encode())
            found.update(content)
    return found.hexdigest()


def origin_of(cell: Cell, study: Job, fingerprint: str) -> Origin:
    """Return what a cell of the study of this job rests on, on a dataset of this fingerprint."""
    settings = flat_settings(settled(cell.job, cell.ranks))
    kept = {
        name: value
        for name, value in settings.items()
        if name not in FREE and name.partition(".")[0] not in FREE
    }
    if cell.job.network.weights:
        kept["the content of network.weights"] = _content(Path(cell.job.network.weights))
    if study.study is not None:
        kept |= {f"study.{name}": getattr(study.study, name) for name in OF_CELLS}
    plain: dict[str, object] = json.loads(json.dumps(kept))
    return Origin(code_sha256(), fingerprint, plain)


def _content(path: Path) -> str:
    """Return the sha256 of a file; what cannot be read is refused where a cell starts from it."""
    try:
        with path.open("rb") as file:
            return f"sha256:{file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        return f"not readable, {reason(error)}"


def write_origin(directory: Path, origin: Origin) -> None:
    """Write it into the directory of a cell."""
    write_atomically(directory / NAME, [to_json(origin).encode()])


def read_origin(directory: Path) -> Origin | None:
    """Return what the cell in a directory was started with, None where nobody says so. Errors:
    EnsyncError where the file is not readable.
    """
    return read(Origin, directory / NAME, OF_ORIGIN)


def check_origin(directory: Path, there: Origin | None, now: Origin) -> None:
    """Refuse a cell in a directory that rests on something else than now. Errors: EnsyncError
    with what differs.
    """
    if found := differences(there, now):
        more = f" and {len(found) - SHOWN} more" * (len(found) > SHOWN)
        raise EnsyncError(
            f"the cell '{directory}' was started with {'; '.join(found[:SHOWN])}{more}",
            "cells of one code, dataset and job in a study",
            "keep it by giving --set output.directory=DIR, or delete all cells with --overwrite",
        )


def differences(there: Origin | None, now: Origin) -> list[str]:
    """Return in words where two origins differ."""
    if there is None:
        return ["nobody knows which code, dataset and job"]
    found = []
    if there.dataset != now.dataset:
        found.append(f"another dataset ({there.dataset:.20}, and this one is {now.dataset:.20})")
    for name in sorted({**there.job, **now.job}):
        old, new = there.job.get(name), now.job.get(name)
        if old != new:
            found.append(f"{name} = {_shown(old)}, and this one has {_shown(new)}")
    if there.code != now.code:
        found.append(f"other sources of Ensync ({there.code:.12}, and these are {now.code:.12})")
    return found


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
