"""One job for each value of a setting, one after the other."""

import datetime
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ensync.core.config.job import Job, plain_settings
from ensync.core.fusion import OF_ONE
from ensync.core.signals import StopRequest
from ensync.mpi.world import Comm, mpi_description
from ensync.report.console import Console
from ensync.report.results import FusionFigures, Refused, Sweep, SweepRow
from ensync.runs import launch, lifecycle, results
from ensync.runs.header import show_place, show_run
from ensync.runs.planned import PlannedRun, Study, check_memory
from ensync.runs.session import Session
from ensync.runs.stopped import Stopped
from ensync.training.position import ends_of


def sweep_files(directory: Path) -> list[Path]:
    """Return the files that a sweep writes into a directory, beside those of its runs."""
    return [directory / f"sweep.{kind}" for kind in ("json", "csv", "html", "png")]


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
    study = Study(comm, console, stop_request, resume)
    runs = [PlannedRun(job, comm) for _, job in jobs]
    check_memory(comm, runs)
    rows, places = [], []
    for number, (value, _) in enumerate(jobs):
        console.line()
        console.line(f"{key} = {value}", "bold")
        run = runs[number]
        place = run.prepare(comm, partial(run.open, comm))
        continued = run.is_continued(study)
        if not continued:
            files = [] if number else sweep_files(run.directory.parent)
            run.take_directory(comm, console, files)
        session = run.begin(study, place.loaders, continued)
        if number == 0:
            show_place(console, place)
        show_run(console, place, session)
        places.append((launch.machine_of(comm, place.threads), launch.facts_of(place.loaders)))
        try:
            row = _row(value, session)
        except Stopped as stop:
            raise stop.of_part(f"{key} = {value}", "`ensync sweep --resume`") from None
        beyond = places[-1][0].oversubscribed
        rows += [replace(row, oversubscribed=beyond)] if row is not None else []
        place.loaders.close()
    if comm.rank:
        return None
    machine, dataset = places[0]
    return Sweep(
        key=key,
        rows=rows,
        job=plain_settings(jobs[0][1]),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=launch.versions() | {"MPI": mpi_description()},
        machine=machine,
        dataset=dataset,
    )


def _row(value: object, session: Session) -> SweepRow | None:
    """Train a value's run to its end and test it; return its row on rank 0. Collective."""
    trained = lifecycle.train(session)
    evaluator = results.evaluator_of_session(trained)
    trained.console.line(f"training ended: {ends_of(evaluator.ended)}")
    figures = evaluator.fuse(trained.job.fusion.method if trained.mesh.members > 1 else OF_ONE)
    lifecycle.close(trained)
    if figures is None:
        return None
    epochs = trained.state.history
    known = [accuracy for accuracy in evaluator.validation_accuracies if accuracy is not None]
    speeds = [record["samples_per_second"] for record in epochs]
    images = len(trained.loaders.validation) if len(known) == 1 else None  # of a mean there is none
    return SweepRow(
        value=value,
        test_accuracy=figures.accuracy if isinstance(figures, FusionFigures) else None,
        validation_accuracy=float(np.mean(known)) if known else None,
        seconds=sum(record["seconds"] for record in epochs) / max(trained.mesh.members, 1),
        samples_per_second=float(np.mean(speeds)) if speeds else None,
        note=figures.refused if isinstance(figures, Refused) else "",
        test_images=figures.rows if isinstance(figures, FusionFigures) else None,
        validation_images=images,
    )
