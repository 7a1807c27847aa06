"""`ensync train` and `ensync resume`: one run, from its start or from a checkpoint.

Collective throughout.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensync.core.config.job import (
    STUDY_IS_FOR_COMPARE,
    flat_settings,
    load_job,
    without_study,
)
from ensync.core.config.schema import Job
from ensync.core.config.training import Training
from ensync.core.errors import EnsyncError
from ensync.core.signals import stop_on_signals
from ensync.mpi.world import Comm, on_root
from ensync.report.callbacks import Callback
from ensync.report.console import Console, make_console
from ensync.report.text import plural
from ensync.runs import launch, session, start, state
from ensync.runs.header import show_place, show_run
from ensync.runs.opening import choose_run, find_run, identity_of, load, with_overrides
from ensync.runs.options import RunOptions
from ensync.runs.outcome import complete
from ensync.runs.planned import PlannedRun, check_memory, without_epochs
from ensync.training.position import EARLY, ends_of


def train(comm: Comm, path: str, options: RunOptions) -> None:
    """Train a job file from its start, or continue its run where one exists and `options` say
    so.
    """
    job = on_root(comm, lambda: load_job(path, options.overrides))
    train_job(comm, job, options, make_console(comm.rank, options.verbose))


def train_job(
    comm: Comm,
    job: Job,
    options: RunOptions,
    console: Console,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train a job, the same on all ranks, or continue its run, as `train` does. callbacks: of rank
    0, beside those of the job.
    """
    if job.study:
        console.line(STUDY_IS_FOR_COMPARE)
    planned = PlannedRun(without_study(job), comm, callbacks)
    with launch.holding(comm, [planned.directory], "train", console):
        if launch.continues(comm, planned.directory, options.resume, options.overwrite):
            console.line(f"resuming {planned.directory}")
            asked, directory = flat_settings(job), str(planned.directory)
            _resume(comm, directory, options.overrides, console, asked, callbacks)
            return
        with planned.watched(console):
            check_memory(comm, [planned])
            place = planned.prepare(comm, lambda: planned.open(comm))
            with stop_on_signals() as stop_request:
                run = start.start(planned.context(place.loaders, console, stop_request))
                planned.take_directory(comm, console)
                show_place(console, place)
                show_run(console, place, run)
                planned.say_without_effect(console)
                complete(run)


def resume(comm: Comm, directory: str, overrides: tuple[str, ...], verbose: bool) -> None:
    """Continue a run from its newest valid checkpoint, on any number of ranks."""
    console = make_console(comm.rank, verbose)
    directory = choose_run(comm, directory, "resume", console)
    with launch.holding(comm, [Path(find_run(comm, directory))], "resume", console):
        _resume(comm, directory, overrides, console)


def _resume(
    comm: Comm,
    directory: str,
    overrides: tuple[str, ...],
    console: Console,
    asked: Mapping[str, object] | None = None,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Continue a run whose lock is held; `asked`: the settings of the job file that this was
    called with; callbacks: beside those of the job.
    """
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
    job = without_epochs(job)
    _check_length(loaded, job.training)
    planned = PlannedRun(job, comm, callbacks)
    with planned.watched(console):
        identity_of(comm, loaded, job.data.path, console)
        check_memory(comm, [planned])
        place = planned.prepare(comm, lambda: planned.open(comm, loaded.accept))
        with stop_on_signals() as stop_request:
            run = start.resume(planned.context(place.loaders, console, stop_request), loaded)
            planned.write_job(comm)
            taken = flat_settings(job)
            _say_differences(console, flat_settings(saved), taken, asked or taken)
            show_place(console, place)
            show_run(console, place, run)
            planned.say_without_effect(console)
            console.line(f"continuing from {loaded.path}")
            _say_idle(console, run)
            complete(run)


def _say_idle(console: Console, run: session.Session) -> None:
    """Say where a resume has nothing to train, and what would have it train on. Collective."""
    ended, idle = run.ended(), run.idle()
    name = "max_steps" if run.job.training.max_steps else "epochs"
    if idle:
        patience = (
            "training.early_stopping=0, or more patience"
            if any(why.startswith(EARLY) for why in ended.values())
            else f"training.{name}=N"
        )
        end = getattr(run.job.training, name)
        more = f"more than {end}" if patience.endswith("N") else f"with training.{name} at {end}"
        console.warn(
            f"nothing is left to train ({ends_of(ended)}), so this only tests it again; to train "
            f"on, give --set {patience} ({more})"
        )


def _check_length(loaded: state.Loaded, training: Training) -> None:
    """Refuse an end that is behind the run already."""
    positions = loaded.attributes["positions"]
    if training.max_steps:
        name, what, end = "max_steps", "step", training.max_steps
        done = max(p["updates"] for p in positions)
    else:
        name, what, end = "epochs", "epoch", training.epochs
        done = max(p["epoch"] for p in positions)
    if done > end:
        raise EnsyncError(
            f"training.{name} = {end} for a run that has {plural(done, what)} behind it",
            f"at least {done}",
            f"give more, or look at what it has reached with `ensync evaluate {loaded.path}`",
        )


def _say_differences(
    console: Console,
    saved: Mapping[str, object],
    now: Mapping[str, object],
    asked: Mapping[str, object],
) -> None:
    """Say which settings of the resumed run differ from before, and which of the job file are
    not taken.
    """
    before, taken, wanted = (_compared(each) for each in (saved, now, asked))
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


def _compared(settings: Mapping[str, object]) -> dict[str, object]:
    """Return the settings but for where the run stands, members left to the number of ranks and
    epochs left to that of steps.
    """
    left_out = {"output.directory"}
    if not settings["ensemble.members"]:
        left_out.add("ensemble.members")
    if settings["training.max_steps"]:
        left_out.add("training.epochs")
    return {name: value for name, value in settings.items() if name not in left_out}


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
