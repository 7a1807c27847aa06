"""The beginning of a session: at epoch 0, or where a checkpoint stands, on any number of ranks."""

import math
from collections.abc import Mapping

from ensync.core.config.job import flat_settings
from ensync.core.config.schedules import SCHEDULES
from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.mpi.mesh import make_mesh
from ensync.mpi.world import agree_any, on_root, share
from ensync.report.history import rebuild
from ensync.report.text import plural
from ensync.runs.context import RunContext
from ensync.runs.export.weights import weights_of
from ensync.runs.members import build_trainers
from ensync.runs.replicas import restore_replicas
from ensync.runs.session import Session
from ensync.runs.speeds import say_unknown
from ensync.runs.state import Loaded, RunState
from ensync.training.trainer import Trainer


def start(context: RunContext) -> Session:
    """Return a session at epoch 0. Collective."""
    identity, phases = context.loaders.identity, context.strategy.phases(context.comm.size)
    mesh = make_mesh(context.comm, phases[0].members, context.job.parallel.ranks)
    state = RunState(context.job, mesh.members, identity.fingerprint, identity)
    weights = weights_of(context.comm, context.job.network)
    trainers = build_trainers(context, mesh, weights)
    if weights:
        filled = weights.fill(next(iter(trainers.values())).network)
        context.console.line(f"start weights: {filled} (network.weights = {weights.path!r})")
    return Session(context, state, mesh, trainers)


def _check_same(
    started: Mapping[str, object], now: Mapping[str, object], counts_steps: bool
) -> None:
    """Refuse settings that would make a resumed run another one: strategy, members, seed, shards;
    where an epoch or training.max_steps counts steps, the batch.
    """
    fixed = [
        "training.strategy",
        "training.seed",
        "data.validation_seed",
        "network.initializer",
        "network.weights",
        "network.new_output",
        "training.deterministic",
        "training.virtual_shards",
        *(name for name in now if name.startswith(("ensemble.", "communication."))),
        *["training.batch"] * counts_steps,
        *[name for name in now if name.startswith("growth.")] * bool(now["training.max_steps"]),
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
    by_steps = state.job.training.max_steps or job.training.max_steps
    within_epoch = any(p["step"] for p in loaded.attributes["positions"])
    _check_same(flat_settings(state.job), flat_settings(job), bool(by_steps or within_epoch))
    before, state.job = state.job, job
    mesh = make_mesh(context.comm, state.members, job.parallel.ranks)
    trainers = build_trainers(context, mesh)
    for member in range(state.members):
        found = loaded.member(context.comm, member)
        if member in trainers:
            loaded.restore(trainers[member], found)
            trainers[member].resume()
            trainers[member].reopen(before)
    session = Session(context, state, mesh, trainers)
    for sentence in restore_replicas(loaded.path, loaded.arrays or {}, mesh, trainers):
        session.console.line(sentence)
    say_unknown(trainers.values(), mesh.data.size, session.console)
    _check_steps(session)
    _cut_history(session)
    trainer = next(iter(trainers.values()))
    name, over = job.schedule.name, ""
    if name == before.schedule.name and SCHEDULES[name].over_run:
        now, earlier = _length(job), _length(before)
        over = f": {name} over {now}, before over {earlier}"
    _say_rate(session, trainer.rate_of(before), trainer.rate_of(before, 1), over)
    return session


def _check_steps(session: Session) -> None:
    """Refuse training.max_steps where the steps so far are not those of the epochs so far, since
    the batch was changed in between. Collective.
    """
    if session.job.training.max_steps and agree_any(
        session.comm, any(map(_miscounted, session.trainers.values()))
    ):
        raise EnsyncError(
            f"training.max_steps = {session.job.training.max_steps:,} for a run whose batch was "
            "changed since its start",
            "epochs of as many steps throughout",
            "give training.epochs, or train afresh with --set output.directory=DIR",
        )


def _miscounted(trainer: Trainer) -> bool:
    p = trainer.position
    return not trainer.done and trainer.optimizer.steps != trainer.plan.updates(p.epoch) + p.step


def _length(job: Job) -> str:
    steps, epochs = job.training.max_steps, job.training.epochs
    return plural(steps, "step") if steps else plural(epochs, "epoch")


def _cut_history(session: Session) -> None:
    """Forget the records of epochs that are trained again, and why members that go on had ended.
    Collective.
    """
    path, state, ended = session.directory / "history.jsonl", session.state, session.ended()
    if trouble := on_root(session.comm, lambda: rebuild(path, state.history)):
        session.console.warn(trouble)
    mine = {member: trainer.position.epoch for member, trainer in session.trainers.items()}
    reached = {m: epoch for part in share(session.comm, mine) for m, epoch in part.items()}
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
