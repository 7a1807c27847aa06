"""A job before its training: what it needs, its ranks and dataset made ready, its directory taken,
and its session started, or continued from the newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ensync.core.config.effects import without_effect
from ensync.core.config.job import dump_job, flat_settings
from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.core.fusion import FUSIONS
from ensync.core.signals import StopRequest
from ensync.mpi.watchdog import watch
from ensync.mpi.world import Comm, on_root
from ensync.report.callbacks import Callback
from ensync.report.console import Console
from ensync.runs import launch, lifecycle, profiling, state
from ensync.runs.callbacks import callbacks_of
from ensync.runs.context import RunContext
from ensync.runs.data import SplitLoaders, open_loaders
from ensync.runs.existing import remove_earlier
from ensync.runs.identity import Identity
from ensync.runs.length import MOST_EPOCHS, parts_of
from ensync.runs.memory import Need, need_of
from ensync.runs.session import Session
from ensync.runs.start import resume, start
from ensync.runs.warm_up import try_step
from ensync.storage.atomic import write_atomically
from ensync.storage.dataset import Dataset, open_dataset
from ensync.strategies import settled, strategy_of
from ensync.strategies.strategy import Strategy
from ensync.training.learning_rate import EpochPlan

if TYPE_CHECKING:
    from ensync.runs.context import Judge

# What may differ when a run is continued: it does not change what is trained.
FREE = ("output", "checkpoint", "data.path", "training.threads", "training.watchdog")


@dataclass(frozen=True)
class Study:
    """What the runs of a comparison or a sweep share; resume: whether those that an earlier start
    has started are continued; judge: as of RunContext.
    """

    comm: Comm
    console: Console
    stop_request: StopRequest
    resume: bool
    judge: Judge | None = None


@dataclass(frozen=True)
class PlannedRun:
    """A job, and the ranks that train it, or test what it has trained. callbacks: those that are
    not in its settings.
    """

    job: Job
    ranks: Comm
    callbacks: Sequence[Callback] = ()

    @property
    def directory(self) -> Path:
        """Its output directory."""
        return Path(self.job.output.directory)

    @property
    def strategy(self) -> Strategy:
        """How it uses its ranks."""
        return strategy_of(self.job)

    def need(self) -> Need:
        """Return what its training needs of memory."""
        with open_dataset(self.job.data.path) as dataset:
            return need_of(self.job, dataset, self.ranks.size)

    def open(self, comm: Comm, accept: Callable[[Dataset], Identity] = Identity.of) -> SplitLoaders:
        """Open its dataset (see runs.data.open_loaders). Collective over `comm`."""
        return open_loaders(comm, self.job.data, self.job.training.dtype, accept)

    def prepare(self, comm: Comm, opened: Callable[[], SplitLoaders]) -> launch.Prepared:
        """Prepare ranks and kernels, and the dataset that `opened` opens. Collective over
        `comm`.
        """

        def checked() -> SplitLoaders:
            loaders = opened()
            self.check_validation(loaders.identity.sizes["validation"])
            return loaders

        return launch.prepare(comm, self.job.training.threads, checked, partial(try_step, self.job))

    def check_validation(self, rows: int) -> None:
        """Refuse settings that decide by validation images where there are none."""
        job, weighted = self.job, FUSIONS[self.strategy.fusion_method].needs_validation
        asked = {
            f"training.early_stopping = {job.training.early_stopping}": job.training.early_stopping,
            "training.best_weights = true": job.training.best_weights,
            f"data.validation_seed = {job.data.validation_seed}": job.data.validation_seed,
            f"plateau.patience = {job.plateau.patience}": job.plateau.patience,
            f"fusion.method = '{job.fusion.method}'": weighted,
        }
        for given, wanted in asked.items():
            if wanted and not rows:
                raise EnsyncError(
                    f"{given} with {job.data.path}, which has no validation images",
                    "a validation split to decide by",
                    "prepare the dataset with --validation 0.1, or leave the setting out",
                )

    @contextmanager
    def watched(self, console: Console) -> Iterator[None]:
        """Have the ranks watched over while the block runs. Collective."""
        comm = self.ranks
        can_lose = lifecycle.can_lose(self.strategy, comm.size)
        with watch(
            comm, self.job.training.watchdog, self.job.output.directory, can_lose
        ) as obstacle:
            if obstacle:
                console.warn(obstacle)
            yield

    def say_without_effect(self, console: Console) -> None:
        """Say which of its settings do nothing."""
        for line in without_effect(self.job):
            console.line(line)

    def take_directory(self, comm: Comm, console: Console, files: Sequence[Path] = ()) -> None:
        """Make its directory, remove what an earlier run left there, and `files`, and write
        job.toml into it. Collective over `comm`.
        """
        remove_earlier(comm, self.directory, console, files)
        self.write_job(comm)

    def write_job(self, comm: Comm) -> None:
        """Write job.toml as the run goes on by it from now on. Collective over `comm`."""
        path, text = self.directory / "job.toml", dump_job(self.job)
        on_root(comm, lambda: write_atomically(path, [text.encode()]))

    def context(
        self, loaders: SplitLoaders, console: Console, stop_request: StopRequest
    ) -> RunContext:
        """Return the surroundings of its session. Collective over its ranks. EnsyncError for too
        many members, or steps that do not go with their epochs.
        """
        job = settled(self.job, self.ranks.size)
        job = with_epochs(job, self.ranks.size, loaders.train.labels)
        profiler = profiling.begin(self.ranks) if job.output.profile else None
        callbacks = callbacks_of(self.ranks, job.output, self.callbacks)
        return RunContext(
            *(self.ranks, job, loaders, console, stop_request),
            profiler=profiler,
            callbacks=callbacks,
        )

    def is_continued(self, study: Study) -> bool:
        """Return whether the run goes on from a checkpoint. Collective over the study."""
        return study.resume and on_root(study.comm, lambda: state.has_checkpoint(self.directory))

    def begin(self, study: Study, loaders: SplitLoaders, continued: bool) -> Session:
        """Return its session, from its start or from its newest checkpoint. Collective over its
        ranks. EnsyncError where it was started with another job.
        """
        alone = self.context(loaders, study.console, study.stop_request)
        context = replace(alone, judge=study.judge, compared=True)
        if not continued:
            return start(context)
        loaded = state.load_newest(self.ranks, self.directory)
        for path, why in loaded.rejected:
            study.console.warn(f"{path} is left aside: {why}")
        _check_same(self.directory, flat_settings(loaded.state.job), flat_settings(context.job))
        session = resume(context, loaded)
        study.console.line(f"continuing from {loaded.path}")
        return session


def check_memory(comm: Comm, runs: Sequence[PlannedRun]) -> None:
    """Refuse runs, one after the other, for which memory does not suffice. Collective."""
    launch.check_memory(comm, lambda: [run.need() for run in runs])


def _check_same(directory: Path, started: dict[str, object], now: dict[str, object]) -> None:
    """Refuse to continue a run that was started with other settings: its figures would stand
    beside those of this job.
    """
    for name in sorted(started | now):
        free = name in FREE or name.partition(".")[0] in FREE
        if not free and started.get(name) != now.get(name):
            raise EnsyncError(
                f"'{directory}' was trained with {name} = {started.get(name)!r}, and this job has "
                f"{now.get(name)!r}",
                "the job that it was started with",
                "keep it by giving --set output.directory=DIR, or delete it and start afresh "
                "with --overwrite",
            )


def with_epochs(job: Job, ranks: int, labels: np.ndarray) -> Job:
    """Return a job with the epochs that its training.max_steps comes to, the last of which may be
    a part of one: those of the member that has most.

    labels: int64 (rows,), of the training split. Errors: EnsyncError for steps that members do
    not come to part before, or too many epochs.
    """
    training = job.training
    if not training.max_steps:
        return job
    longest = _with(job, MOST_EPOCHS)
    strategy = strategy_of(longest)
    count = strategy.members(ranks)
    uneven = job.ensemble.data == "label_skew"  # else rows of members differ by one at most
    plans = [
        EpochPlan(
            longest,
            len(strategy.rows(labels, count, member)),
            parts_of(strategy, ranks, labels, member),
        )
        for member in (range(count) if uneven else sorted({0, count - 1}))
    ]
    first = plans[0].parts[0].last_epoch if plans[0].parts else 0
    if training.max_steps <= (common := plans[0].updates(first)):
        raise EnsyncError(
            f"training.max_steps = {training.max_steps:,} with ensemble.synchronous_epochs = "
            f"{first}, which are {common:,} steps",
            "more steps, of which the members train the rest",
            "give more training.max_steps or fewer ensemble.synchronous_epochs",
        )
    epochs = max(-(-plan.length // 1) for plan in plans)
    if epochs > MOST_EPOCHS:
        raise EnsyncError(
            f"training.max_steps = {training.max_steps:,}, which are {epochs:,} epochs",
            f"at most {MOST_EPOCHS:,} epochs",
            "give fewer",
        )
    return _with(job, int(epochs))


def without_epochs(job: Job) -> Job:
    """Return a job without the epochs that its training.max_steps came to."""
    default = type(job.training).model_fields["epochs"].default
    return _with(job, default) if job.training.max_steps else job


def _with(job: Job, epochs: int) -> Job:
    training = job.training.model_copy(update={"epochs": epochs})
    return job.model_copy(update={"training": training})
