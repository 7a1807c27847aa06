"""`ensync scale`: measure for a minute, predict, and later compare with real runs."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ensync.core.config.job import load_job, plain_settings, without_study
from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.core.scaling.advice import together
from ensync.core.scaling.noise import NoiseScale
from ensync.core.scaling.prediction import Contestant, Model
from ensync.core.signals import leaving_at_once
from ensync.kernels import threads
from ensync.mpi.world import Comm, mpi_description, on_root, share
from ensync.report.console import Console, make_console
from ensync.report.scale_files import write_scale
from ensync.report.scale_results import CheckRow, ScaleResult
from ensync.report.scale_tables import scale_lines
from ensync.report.text import plural
from ensync.runs import launch
from ensync.runs.header import show_place
from ensync.runs.memory import Need, need_of
from ensync.runs.planned import PlannedRun
from ensync.runs.scale import outcome
from ensync.runs.scale.calibration import Wanted, calibrate, most_threads
from ensync.runs.scale.checking import check, prediction_of
from ensync.runs.scale.compression import with_compression
from ensync.runs.scale.noise import measure_noise
from ensync.runs.scale.overlap import with_overlap
from ensync.runs.scale.steps import Bench, build, roomy, synchronous_form
from ensync.storage.dataset import open_dataset
from ensync.storage.lock import confirm

SHARE_OF_TIMES = 0.7  # of the time, for steps and links; the rest is for the noise scale


@dataclass(frozen=True)
class ScaleOptions:
    """What the command line says. ranks: to predict, None for the usual ones; latency: seconds of
    a message between nodes; bandwidth: bytes a second; seconds: of the measuring, about; cores: of
    which the best shape is looked for, 0 for those at hand; noise_steps: of the training that
    measures the noise scale.
    """

    overrides: tuple[str, ...] = ()
    ranks: tuple[int, ...] | None = None
    latency: float | None = None
    bandwidth: float | None = None
    ranks_per_node: int = 0
    cores: int = 0
    seconds: float = 60.0
    noise_steps: int = 200

    @property
    def between(self) -> tuple[float, float] | None:
        """The link between nodes, where it is given."""
        if self.latency is None or self.bandwidth is None:
            return None
        return self.latency, 1 / self.bandwidth


def scale(comm: Comm, path: str, options: ScaleOptions) -> None:
    """Measure a job's steps and links, predict other numbers of ranks, write and show that.
    Collective.
    """
    job = on_root(comm, lambda: _usable(without_study(load_job(path, options.overrides)), options))
    console, planned = make_console(comm.rank), PlannedRun(job, comm)
    with launch.holding(comm, [planned.directory], "scale", console), planned.watched(console):
        launch.check_memory(comm, lambda: [_need(job, comm.size)])
        place = planned.prepare(comm, lambda: planned.open(comm))
        show_place(console, place)
        with leaving_at_once():
            result = _predicted(comm, job, place, options, console)
        files = on_root(comm, lambda: _write(planned.directory, result))
        place.loaders.close()
    console.lines(["", *scale_lines(result)])
    console.files(files)


def check_runs(paths: Sequence[str], given: str | None) -> list[CheckRow]:
    """Return trained runs beside their predictions."""
    return [check(Path(run), prediction_of(Path(run), given)) for run in paths]


def _usable(job: Job, options: ScaleOptions) -> Job:
    """Return the job. Errors: EnsyncError where its steps are of another kind than those that are
    predicted, or half of a link is given.
    """
    if (options.latency is None) != (options.bandwidth is None):
        raise EnsyncError(
            "one of --latency and --bandwidth",
            "both, or none",
            "give the seconds of a short message as well as the bytes a second",
        )
    for given, is_so, action in (
        ("training.batch = 1", job.training.batch == 1, "give a larger training.batch"),
        (
            "training.deterministic = true",
            job.training.deterministic,
            "predict the job with --set training.deterministic=false",
        ),
        (
            f"{job.parallel.setting} = {job.parallel.ranks}",
            job.parallel.ranks > 1,
            f"predict the job with --set {job.parallel.setting}=1",
        ),
        (
            f"communication.server = '{job.communication.server}'",
            job.communication.is_served,
            "predict the job without the settings of the server",
        ),
    ):
        if is_so:
            raise EnsyncError(
                f"{given}, whose steps are not predicted",
                "steps of a batch that ranks share, summed as usual",
                action,
            )
    return job


def _need(job: Job, ranks: int) -> Need:
    """Return what the calibration needs: on each rank a network for more than a batch."""
    with open_dataset(job.data.path) as dataset:
        return replace(need_of(roomy(synchronous_form(job)), dataset, 1), ranks=ranks)


def _predicted(
    comm: Comm, job: Job, place: launch.Prepared, options: ScaleOptions, console: Console
) -> ScaleResult:
    """Measure and predict; return the result, which only rank 0 writes."""
    start, ranks = time.perf_counter(), options.ranks
    several = place.topology.nodes > 1 or options.between is not None
    on_node = options.ranks_per_node or max(share(comm, place.topology.ranks_on_node))
    wanted = ranks or outcome.default_ranks(max(comm.size, on_node), several)
    threads.set_threads(most_threads(comm))
    try:
        bench = build(job, place.loaders)
        measure = Wanted(
            *(SHARE_OF_TIMES * options.seconds, wanted, options.between, options.ranks_per_node)
        )
        found = calibrate(comm, bench, place, measure, console)
        found = with_overlap(comm, with_compression(comm, found, bench, job), bench, job)
        model = Model(found)
        fastest = model.predict(Contestant("apart"), 1)
        threads.use_threads(fastest.threads if fastest else place.threads)
        noise = _noise(comm, bench, place, options, console)
    finally:
        threads.set_threads(place.threads)
    known = noise is not None and noise.is_known
    predictions = model.table(outcome.contestants(job.communication), wanted)
    machine = launch.machine_of(comm, place.threads)
    return ScaleResult(
        job=plain_settings(job),
        calibration=found,
        rows=[outcome.row_of(each) for each in predictions],
        limits=outcome.limits(predictions, job.communication.every),
        shapes=outcome.shapes(model, options.cores or machine.cores or 1),
        noise=outcome.noise_of(noise),
        together=together(found, noise.scale, wanted) if noise is not None and known else [],
        unknown=[*outcome.unknown(found, wanted), *outcome.simplified(job.communication, found)],
        seconds=time.perf_counter() - start,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=launch.versions() | {"MPI": mpi_description()},
        machine=machine,
        dataset=launch.facts_of(place.loaders),
    )


def _noise(
    comm: Comm, bench: Bench, place: launch.Prepared, options: ScaleOptions, console: Console
) -> NoiseScale | None:
    """Measure the noise scale, where that is wanted."""
    if not options.noise_steps:
        return None
    console.line(f"training {plural(options.noise_steps, 'step')} for the gradient noise scale")
    seconds = (1 - SHARE_OF_TIMES) * options.seconds
    found = measure_noise(comm, bench, place.loaders, options.noise_steps, seconds)
    if found is None:
        console.line("batches cannot be cut into equal parts, so there is no noise scale")
    return found


def _write(directory: Path, result: ScaleResult) -> dict[str, Path]:
    confirm(directory)
    return write_scale(directory, result)
