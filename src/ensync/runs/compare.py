"""One job, both strategies and the one-rank baseline, on the same data and seeds at equal
epochs.
"""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ensync.core.config.job import Job
from ensync.core.errors import EnsyncError
from ensync.core.fusion import FUSIONS, OF_ONE
from ensync.core.signals import StopRequest
from ensync.mpi.allreduce import Allreduce, sum_counts
from ensync.mpi.world import Comm, alone, mpi_description, patient_barrier, share
from ensync.report.console import Console
from ensync.runs import launch, results, session
from ensync.runs import lifecycle as course
from ensync.runs.header import show_place, show_run
from ensync.runs.parts import begin, is_there
from ensync.training.position import ends_of

MEASURED = [
    "Seconds count training steps and the validation after each epoch; compiling kernels, "
    "loading the dataset, writing checkpoints and the test are left out.",
    "Sent counts the bytes that all ranks hand to their sums: gradients of every step, and the "
    "members' votes or parameters.",
    "All rows have the same data, seeds, epochs and threads per rank; the test images play no "
    "part in training or in the choice of weights.",
]


def variant(job: Job, name: str, strategy: str) -> Job:
    """Return the job with another strategy and a directory of its own below the job's."""
    directory = str(Path(job.output.directory) / name.replace(" ", "_"))
    return job.model_copy(
        update={
            "training": job.training.model_copy(update={"strategy": strategy}),
            "output": job.output.model_copy(update={"directory": directory}),
        }
    )


def parts(job: Job, ranks: int) -> dict[str, Job]:
    """Return the jobs of a comparison on so many ranks, by their names."""
    names = ["one rank", *["synchronous"] * (ranks > 1), "ensemble"]
    return {
        name: variant(job, name, "ensemble" if name == "ensemble" else "synchronous")
        for name in names
    }


def page_files(job: Job) -> list[Path]:
    """Return the files that a comparison writes beside the runs of its parts."""
    return [Path(job.output.directory) / f"comparison.{kind}" for kind in ("json", "csv", "html")]


def sweep_files(job: Job) -> list[Path]:
    """Return the files that a sweep writes beside its runs, of which this job is one."""
    return [
        Path(job.output.directory).parent / f"sweep.{kind}"
        for kind in ("json", "csv", "html", "png")
    ]


def compare(
    comm: Comm, job: Job, console: Console, stop_request: StopRequest, resume: bool = False
) -> dict[str, Any] | None:
    """Train the job on one rank, synchronously and as an ensemble; return the comparison on rank 0
    (report/page.py). Collective.

    resume: parts that were begun before are continued, and those that are finished only tested.
    """
    console.line("preparing: dataset, kernels of both strategies")
    launch.check_memory(
        comm,
        [
            (each, 1 if name == "one rank" else comm.size)
            for name, each in parts(job, comm.size).items()
        ],
    )
    place = launch.prepare(comm, job)
    if not len(place.loaders.test):
        raise EnsyncError(
            f"a comparison on {job.data.path}, which has no test images",
            "a test split to compare by",
            "prepare the dataset with a test split (`ensync data prepare --help`), or `ensync "
            "train` each strategy and look at the validation accuracy",
        )
    show_place(console, place)
    comparison = _empty(place, job)
    predictions: dict[str, np.ndarray] = {}
    variants = parts(job, comm.size)
    old = {name for name, each in variants.items() if resume and is_there(comm, each)}
    for (
        name,
        each,
    ) in variants.items():  # before any of them is trained: all ranks hear of a disk that refuses
        if name not in old:
            launch.take_directory(comm, each, console, page_files(job))
    for name, each in variants.items():
        ranks = alone() if name == "one rank" else comm
        stopped = None
        if name != "one rank" or comm.rank == 0:
            try:
                _one(
                    ranks,
                    each,
                    place,
                    console,
                    stop_request,
                    name,
                    comparison,
                    predictions,
                    name in old,
                )
            except session.Stopped as stop:
                stopped = stop.of_part(
                    f"the part '{name}' of the comparison", "`ensync compare --resume`"
                )
        patient_barrier(comm)
        if heard := [stop for stop in share(comm, stopped) if stop is not None]:
            raise heard[0]
    labels = place.loaders.test.labels
    place.loaders.close()
    if comm.rank:
        return None
    _relate(comparison, predictions, labels)
    return comparison


