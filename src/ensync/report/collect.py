"""Collect runs that were trained as jobs of their own into a sweep over a setting, or into a
scaling over ranks.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from ensync.core.errors import EnsyncError, plural
from ensync.report.export import write_scaling, write_sweep
from ensync.report.history import read_history
from ensync.report.results import (
    DatasetFacts,
    FusionFigures,
    Machine,
    RunResult,
    Scaling,
    ScalingRow,
    Settings,
    Sweep,
    SweepRow,
    TestedOn,
    from_json,
    with_speedup,
)


def collect_sweep(key: str, runs: Sequence[Path]) -> dict[str, Path]:
    """Write sweep.json, .csv, .html and .png beside the runs, one row per run that has a result;
    return what is where.

    key: the setting that differs, "section.key". Errors: EnsyncError when no run has a result or
    the job has no such setting.
    """
    results = _results(runs, key)
    section, _, name = key.partition(".")
    if any(name not in result.job.get(section, {}) for result in results.values()):
        raise EnsyncError(
            f"--over {key}", "a setting of the runs' job, or ranks", "see `ensync settings`"
        )
    rows = [_row(run, result, result.job[section][name]) for run, result in results.items()]
    first = next(iter(results.values()))
    _refuse_other_sweep(runs[0].parent / "sweep.json", key)
    found = Sweep(key=key, rows=rows, job=first.job, **_made(first))
    return write_sweep(runs[0].parent, found)


class _Made(TypedDict):
    """When, where, with and on what a run was made, as far as its result says."""

    created: str
    versions: dict[str, str]
    machine: Machine
    dataset: DatasetFacts


def _made(result: RunResult) -> _Made:
    data = result.dataset or TestedOn()
    return {
        "created": result.created,
        "versions": result.versions,
        "machine": result.machine or Machine(),
        "dataset": DatasetFacts(data.name, data.path, fingerprint=data.fingerprint),
    }


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
    """Write scaling.json, .csv, .html and .png beside the runs; return what is where.

    Each run's directory is named after its ranks, as in ranks_4. Speed-up is over one rank, or over
    the fewest ranks there are, taken as perfect. Errors: EnsyncError when no run has a result or a
    directory's name has no number.
    """
    results = _results(runs)
    found = [_scaled(run, result) for run, result in results.items()]
    rows = []
    for strategy in sorted({row.strategy for row in found}):
        of_strategy = [row for row in found if row.strategy == strategy]
        of_strategy.sort(key=lambda row: row.ranks)
        rows += with_speedup(of_strategy, of_strategy[0])
    _, most = max(zip(found, results.values(), strict=True), key=lambda each: each[0].ranks)
    return write_scaling(runs[0].parent, Scaling(rows=rows, job=most.job, **_made(most)))


def doubts(over: str, runs: Sequence[Path]) -> list[str]:
    """Return what a reader of the collection must know: runs left out, and other settings in
    which the runs differ.
    """
    results = _results(runs, over)
    said = []
    if left := [str(run) for run in runs if run not in results]:
        said.append(
            f"{len(left)} of {plural(len(runs), 'run')} left out, without a result.json: "
            f"{', '.join(left[:5])}" + (" ..." if len(left) > 5 else "")
        )
    jobs = [_flat(result.job) for result in results.values()]
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


def _flat(job: Settings) -> dict[str, object]:
    return {
        f"{section}.{key}": value
        for section, settings in job.items()
        for key, value in settings.items()
    }


def _results(runs: Sequence[Path], key: str = "") -> dict[Path, RunResult]:
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
        if result.dataset is not None:
            first.setdefault(result.dataset.fingerprint, run)
    if len(first) > 1 and not key.startswith("data."):
        one, other, *_ = first.values()
        raise EnsyncError(
            f"{one} and {other} were tested on different datasets",
            "runs that differ in one thing",
            "collect those on the same dataset",
        )
    return found


def _result(path: Path) -> RunResult | None:
    """Return the result at `path`, None when there is none."""
    try:
        result = from_json(RunResult, json.loads(path.read_bytes()))
        if result.format == "ensync-result" and result.version == 1 and result.seconds > 0:
            return result
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        pass
    raise EnsyncError(
        f"{path} cannot be used", "the result of a run of this version", "train it again"
    )


def _row(run: Path, result: RunResult, value: object) -> SweepRow:
    speeds = [
        record["samples_per_second"]
        for record in read_history(run / "history.jsonl")
        if record.get("samples_per_second")
    ]
    return SweepRow(
        value=value,
        test_accuracy=_accuracy(result),
        validation_accuracy=_mean(result.validation_accuracy),
        seconds=result.seconds,
        samples_per_second=float(np.mean(speeds)) if speeds else None,
        test_images=_images(result),
        oversubscribed=result.machine is not None and result.machine.oversubscribed,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _accuracy(result: RunResult) -> float | None:
    figures = next(iter(result.test.values()))
    return figures.accuracy if isinstance(figures, FusionFigures) else None


def _images(result: RunResult) -> int | None:
    """Return the number of test images, None where it is not known."""
    figures = next(iter(result.test.values()))
    return figures.rows or None if isinstance(figures, FusionFigures) else None


def _scaled(run: Path, result: RunResult) -> ScalingRow:
    digits = run.name.rpartition("_")[2]
    if not digits.isdigit() or int(digits) == 0:
        raise EnsyncError(
            f"the directory {run}",
            "a name that ends in the number of ranks, such as ranks_4",
            "rename it",
        )
    return ScalingRow(
        strategy=str(result.job["training"]["strategy"]),
        ranks=int(digits),
        seconds=result.seconds,
        test_accuracy=_accuracy(result),
        test_images=_images(result),
        oversubscribed=result.machine is not None and result.machine.oversubscribed,
    )
