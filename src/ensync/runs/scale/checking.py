"""Runs beside what was predicted of them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensync.core.config.communication import ALL, Communication
from ensync.core.errors import EnsyncError
from ensync.core.scaling.prediction import Contestant, Model
from ensync.report.history import read_history
from ensync.report.results import RunResult, from_json
from ensync.report.scale_results import CheckRow, ScaleResult

FILE = "scale.json"
# Settings that a step's time depends on: sections, and single settings.
ALIKE = ("network", "augmentation", "lookahead", "parallel")
CHANGING = ("growth", "start", "start_accuracy")  # of communication: steps of two kinds
ALIKE_SETTINGS = (
    ("training", "batch"),
    ("training", "slice"),
    ("training", "precision"),
    ("training", "loss"),
    ("optimizer", "name"),
    ("growth", "batch"),
    ("communication", "overlap"),
)


def read_prediction(path: Path) -> ScaleResult:
    """Return a prediction, of which the file or its directory is given. Errors: EnsyncError."""
    file = path / FILE if path.is_dir() else path
    why = "there is none"
    if file.is_file():
        try:
            content = json.loads(file.read_bytes())
            if (content["format"], content["version"]) == ("ensync-scale", 1):
                return from_json(ScaleResult, content)
            why = f"it has version {content['version']!r:.20} of {content['format']!r:.40}"
        except (OSError, ValueError, LookupError, TypeError) as error:
            why = type(error).__name__
    raise EnsyncError(
        f"no prediction can be read from {file} ({why})",
        "the scale.json that `ensync scale JOB.toml` wrote, of this version",
        "write one before the run, or name its directory with --prediction",
    )


def prediction_of(run: Path, given: str | None) -> ScaleResult:
    """Return the prediction for a run: the given one, or that in its directory or the one above.
    Errors: EnsyncError.
    """
    if given is not None:
        return read_prediction(Path(given))
    above = run.parent
    return read_prediction(
        above if (above / FILE).is_file() and not (run / FILE).is_file() else run
    )


def check(run: Path, prediction: ScaleResult) -> CheckRow:
    """Return a trained run beside its prediction. Errors: EnsyncError where it is no finished run,
    or of another job.
    """
    result = _result_of(run)
    refuse_other(run, prediction.job, result.job)
    machine, model = result.machine, Model(prediction.calibration)
    if machine is None or not machine.ranks:
        raise EnsyncError(
            f"{run}, whose result does not say where it was trained",
            "a run of this version",
            "train it again",
        )
    contestant = contestant_of(run, result)
    launched = machine.threads_per_rank or prediction.calibration.threads
    threads = 0 if launched == prediction.calibration.threads else launched
    on_node = -(-machine.ranks // (machine.nodes or 1))
    known = (not threads or threads in model.curves) and contestant.compression in (
        "",
        prediction.calibration.compression,
    )
    found = model.predict(contestant, machine.ranks, threads, on_node) if known else None
    if found is None:
        raise EnsyncError(
            f"{run}, {contestant.label} on {machine.ranks} ranks x {launched} threads of "
            f"{machine.nodes} nodes, of which the prediction knows nothing",
            "ranks, threads and sums that were measured",
            "calibrate this very job on as many ranks of a node, or give --latency and --bandwidth",
        )
    step, epochs = measured_step(run)
    return CheckRow(
        run=run.name,
        label=contestant.label,
        ranks=machine.ranks,
        nodes=machine.nodes or 1,
        threads=launched,
        predicted=found.step,
        measured=step,
        error=found.step / step - 1,
        predicted_bytes=found.bytes * epochs,
        measured_bytes=result.bytes_sent,
    )


def _result_of(run: Path) -> RunResult:
    try:
        return from_json(RunResult, json.loads((run / "result.json").read_bytes()))
    except (OSError, ValueError) as error:
        raise EnsyncError(
            f"no result can be read from {run}/result.json ({type(error).__name__})",
            "the output.directory of a run that is finished",
            "train it to its end first",
        ) from None


def refuse_other(run: Path, predicted: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    """Refuse a run whose steps are other ones than those that were predicted."""
    pairs = [(name, predicted.get(name), trained.get(name)) for name in ALIKE]
    pairs += [
        (f"{section}.{name}", predicted.get(section, {}).get(name), trained[section].get(name))
        for section, name in ALIKE_SETTINGS
        if section in trained
    ]
    for name, before, after in pairs:
        if before != after:
            raise EnsyncError(
                f"{run}, whose {name} is not that of the prediction",
                "a run of the job that was predicted",
                "predict its own job, or name another with --prediction",
            )


def contestant_of(run: Path, result: RunResult) -> Contestant:
    """Return how a run used its ranks. Errors: EnsyncError for what is not predicted."""
    training, given = result.job["training"], Communication(**result.job.get("communication", {}))
    ranks = result.machine.ranks if result.machine else 1
    apart = training["strategy"] == "ensemble"
    if apart and result.job["ensemble"]["members"] not in (0, ranks):
        raise EnsyncError(
            f"{run}, whose members are not as many as its ranks",
            "one network, or one for each rank",
            "leave it out",
        )
    if given.is_served:
        raise EnsyncError(
            f"{run}, whose gradients went to a server",
            "a run with communication.server = 'none'",
            "leave it out",
        )
    if apart:
        return Contestant("apart")
    changing = [name for name in CHANGING if getattr(given, name)]
    changing += ["compression_start"] * (given.whole_before > 0)
    if changing:
        raise EnsyncError(
            f"{run}, whose steps are of another kind, or of two (communication.{changing[0]})",
            f"a run with communication.{changing[0]} at 0 or false",
            "leave it out",
        )
    every = math.inf if isinstance(given.every, str) else given.every
    compression = given.compression if given.compresses else ""
    if given.partners != ALL:
        return Contestant("gossip", every)
    return Contestant("local SGD" if every > 1 else "synchronous", every, compression)


def measured_step(run: Path) -> tuple[float, int]:
    """Return the seconds of a step of a run, the mean over its members and its epochs, without the
    first of several, which touches memory and links for the first time; and how many epochs it
    had. Errors: EnsyncError without any.
    """
    records: Sequence[Mapping[str, Any]] = read_history(run / "history.jsonl")
    epochs = max((record["epoch"] for record in records), default=0)
    if not epochs:
        raise EnsyncError(
            f"{run}/history.jsonl has no epoch", "a run of one epoch at least", "train it first"
        )
    first = 1 if epochs == 1 else 2
    before: dict[int, int] = {}
    seconds, steps = 0.0, 0
    for record in sorted(records, key=lambda each: each["epoch"]):
        member = record.get("member", 0)
        if record["epoch"] >= first:
            seconds += record["seconds"]
            steps += record["step"] - before.get(member, 0)
        before[member] = record["step"]
    return seconds / max(steps, 1), epochs
