"""The runs that lie in a directory, as a comparison, a sweep or a study leaves them. No MPI."""

import json
import os
import shlex
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ensync.core.config.job import Tables
from ensync.core.errors import EnsyncError
from ensync.report import text
from ensync.report.history import readable_records
from ensync.report.results import RunResult, from_json
from ensync.storage.checkpoint import checkpoints, position_of
from ensync.storage.lock import describe_holder

DEEPEST = 4  # directories between a study's and a cell's of it, the cell's included
WITHIN = ("checkpoints", "cells")  # directories in that of a run or study, which verbs name, too
RESULTS = (".json", ".jsonl", ".csv", ".html", ".png", ".md", ".tex")
BESIDE = (*RESULTS, ".onnx", ".safetensors", ".pt", ".py")  # what verbs write, and name
TAKE_ONE = "describe, evaluate, export, fuse, predict and resume take one run"


class Choice(NamedTuple):
    """The run that a path stands for; lines to be told of it, and the refusal where it stands for
    several.
    """

    path: str
    lines: Sequence[str] = ()
    refusal: EnsyncError | None = None


@dataclass(frozen=True)
class Summary:
    """What a run is, as far as its files tell; "-" for what they do not."""

    path: Path
    strategy: str
    ranks: str
    members: str
    epochs: str
    state: str

    @property
    def cells(self) -> list[str]:
        """Return the cells of its line in a table."""
        return [
            str(self.path),
            self.strategy,
            self.ranks,
            self.members,
            self.epochs,
            self.state,
        ]


def directory_of(path: Path) -> Path:
    """Return the directory that a path stands for: that of a run or study whose result, page,
    checkpoints or cells it is; the path itself where it is another.
    """
    beside = path.suffix in BESIDE and path.is_file()
    return path.parent if beside or (path.name in WITHIN and path.is_dir()) else path


def choose(given: str, verb: str) -> Choice:
    """Return the run that `given` stands for: itself, or the only one that lies in it. Where there
    are several, a list of them and the refusal, which names them with `verb`.
    """
    path = directory_of(Path(given))
    if checkpoints(path / "checkpoints"):
        return Choice(str(path))
    runs = runs_below(path)
    if len(runs) > 1:
        return Choice(str(path), listed(runs), _several(path, runs, verb))
    if runs:
        return Choice(str(runs[0]), [f"'{path}' holds one run, which is taken: {runs[0]}"])
    return Choice(given)


def runs_below(directory: Path, depth: int = DEEPEST) -> list[Path]:
    """Return the directories with checkpoints of a run, up to `depth` below a directory, sorted."""
    found = []
    for child in _subdirectories(directory):
        if checkpoints(child / "checkpoints"):
            found.append(child)
        if depth > 1:
            found += runs_below(child, depth - 1)
    return found


def _subdirectories(directory: Path) -> list[Path]:
    """Return those that may hold runs; none of a directory that cannot be read."""
    with suppress(OSError), os.scandir(directory) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if entry.is_dir() and entry.name != "checkpoints" and not entry.name.startswith(".")
        )
    return []


def listed(runs: Sequence[Path]) -> list[str]:
    """Return the lines of a table of runs: what each is, and whether it is done."""
    heads = ["run", "strategy", "ranks", "members", "epochs", "state"]
    rows = [summary(run).cells for run in runs]
    kept = [n for n, _ in enumerate(heads) if any(row[n] != text.DASH for row in rows)]
    cells = [[line[n] for n in kept] for line in (heads, *rows)]
    return text.table(cells[0], cells[1:], left=(0, 1, len(kept) - 1))


def summary(run: Path) -> Summary:
    """Return what a run is, from its job, its history, its result and the names of its
    checkpoints. A comparison's runs have no result of their own.
    """
    result = _result(run)
    training = _training(run)
    saved = checkpoints(run / "checkpoints")
    ended = _ended(run)
    return Summary(
        run,
        str(training.get("strategy", text.DASH)),
        str(result.machine.ranks) if result and result.machine else text.DASH,
        str(len(ended) or text.DASH),
        f"{position_of(saved[-1]).epoch if saved else 0} of {training.get('epochs', text.DASH)}",
        _state(run, ended, training),
    )


def _state(run: Path, ended: Sequence[str], training: Tables) -> str:
    """Return whether a run is done, given why each member's training ended, "" where it has
    not. A resume with more epochs takes "all 2 epochs" back.
    """
    if holder := describe_holder(run):
        return f"in use by {holder}"
    name = "max_steps" if training.get("max_steps") else "epochs"
    length = training.get(name)
    count = f"{length:,}" if isinstance(length, int) else text.DASH
    whole = f"all {count} {'step' if name == 'max_steps' else 'epoch'}"
    done = [why and (not why.startswith("all ") or why.startswith(whole)) for why in ended]
    return "done" if ended and all(done) else "not done"


def _ended(run: Path) -> list[str]:
    """Return why the training of each member ended, "" where it has not, from its last record."""
    found = {}
    with suppress(EnsyncError):
        for record in readable_records(run / "history.jsonl")[0]:
            found[record.get("member")] = str(record.get("ended", ""))
    return list(found.values())


def _training(run: Path) -> Tables:
    """Return [training] of a run's job.toml, not checked; nothing where it cannot be read."""
    with suppress(OSError, ValueError):
        tables = tomllib.loads((run / "job.toml").read_text(encoding="utf-8"))
        if isinstance(training := tables.get("training"), dict):
            return training
    return {}


def _result(run: Path) -> RunResult | None:
    with suppress(OSError, ValueError):
        return from_json(RunResult, json.loads((run / "result.json").read_bytes()))
    return None


def _several(directory: Path, runs: Sequence[Path], verb: str) -> EnsyncError:
    """Return the refusal of a directory of several runs: which commands take which."""
    study = any((directory / name).exists() for name in ("study.json", "plan.json"))
    images = " IMAGE..." if verb == "predict" else ""
    place = shlex.quote(str(directory))
    return EnsyncError(
        f"'{directory}' holds {text.plural(len(runs), 'run')}",
        "the directory or a checkpoint of one of them, as listed",
        f"give for instance `ensync {verb} {shlex.quote(str(runs[0]))}{images}` ({TAKE_ONE}, "
        + (f"`ensync report {place}` takes the study" if study else "`ensync collect` several")
        + ")",
    )