def _one(
    comm: Comm,
    job: Job,
    place: launch.Place,
    console: Console,
    stop_request: StopRequest,
    name: str,
    comparison: dict[str, Any],
    predictions: dict[str, np.ndarray],
    resume: bool,
) -> None:
    """Train and judge one row (or the ensemble's rows) of the comparison. Collective over comm."""
    console.line()
    console.line(f"{name}: {comm.size} rank{'s' * (comm.size > 1)}", "bold")
    begun = begin(comm, job, place, console, stop_request, resume)
    show_run(console, place, begun)
    trained = course.train(begun)
    seconds = trained.elapsed
    allreduce = next(iter(trained.trainers.values())).allreduce
    assert isinstance(allreduce, Allreduce)
    sent = int(sum_counts(comm, np.array([allreduce.bytes]))[0])
    evaluator = results.evaluator_of_session(trained)
    console.line(f"training ended: {ends_of(evaluator.ended)}")
    fused = {
        method: evaluator.fuse(method) for method in (FUSIONS if name == "ensemble" else [OF_ONE])
    }
    growth = _by_members(evaluator) if name == "ensemble" else {}
    if comm.rank == 0:
        comparison["histories"][name] = trained.state.history
        comparison["accuracy_by_members"] |= growth
        for method, figures in fused.items():
            assert figures is not None, "rank 0 has the figures"
            row = name if name != "ensemble" else f"ensemble: {FUSIONS[method].label}"
            comparison["rows"].append(
                _row(row, trained, evaluator, method, figures, seconds, sent)
                | (_of_several_starts(figures) if resume else {})
            )
            if "confusion" in figures:
                comparison["confusions"][row] = figures["confusion"]
                predictions[row] = evaluator.predictions[method]
    course.close(trained)


def _row(
    name: str,
    trained: session.Session,
    evaluator: results.EnsembleEvaluator,
    method: str,
    figures: Mapping[str, Any],
    seconds: float,
    sent: int,
) -> dict[str, Any]:
    ensemble = trained.job.training.strategy == "ensemble"
    left_out = [f"member {m} left out: {why}" for m, why in evaluator.test.excluded.items()]
    return {
        "name": name,
        "strategy": trained.job.training.strategy,
        "fusion": method if ensemble else None,
        "ranks": trained.comm.size,
        "members": trained.plan.members,
        "test_accuracy": figures.get("accuracy"),
        "test_loss": figures.get("loss"),
        "macro_f1": figures.get("macro_f1"),
        "weighted_f1": figures.get("weighted_f1"),
        "top_k": figures.get("top_k"),
        "seconds": seconds,
        "ended": list(evaluator.ended.values()),
        "speedup": None,
        "efficiency": None,
        "bytes_sent": sent + (evaluator.sent.get(method, 0) if ensemble else 0),
        "note": "; ".join([figures["refused"]] if "refused" in figures else left_out),
    }


