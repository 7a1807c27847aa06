"""The course of a session: through the parting of its members, and the death of ranks where the MPI
survives it, to its end.

A rank that dies costs its members, not the run: the others train on and are fused without them.
Rank 0 keeps what the newest checkpoint holds of a lost member in those to come, so that a later
`ensync resume` trains it to its end.
"""

from collections.abc import Callable
from typing import TypeVar

from ensync.core.config.schema import Job
from ensync.core.signals import ask_to_stop
from ensync.mpi.survivors import Loss, is_loss, possible, survivors
from ensync.mpi.world import alone, on_root, share
from ensync.report.console import SilentConsole, make_console
from ensync.report.history import History, readable_records
from ensync.report.text import plural
from ensync.runs import state as states
from ensync.runs.plan import Plan, make_plan, starts_together
from ensync.runs.session import Session, build_trainers
from ensync.storage.lock import hold
from ensync.training.position import LOST, Position

T = TypeVar("T")


def train(session: Session) -> Session:
    """Run a session to its end, through the parting of the members where they start together.
    Collective.
    """
    retry(session, session.run)
    if session.last_epoch < session.job.training.epochs and not session.failed:
        session = part(session)
        retry(session, session.run)
    return session


def part(session: Session) -> Session:
    """Return the session of the ensemble whose members start from the replica trained so far, as
    it is and not as it is tested. Collective.
    """
    old = next(iter(session.trainers.values()))
    old.reducer.gather_state(old.optimizer)
    plan = make_plan(session.comm, session.job.ensemble.members)
    trainers = build_trainers(
        session.comm, session.job, session.loaders, plan, session.console, session.stop_request
    )
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
    session.state.members = plan.members
    apart = Session(
        session.comm,
        session.job,
        session.loaders,
        session.console,
        session.stop_request,
        session.state,
        plan,
        trainers,
        session.begun,
    )
    apart.save()  # what a member that diverges in its first epoch is set back to
    return apart


def close(session: Session) -> None:
    """Give back what a session holds of MPI beside its loaders; it cannot be trained any more.
    Collective.
    """
    session.close()
    session.plan.comm.Free()


def can_lose(job: Job, ranks: int) -> bool:
    """Whether the run can go on without a rank: the MPI can, and no two ranks ever train a
    network together.
    """
    members = job.ensemble.members or ranks
    return (
        possible()
        and job.training.strategy == "ensemble"
        and members >= ranks
        and not starts_together(job)
    )


def retry(session: Session, work: Callable[[], T]) -> T:
    """Return work(), begun again after each death of a rank that the session can do without.
    Collective.
    """
    loss = None
    while True:
        try:
            if loss is not None:
                _lose(session, loss)
            return work()
        except Exception as error:
            if not (is_loss(error) and can_lose(session.job, session.comm.size)):
                raise
            loss = survivors(session.comm)


def _lose(session: Session, loss: Loss) -> None:
    """Leave out the members of the dead ranks, and save what the others have. Collective over
    the living.
    """
    plan, session.comm = session.plan, loss.comm
    lost = [member for member, owner in enumerate(plan.owners) if loss.moved[owner] < 0]
    session.plan = Plan(
        plan.members, plan.comm, plan.mine, [max(loss.moved[owner], 0) for owner in plan.owners]
    )
    if session.comm.rank == 0 and isinstance(session.console, SilentConsole):
        session.console = make_console(0)
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
        plan = Plan(session.plan.members, alone(), range(member, member + 1), session.plan.owners)
        trainer = build_trainers(
            alone(), session.job, session.loaders, plan, session.console, session.stop_request
        )[member]
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
    known = {
        (r["epoch"], r["member"]): r
        for part in share(session.comm, [*session.state.history, *session.pending])
        for r in part
    }
    session.state.history, session.pending = [known[key] for key in sorted(known)], []

    def write() -> None:
        path = session.directory / "history.jsonl"
        written = {(r["epoch"], r["member"]) for r in readable_records(path)[0]}
        last = max((epoch for epoch, _ in written), default=0)
        if missing := [
            record for key, record in sorted(known.items()) if key[0] >= last and key not in written
        ]:
            History(path).append(*missing)

    on_root(session.comm, write)
