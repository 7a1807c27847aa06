"""Runs that were trained apart, as jobs of their own, put together: a sweep over a setting, or
the scaling over ranks.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.report.files import write_whole
from ensync.report.history import read_history
from ensync.report.page import write_sweep


class Scaled(TypedDict):
    """What a run reached on its ranks."""

    strategy: str
    ranks: int
    seconds: float
    test_accuracy: float | None
    speedup: NotRequired[float]
    efficiency: NotRequired[float]


SCALING_COLUMNS = ("strategy", "ranks", "seconds", "speedup", "efficiency", "test_accuracy")


def collect_sweep(key: str, runs: Sequence[Path]) -> dict[str, Path]:
    """Write sweep.json, .csv, .html and .png beside the runs, one row per run that has a result;
    return what is where.

    key: the setting that differs, "section.key". Errors: EnsyncError when no run has a result or
    the job has no such setting.
    """
    results = _results(runs, key)
    section, _, name = key.partition(".")
    if any(name not in result["job"].get(section, {}) for result in results.values()):
        raise EnsyncError(
            f"--over {key}", "a setting of the runs' job, or ranks", "see `ensync settings`"
        )
    rows = [_row(run, result, result["job"][section][name]) for run, result in results.items()]
    job = next(iter(results.values()))["job"]
    _refuse_other_sweep(runs[0].parent / "sweep.json", key)
    return write_sweep(
        runs[0].parent,
        {"format": "ensync-sweep", "version": 1, "key": key, "rows": rows, "job": job},
    )


def _refuse_other_sweep(path: Path, key: str) -> None:
    """Refuse to replace a sweep over another setting, which cannot be had again from these runs."""
    try:
        there = json.loads(path.read_bytes())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if there != key:
        raise EnsyncError(
            f"{path} is a sweep over {there!r:.80}",
            f"none, or one over {key}",
            "move it, or keep each sweep's runs in a directory of their own",
        )


def collect_scaling(runs: Sequence[Path]) -> dict[str, Path]:
    """Write scaling.json, .csv and .png beside the runs; return what is where.

    Each run's directory is named after its ranks, as in ranks_4. Speed-up is over one rank, or over
    the fewest ranks there are, taken as perfect. Errors: EnsyncError when no run has a result or a
    directory's name has no number.
    """
    from ensync.report import figures, style

    rows = [_scaled(run, result) for run, result in _results(runs).items()]
    for strategy in {row["strategy"] for row in rows}:
        _relate([row for row in rows if row["strategy"] == strategy])
    rows.sort(key=lambda row: (row["strategy"], row["ranks"]))
    directory = runs[0].parent
    paths = {"figures": directory / "scaling.json", "table": directory / "scaling.csv"}
    write_whole(
        paths["figures"],
        json.dumps({"format": "ensync-scaling", "version": 1, "rows": rows}, indent=1) + "\n",
    )
    write_whole(paths["table"], _csv(rows))
    series = {
        strategy: [row for row in rows if row["strategy"] == strategy]
        for strategy in sorted({row["strategy"] for row in rows})
    }
    return paths | {"plot": style.save_png(figures.scaling(series), directory / "scaling.png")}


def doubts(over: str, runs: Sequence[Path]) -> list[str]:
    """Return what a reader of the collection must know: runs left out, and other settings in
    which the runs differ.
    """
    results = _results(runs, over)
    said = []
    if left := [str(run) for run in runs if run not in results]:
        said.append(
            f"{len(left)} of {len(runs)} runs left out, without a result.json: "
            f"{', '.join(left[:5])}" + (" ..." if len(left) > 5 else "")
        )
    jobs = [_flat(result["job"]) for result in results.values()]
    names = sorted(
        {name for job in jobs for name in job}
        - {over, "output.directory"}
        - ({"training.strategy"} if over == "ranks" else set())
    )
    if others := [
        name for name in names if any(job.get(name) != jobs[0].get(name) for job in jobs)
    ]:
        said.append(
            f"the runs differ in more than {over}: {', '.join(others[:5])}"
            + (" ..." if len(others) > 5 else "")
        )
    return said


def _flat(job: Mapping) -> dict[str, object]:
    return {
        f"{section}.{key}": value
        for section, settings in job.items()
        for key, value in settings.items()
    }


def _results(runs: Sequence[Path], key: str = "") -> dict[Path, Mapping]:
    """Return the result of each run that has one; EnsyncError when none has, or when they are of
    several datasets and `key` is no setting of data.
    """
    read = {run: _result(run / "result.json") for run in runs}
    found = {run: result for run, result in read.items() if result is not None}
    if not found:
        raise EnsyncError(
            f"no result.json in {', '.join(map(str, runs)) or 'nothing'}",
            "directories of finished runs",
            "see the runs' logs",
        )
    first: dict[str, Path] = {}  # run of each dataset; results of before do not name theirs
    for run, result in found.items():
        if "dataset" in result:
            first.setdefault(str(result["dataset"]["fingerprint"]), run)
    if len(first) > 1 and not key.startswith("data."):
        one, other, *_ = first.values()
        raise EnsyncError(
            f"{one} and {other} were tested on different datasets",
            "runs that differ in one thing",
            "collect those on the same dataset",
        )
    return found


def _result(path: Path) -> Mapping | None:
    """Return the result at `path`, None when there is none."""
    try:
        result: Mapping = json.loads(path.read_bytes())
        if result["format"] == "ensync-result" and result["version"] == 1 and result["seconds"] > 0:
            return result
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise EnsyncError(
        f"{path} cannot be used", "the result of a run of this version", "train it again"
    )


def _row(run: Path, result: Mapping, value: object) -> dict[str, object]:
    speeds = [
        record["samples_per_second"]
        for record in read_history(run / "history.jsonl")
        if record.get("samples_per_second")
    ]
    return {
        "value": value,
        "test_accuracy": _accuracy(result),
        "validation_accuracy": _mean(result["validation_accuracy"]),
        "seconds": result["seconds"],
        "samples_per_second": float(np.mean(speeds)) if speeds else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _accuracy(result: Mapping) -> float | None:
    accuracy: float | None = next(iter(result["test"].values())).get("accuracy")
    return accuracy


def _scaled(run: Path, result: Mapping) -> Scaled:
    digits = run.name.rpartition("_")[2]
    if not digits.isdigit() or int(digits) == 0:
        raise EnsyncError(
            f"the directory {run}",
            "a name that ends in the number of ranks, such as ranks_4",
            "rename it",
        )
    return {
        "strategy": result["job"]["training"]["strategy"],
        "ranks": int(digits),
        "seconds": result["seconds"],
        "test_accuracy": _accuracy(result),
    }


def _relate(rows: list[Scaled]) -> None:
    """Fill in speed-up and efficiency."""
    fewest = min(rows, key=lambda row: row["ranks"])
    for row in rows:
        row["speedup"] = fewest["ranks"] * fewest["seconds"] / row["seconds"]
        row["efficiency"] = row["speedup"] / row["ranks"]


def _csv(rows: Sequence[Mapping]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, SCALING_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
