"""The runs of a comparison or a sweep: each started, or continued from its newest checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.core.signals import StopRequest
from ensync.mpi.world import Comm, on_root
from ensync.report.console import Console
from ensync.runs import launch, state
from ensync.runs.context import RunContext
from ensync.runs.session import Session
from ensync.runs.start import resume, start
from ensync.strategies import strategy_of

# What may differ when a run is continued: it does not change what is trained.
FREE = ("output", "checkpoint", "data.path", "training.threads", "training.watchdog")


@dataclass(frozen=True)
class Study:
    """What the runs of a comparison or a sweep share; resume: whether those that an earlier start
    has started are continued.
    """

    comm: Comm
    console: Console
    stop_request: StopRequest
    resume: bool


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study: its job, and the ranks that train it."""

    study: Study
    job: Job
    ranks: Comm

    @property
    def directory(self) -> Path:
        """Its output directory."""
        return Path(self.job.output.directory)

    def prepare(self) -> launch.Prepared:
        """Prepare the ranks of the study and the run's dataset. Collective over the study."""
        return launch.prepare(self.study.comm, self.job)

    def is_continued(self) -> bool:
        """Return whether the run goes on from a checkpoint. Collective over the study."""
        return self.study.resume and on_root(
            self.study.comm, lambda: state.has_checkpoint(self.directory)
        )

    def take_directory(self, files: Sequence[Path]) -> None:
        """Make its directory, without what an earlier run left there, and without `files`.
        Collective over the study.
        """
        launch.take_directory(self.study.comm, self.job, self.study.console, files)

    def begin(self, place: launch.Prepared, continued: bool) -> Session:
        """Return its session, from its start or from its newest checkpoint. Collective over its
        ranks. EnsyncError where it was started with another job.
        """
        console, job = self.study.console, strategy_of(self.job).settle(self.job, self.ranks.size)
        context = RunContext(self.ranks, job, place.loaders, console, self.study.stop_request)
        if not continued:
            return start(context)
        loaded = state.load_newest(self.ranks, self.directory)
        for path, why in loaded.rejected:
            console.warn(f"{path} is left aside: {why}")
        _check_same(self.directory, loaded.state.job, job)
        session = resume(context, loaded)
        console.line(f"continuing from {loaded.path}")
        return session


def check_memory(comm: Comm, runs: Sequence[PlannedRun]) -> None:
    """Refuse runs, one after the other, for which memory does not suffice. Collective."""
    launch.check_memory(comm, [(run.job, run.ranks.size) for run in runs])


def _check_same(directory: Path, started: Job, job: Job) -> None:
    """Refuse to continue a run that another job has started.

    Its figures would stand beside those of this one.
    """
    old, new = _settings(started), _settings(job)
    for name in sorted(old | new):
        if old.get(name) != new.get(name):
            raise EnsyncError(
                f"'{directory}' was trained with {name} = {old.get(name)!r}, and this job has "
                f"{new.get(name)!r}",
                "the job that it was started with",
                "keep it by giving --set output.directory=DIR, or delete it and start afresh "
                "with --overwrite",
            )


def _settings(job: Job) -> dict[str, object]:
    flat = {
        f"{section}.{key}": value
        for section, values in job.model_dump(mode="json").items()
        for key, value in values.items()
    }
    return {
        name: value
        for name, value in flat.items()
        if name not in FREE and name.partition(".")[0] not in FREE
    }
