"""The beginning of a session: at epoch 0, or where a checkpoint stands, on any number of ranks."""

import math
from collections.abc import Mapping

from ensync.core.config.job import flat_settings
from ensync.core.config.schedules import SCHEDULES
from ensync.core.errors import EnsyncError
from ensync.mpi.mesh import make_mesh
from ensync.mpi.world import on_root
from ensync.report.history import rebuild
from ensync.runs.context import RunContext
from ensync.runs.members import build_trainers
from ensync.runs.session import Session
from ensync.runs.state import Loaded, RunState


def start(context: RunContext) -> Session:
    """Return a session at epoch 0. Collective."""
    identity, phases = context.loaders.identity, context.strategy.phases(context.comm.size)
    mesh = make_mesh(context.comm, phases[0].members)
    state = RunState(context.job, mesh.members, identity.fingerprint, identity)
    return Session(context, state, mesh, build_trainers(context, mesh))


def _check_same(
    started: Mapping[str, object], now: Mapping[str, object], within_epoch: bool
) -> None:
    """Refuse settings that would make a resumed run another one: strategy, members, seed, shards;
    within an epoch the batch, which counts its steps.
    """
    fixed = [
        "training.strategy",
        "training.seed",
        "network.initializer",
        "training.deterministic",
        "training.virtual_shards",
        *(name for name in now if name.startswith("ensemble.")),
        *["training.batch"] * within_epoch,
    ]
    for name in fixed:
        old, new = started[name], now[name]
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
    within_epoch = any(p["step"] for p in loaded.attributes["positions"])
    _check_same(flat_settings(state.job), flat_settings(job), within_epoch)
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
    trainer = next(iter(trainers.values()))
    name, over = job.schedule.name, ""
    if name == before.schedule.name and SCHEDULES[name].over_run:
        over = f": {name} over {job.training.epochs} epochs, before over {before.training.epochs}"
    _say_rate(session, trainer.rate_of(before), trainer.rate_of(before, 1), over)
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


def _say_rate(session: Session, due: float, last: float, over: str) -> None:
    """Say how the learning rate goes on where other settings than before change it: then `due`,
    after `last` in the step before; `over`: by which schedule.
    """
    now = next(iter(session.trainers.values())).learning_rate
    if not math.isclose(now, due):
        session.console.line(
            f"the learning rate goes on at {now:.3g}, after {last:.3g} in the last step{over}"
        )