def _of_several_starts(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row tells otherwise when an earlier start has trained some or all of it."""
    return {
        "bytes_sent": None,
        "note": "; ".join(
            [
                *filter(None, [figures.get("refused")]),
                "continued: seconds are of several starts, the bytes sent by earlier ones unknown",
            ]
        ),
    }


def _by_members(evaluator: results.EnsembleEvaluator) -> dict[str, list[float]]:
    """Return the test accuracy of the first 1, 2, ... members fused, for each kind of voting; on
    rank 0. Collective.
    """
    growth: dict[str, list[float]] = {}
    if not evaluator.test.present:
        return growth
    counts = [m + 1 for m in evaluator.test.present]
    for method in (name for name, fusion in FUSIONS.items() if fusion.weighs_alike):
        found = [evaluator.fuse(method, upto) for upto in counts]
        growth[method] = [f["accuracy"] for f in found if f is not None]
    return growth


def _relate(
    comparison: dict[str, Any], predictions: dict[str, np.ndarray], labels: np.ndarray
) -> None:
    """Fill what relates rows to each other: speed-up over one rank, and who is right where the
    other is wrong.
    """
    base = comparison["rows"][0]["seconds"]
    for row in comparison["rows"]:
        row["speedup"] = base / row["seconds"]
        row["efficiency"] = row["speedup"] / row["ranks"]
    right = {name: predicted == labels for name, predicted in predictions.items()}
    names = list(right)
    comparison["paired"] = [
        {
            "rows": [a, b],
            "only_first": int((right[a] & ~right[b]).sum()),
            "only_second": int((right[b] & ~right[a]).sum()),
        }
        for i, a in enumerate(names)
        for b in names[i + 1 :]
    ]


def _empty(place: launch.Place, job: Job) -> dict[str, Any]:
    dataset = place.loaders.dataset
    return {
        "format": "ensync-comparison",
        "version": 1,
        "job": job.model_dump(mode="json", exclude_none=True),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": launch.versions() | {"MPI": mpi_description()},
        "machine": {
            "cpu": launch.cpu_name(),
            "nodes": place.topology.nodes,
            "ranks": place.topology.size,
            "threads_per_rank": place.threads,
        },
        "dataset": {
            "name": dataset.name,
            "path": job.data.path,
            "sizes": dict(dataset.sizes),
            "shape": list(dataset.shape),
            "fingerprint": dataset.fingerprint,
        },
        "class_names": list(dataset.class_names),
        "measured": MEASURED,
        "rows": [],
        "histories": {},
        "confusions": {},
        "accuracy_by_members": {},
        "paired": [],
    }


def sweep(
    comm: Comm,
    jobs: list[tuple[Any, Job]],
    key: str,
    console: Console,
    stop_request: StopRequest,
    resume: bool = False,
) -> dict[str, Any] | None:
    """Train one job per value of a setting, one after the other; return the sweep on rank 0
    (report/page.py). Collective.

    resume: values that were begun before are continued, and those that are finished only tested.
    """
    rows: list[dict[str, Any]] = []
    launch.check_memory(comm, [(each, comm.size) for _, each in jobs])
    for value, job in jobs:
        console.line()
        console.line(f"{key} = {value}", "bold")
        place = launch.prepare(comm, job)
        old = resume and is_there(comm, job)
        if not old:
            launch.take_directory(comm, job, console, sweep_files(job) if not rows else [])
        begun = begin(comm, job, place, console, stop_request, old)
        if not rows:
            show_place(console, place)
        show_run(console, place, begun)
        try:
            trained = course.train(begun)
        except session.Stopped as stop:
            raise stop.of_part(f"{key} = {value}", "`ensync sweep --resume`") from None
        evaluator = results.evaluator_of_session(trained)
        console.line(f"training ended: {ends_of(evaluator.ended)}")
        method = job.fusion.method if trained.plan.members > 1 else OF_ONE
        figures = evaluator.fuse(method)
        if figures is not None:
            rows.append(_sweep_row(value, trained, evaluator, figures))
        course.close(trained)
        place.loaders.close()
    return (
        {
            "format": "ensync-sweep",
            "version": 1,
            "key": key,
            "rows": rows,
            "job": jobs[0][1].model_dump(mode="json", exclude_none=True),
        }
        if comm.rank == 0
        else None
    )


def _sweep_row(
    value: Any,
    trained: session.Session,
    evaluator: results.EnsembleEvaluator,
    figures: Mapping[str, Any],
) -> dict[str, Any]:
    epochs = trained.state.history
    seconds = sum(r["seconds"] for r in epochs) / max(trained.plan.members, 1)
    known = [accuracy for accuracy in evaluator.validation_accuracies if accuracy is not None]
    return {
        "value": value,
        "test_accuracy": figures.get("accuracy"),
        "validation_accuracy": float(np.mean(known)) if known else None,
        "seconds": seconds,
        "samples_per_second": float(np.mean([r["samples_per_second"] for r in epochs]))
        if epochs
        else None,
        "note": figures.get("refused", ""),
    }
