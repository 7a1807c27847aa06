"""One job for each value of a setting, one after the other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ensync.core.config.job import Job
from ensync.core.fusion import OF_ONE
from ensync.core.signals import StopRequest
from ensync.mpi.world import Comm
from ensync.report.console import Console
from ensync.report.results import FusionFigures, Refused, Sweep, SweepRow
from ensync.runs import launch, lifecycle, results, session
from ensync.runs.header import show_place, show_run
from ensync.runs.parts import begin, is_there
from ensync.training.position import ends_of


def sweep_files(job: Job) -> list[Path]:
    """Return the files that a sweep writes beside its runs, of which this job is one."""
    return [
        Path(job.output.directory).parent / f"sweep.{kind}"
        for kind in ("json", "csv", "html", "png")
    ]


def sweep(
    comm: Comm,
    jobs: Sequence[tuple[object, Job]],
    key: str,
    console: Console,
    stop_request: StopRequest,
    resume: bool = False,
) -> Sweep | None:
    """Train one job for each value of the setting `key`; return the sweep on rank 0. Collective.

    resume: values that were begun before are continued, and those that are finished only tested.
    """
    launch.check_memory(comm, [(job, comm.size) for _, job in jobs])
    rows = []
    for number, (value, job) in enumerate(jobs):
        console.line()
        console.line(f"{key} = {value}", "bold")
        place = launch.prepare(comm, job)
        old = resume and is_there(comm, job)
        if not old:
            launch.take_directory(comm, job, console, [] if number else sweep_files(job))
        begun = begin(comm, job, place, console, stop_request, old)
        if number == 0:
            show_place(console, place)
        show_run(console, place, begun)
        try:
            row = _row(value, begun)
        except session.Stopped as stop:
            raise stop.of_part(f"{key} = {value}", "`ensync sweep --resume`") from None
        rows += [row] if row is not None else []
        place.loaders.close()
    if comm.rank:
        return None
    settings = jobs[0][1].model_dump(mode="json", exclude_none=True)
    return Sweep(key=key, rows=rows, job=settings)


def _row(value: object, begun: session.Session) -> SweepRow | None:
    """Train a value's run to its end and test it; return its row on rank 0. Collective."""
    trained = lifecycle.train(begun)
    evaluator = results.evaluator_of_session(trained)
    trained.console.line(f"training ended: {ends_of(evaluator.ended)}")
    figures = evaluator.fuse(trained.job.fusion.method if trained.plan.members > 1 else OF_ONE)
    lifecycle.close(trained)
    if figures is None:
        return None
    epochs = trained.state.history
    known = [accuracy for accuracy in evaluator.validation_accuracies if accuracy is not None]
    speeds = [record["samples_per_second"] for record in epochs]
    return SweepRow(
        value=value,
        test_accuracy=figures.accuracy if isinstance(figures, FusionFigures) else None,
        validation_accuracy=float(np.mean(known)) if known else None,
        seconds=sum(record["seconds"] for record in epochs) / max(trained.plan.members, 1),
        samples_per_second=float(np.mean(speeds)) if speeds else None,
        note=figures.refused if isinstance(figures, Refused) else "",
    )
