"""The beginning of a session: at epoch 0, or where a checkpoint stands, on any number of ranks."""

import math
from dataclasses import replace

from ensync.core.config.schedules import SCHEDULES
from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.mpi.mesh import make_mesh
from ensync.mpi.world import on_root
from ensync.report.history import rebuild
from ensync.runs.context import RunContext
from ensync.runs.members import build_trainers
from ensync.runs.session import Session
from ensync.runs.state import Loaded, RunState
from ensync.strategies import strategy_of


def start(context: RunContext) -> Session:
    """Return a session at epoch 0. Collective."""
    strategy = strategy_of(context.job)
    job = strategy.settle(context.job, context.comm.size)
    context, identity = replace(context, job=job), context.loaders.identity
    mesh = make_mesh(context.comm, strategy.phases(job)[0].members)
    state = RunState(job, mesh.members, identity.fingerprint, identity)
    return Session(context, state, mesh, build_trainers(context, mesh))


def _check_same(started: Job, job: Job, within_epoch: bool) -> None:
    """Refuse what would make a resumed run another one: strategy, members, seed, shards; within
    an epoch the batch, which counts its steps.
    """
    fixed = [
        "training.strategy",
        "training.seed",
        "network.initializer",
        "training.deterministic",
        "training.virtual_shards",
        *(f"ensemble.{key}" for key in type(job.ensemble).model_fields),
        *["training.batch"] * within_epoch,
    ]
    for name in fixed:
        section, key = name.split(".")
        old, new = (getattr(getattr(j, section), key) for j in (started, job))
        if old != new:
            raise EnsyncError(
                f"{name} = {new!r} for a run that was started with {old!r}",
                "the value that the run was started with",
                "leave it out, or train afresh with --set output.directory=DIR",
            )


def resume(context: RunContext, loaded: Loaded) -> Session:
    """Return a session that continues from a checkpoint, on any number of ranks. Collective."""
    state, job = loaded.state, context.job
    state.identity = loaded.accept(context.loaders.dataset)
    _check_same(state.job, job, any(p["step"] for p in loaded.attributes["positions"]))
    before, state.job = state.job, job
    mesh = make_mesh(context.comm, state.members)
    trainers = build_trainers(context, mesh)
    for member in range(state.members):
        found = loaded.member(context.comm, member)
        if member in trainers:
            loaded.restore(trainers[member], found)
            trainers[member].resume()
    session = Session(context, state, mesh, trainers)
    _cut_history(session, loaded)
    _say_rate(session, before)
    return session


def _cut_history(session: Session, loaded: Loaded) -> None:
    """Forget the records of epochs that are trained again, and why members that go on had ended.
    Collective.
    """
    path, state, ended = session.directory / "history.jsonl", session.state, session.ended()
    if trouble := on_root(session.comm, lambda: rebuild(path, state.history)):
        session.console.warn(trouble)
    reached = [p["epoch"] for p in loaded.attributes["positions"]]
    kept = [r.copy() for r in state.history if r["epoch"] <= reached[r["member"]]]
    for record in kept:
        if record.get("ended") != ended[record["member"]]:
            record.pop("ended", None)
    state.history = kept
    on_root(session.comm, lambda: rebuild(path, state.history))


def _say_rate(session: Session, before: Job) -> None:
    """Say how the learning rate goes on where other settings than before change it."""
    job, trainer = session.job, next(iter(session.trainers.values()))
    now = trainer.learning_rate
    if not math.isclose(now, trainer.rate_of(before)):
        name = job.schedule.name
        over = (
            f": {name} over {job.training.epochs} epochs, before over {before.training.epochs}"
            * (name == before.schedule.name and SCHEDULES[name].over_run)
        )
        session.console.line(
            f"the learning rate goes on at {now:.3g}, after {trainer.rate_of(before, 1):.3g} in "
            f"the last step{over}"
        )
