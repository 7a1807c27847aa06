"""`ensync train` and `ensync resume`: one run, from its start or from a checkpoint.

Collective throughout.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ensync.core.config.effects import without_effect
from ensync.core.config.job import Job, load_job
from ensync.core.errors import EnsyncError
from ensync.core.signals import stop_on_signals
from ensync.mpi.watchdog import watch
from ensync.mpi.world import Comm, on_root
from ensync.report.console import Console, make_console
from ensync.runs import launch, lifecycle, session, start, state
from ensync.runs.context import RunContext
from ensync.runs.data import open_loaders
from ensync.runs.header import show_place, show_run
from ensync.runs.opening import find_run, identity_of, load, with_overrides
from ensync.runs.options import RunOptions
from ensync.runs.outcome import complete
from ensync.training.position import EARLY, ends_of


def train(comm: Comm, path: str, options: RunOptions) -> None:
    """Train a job from its start, or continue its run where one exists and `options` say so."""
    job = on_root(comm, lambda: load_job(path, options.overrides))
    console = make_console(comm.rank, options.verbose)
    with launch.holding(comm, [job.output.directory], "train", console):
        if launch.continues(comm, job, options.resume, options.overwrite):
            console.line(f"resuming {job.output.directory}")
            _resume(comm, job.output.directory, options.overrides, console, job)
            return
        with watched(comm, job, console):
            launch.check_memory(comm, [(job, comm.size)])
            place = launch.prepare(comm, job)
            with stop_on_signals() as stop_request:
                run = start.start(RunContext(comm, job, place.loaders, console, stop_request))
                launch.take_directory(comm, job, console)
                show_place(console, place)
                show_run(console, place, run)
                say_without_effect(console, job)
                complete(run)


def say_without_effect(console: Console, *jobs: Job) -> None:
    """Say which settings of the jobs do nothing there."""
    for line in dict.fromkeys(line for job in jobs for line in without_effect(job)):
        console.line(line)


def resume(comm: Comm, directory: str, overrides: tuple[str, ...], verbose: bool) -> None:
    """Continue a run from its newest valid checkpoint, on any number of ranks."""
    console = make_console(comm.rank, verbose)
    with launch.holding(comm, [find_run(comm, directory)], "resume", console):
        _resume(comm, directory, overrides, console)


def _resume(
    comm: Comm,
    directory: str,
    overrides: tuple[str, ...],
    console: Console,
    asked: Job | None = None,
) -> None:
    """Continue a run whose lock is held; `asked`: the job file that this was called with."""
    loaded = load(comm, directory)
    for path, why in loaded.rejected:
        console.warn(f"{path} is left aside: {why}")
    saved = loaded.state.job
    directory = str(loaded.path.parent.parent)  # where the run is now, should it have been moved
    job = with_overrides(
        comm,
        saved.model_copy(
            update={"output": saved.output.model_copy(update={"directory": directory})}
        ),
        overrides,
    )
    _check_epochs(loaded, job)
    with watched(comm, job, console):
        identity_of(comm, loaded, job, console)
        launch.check_memory(comm, [(job, comm.size)])
        place = launch.prepare(comm, job, lambda: open_loaders(comm, job, loaded.accept))
        with stop_on_signals() as stop_request:
            run = start.resume(RunContext(comm, job, place.loaders, console, stop_request), loaded)
            launch.write_job(comm, job)
            _say_differences(console, saved, job, asked or job)
            show_place(console, place)
            show_run(console, place, run)
            say_without_effect(console, job)
            console.line(f"continuing from {loaded.path}")
            _say_idle(console, run)
            complete(run)


def _say_idle(console: Console, run: session.Session) -> None:
    """Say where a resume has nothing to train, and what would have it train on. Collective."""
    ended, idle = run.ended(), run.idle()
    if idle:
        patience = (
            "training.early_stopping=0, or more patience"
            if any(why.startswith(EARLY) for why in ended.values())
            else "training.epochs=N"
        )
        more = (
            f"more than {run.job.training.epochs}"
            if patience.endswith("N")
            else f"with training.epochs at {run.job.training.epochs}"
        )
        console.warn(
            f"nothing is left to train ({ends_of(ended)}), so this only tests it again; to train "
            f"on, give --set {patience} ({more})"
        )


def _check_epochs(loaded: state.Loaded, job: Job) -> None:
    """Refuse an end that is behind the run already."""
    done = max(p["epoch"] for p in loaded.attributes["positions"])
    if done > job.training.epochs:
        raise EnsyncError(
            f"training.epochs = {job.training.epochs} for a run that has {done} epochs behind it",
            f"at least {done}",
            f"give more, or look at what it has reached with `ensync evaluate {loaded.path}`",
        )


def _say_differences(console: Console, saved: Job, job: Job, asked: Job) -> None:
    """Say which settings of the resumed run differ from before, and which of the job file are
    not taken.
    """
    before, taken, wanted = (_flat(each) for each in (saved, job, asked))
    if changed := [
        f"{name} = {_brief(value)} (was {_brief(before.get(name))})"
        for name, value in taken.items()
        if value != before.get(name)
    ]:
        console.line("taken from --set: " + ", ".join(changed))
    if left := [
        f"{name} = {_brief(value)} (the run: {_brief(taken.get(name))})"
        for name, value in wanted.items()
        if value != taken.get(name)
    ]:
        console.warn(
            "the job file is not the one that the run was started with, and the run's own "
            f"settings are kept; not taken: {', '.join(left)}; to change one give --set"
        )


def _flat(job: Job) -> dict[str, Any]:
    """Return the settings by their whole names, but for where the run stands and members left to
    the number of ranks.
    """
    flat = {
        f"{section}.{key}": value
        for section, settings in job.model_dump(mode="json").items()
        for key, value in settings.items()
    }
    left_out = (
        {"output.directory"} if job.ensemble.members else {"output.directory", "ensemble.members"}
    )
    return {name: value for name, value in flat.items() if name not in left_out}


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


@contextmanager
def watched(comm: Comm, job: Job, console: Console) -> Iterator[None]:
    """Have the ranks watched over while the block runs. Collective."""
    with watch(
        comm, job.training.watchdog, job.output.directory, lifecycle.can_lose(job, comm.size)
    ) as obstacle:
        if obstacle:
            console.warn(obstacle)
        yield
