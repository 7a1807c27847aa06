"""The lifecycle of a session: through the phases of its strategy, and the death of ranks where the
MPI survives it, to its end.

A rank that dies costs its members, not the run: the others train on and are fused without them.
Rank 0 keeps what the newest checkpoint holds of a lost member in those to come, so that a later
`ensync resume` trains it to its end.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ensync.core.signals import ask_to_stop
from ensync.mpi.mesh import make_mesh
from ensync.mpi.survivors import Loss, is_loss, possible, survivors
from ensync.mpi.world import alone, on_root
from ensync.report.console import SilentConsole, make_console
from ensync.report.text import plural
from ensync.runs import profiling
from ensync.runs import state as states
from ensync.runs.members import build_trainers
from ensync.runs.records import complete_records
from ensync.runs.session import Session
from ensync.runs.stopped import Stopped
from ensync.storage.lock import hold
from ensync.strategies.strategy import Strategy
from ensync.training.position import LOST, Position

T = TypeVar("T")


def train(session: Session) -> Session:
    """Run a session to its end, through all phases of its strategy, and write its profile where
    the job wants one. Collective. Raises Stopped after a checkpoint when any rank got a signal.
    """
    session.context.callbacks.start(session.comm, session.train_start)
    try:
        session = _train(session)
    except Stopped:
        _write_profile(session)
        raise
    _write_profile(session)
    return session


def _write_profile(session: Session) -> None:
    if session.context.profiler is not None:
        console = session.console
        profiling.finish(session.comm, session.context.profiler, session.directory, console)


def _train(session: Session) -> Session:
    retry(session, session.run)
    if session.last_epoch < session.job.training.epochs and not session.failed:
        session = split(session)
        retry(session, session.run)
    return session


def split(session: Session) -> Session:
    """Return the session of the next phase, whose members start from the network trained so far,
    as it is and not as it is tested. Collective.
    """
    old = next(iter(session.trainers.values()))
    old.reducer.gather_state(old.optimizer)
    phases = session.context.strategy.phases(session.comm.size)
    members = phases[phases.index(session.phase) + 1].members
    mesh = make_mesh(session.comm, members, session.job.parallel.ranks)
    trainers = build_trainers(session.context, mesh)
    for trainer in trainers.values():
        for name, values in trainer.vectors.items():
            values[:] = old.vectors[name]
        trainer.optimizer.steps = old.optimizer.steps
        p = old.position
        trainer.position = Position(
            p.epoch,
            rate_factor=p.rate_factor,
            plateau_loss=p.plateau_loss,
            plateau_epochs=p.plateau_epochs,
        )
    close(session)
    session.state.members = members
    following = Session(
        session.context,
        session.state,
        mesh,
        trainers,
        session.started,
        sent_before=session.sent,
    )
    following.save()  # what a member that diverges in its first epoch is set back to
    return following


def close(session: Session) -> None:
    """Give back what a session holds of MPI beside its loaders; it cannot be trained any more.
    Collective.
    """
    session.close()
    session.mesh.free()


def can_lose(strategy: Strategy, ranks: int) -> bool:
    """Whether a run on so many ranks can go on without one: the MPI can, and no two ranks ever
    train a network together.
    """
    together = any(phase.members < ranks for phase in strategy.phases(ranks))
    together |= strategy.parallel.ranks > 1
    return possible() and strategy.independent and not together


def retry(session: Session, work: Callable[[], T]) -> T:
    """Return work(), called again after each death of a rank that the session can do without.
    Collective.
    """
    loss = None
    while True:
        try:
            if loss is not None:
                _leave_out(session, loss)
            return work()
        except Exception as error:
            if not (is_loss(error) and can_lose(session.context.strategy, session.comm.size)):
                raise
            loss = survivors(session.comm)


def _leave_out(session: Session, loss: Loss) -> None:
    """Leave out the members of the dead ranks, and save what the others have. Collective over
    the living.
    """
    lost = [m for m, owner in enumerate(session.mesh.owners) if loss.moved[owner] < 0]
    console = session.console
    if loss.comm.rank == 0 and isinstance(console, SilentConsole):
        console = make_console(0)
    session.context = replace(session.context, comm=loss.comm, console=console)
    session.mesh = session.mesh.without(loss)
    on_root(
        session.comm, lambda: hold([session.directory], "train", session.console.line, ask_to_stop)
    )  # rank 0 may be another
    on_root(session.comm, lambda: _keep(session, lost, loss.dead))
    _complete_history(session)
    session.console.warn(
        f"{loss.dead} died, and with that {plural(len(lost), 'member')} "
        f"({', '.join(map(str, lost))}); the others go on"
    )
    session.save()


def _keep(session: Session, members: list[int], dead: str) -> None:
    """Take over what is saved of lost members (at their start where nothing is), without
    training them.
    """
    for member in members:
        trainer = build_trainers(session.context, session.mesh.of_one(member))[member]
        if states.has_checkpoint(session.directory):
            loaded = states.load_newest(alone(), session.directory)
            loaded.restore(trainer, loaded.member(alone(), member))
            session.state.best_checkpoint, session.state.best_accuracy = (
                loaded.state.best_checkpoint,
                loaded.state.best_accuracy,
            )
        if not trainer.position.finished.startswith(
            LOST
        ):  # with an earlier death, after which rank 0 kept it
            trainer.position.finished = f"{LOST} with {dead} after epoch {trainer.position.epoch}"
        session.trainers[member] = trainer


def _complete_history(session: Session) -> None:
    """Give all ranks the records that any of them has, and the file those that the dead rank did
    not come to write. Collective.
    """
    path, known = session.directory / "history.jsonl", [*session.state.history, *session.pending]
    session.state.history, session.pending = complete_records(session.comm, path, known), []
