"""A run from start (or checkpoint) to test result: members in groups of ranks, trained leg by
leg, decisions taken by all.
"""

import math
import shlex
import signal
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ensync.core.activity import Doing, doing, tick
from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError, printable
from ensync.core.signals import AGAIN, StopRequest
from ensync.kernels.thread_tuner import ThreadTuner
from ensync.kernels.threads import thread_limit
from ensync.mpi.allreduce import replicas_equal
from ensync.mpi.world import Comm, agree_any, on_root, share
from ensync.nn.memory import Workspace
from ensync.nn.models import zoo
from ensync.nn.network import Network
from ensync.nn.optimizers import Optimizer
from ensync.report.console import Console
from ensync.report.history import History, rebuild
from ensync.report.text import plural
from ensync.runs import state as states
from ensync.runs.data import SplitLoaders
from ensync.runs.identity import Identity
from ensync.runs.memory import rows_at_once
from ensync.runs.plan import (
    Plan,
    check_shards,
    first_members,
    make_plan,
    rows_of,
    settle_members,
    starts_together,
)
from ensync.runs.reducers import choose
from ensync.storage.lock import confirm
from ensync.training.evaluation import estimate_statistics, evaluate_block
from ensync.training.position import DIVERGED, UNUSABLE
from ensync.training.trainer import VALIDATED, Trainer


class Stopped(EnsyncError):
    """The run was asked to stop; its state is in a checkpoint."""

    def __init__(self, given: str, expected: str, action: str, exit_code: int) -> None:
        super().__init__(given, expected, action)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return (Stopped, (self.given, self.expected, self.action, self.exit_code))

    def __str__(self) -> str:
        return printable(f"{self.given}; {self.action}.")

    def of_part(self, part: str, whole: str) -> "Stopped":
        """Return it as told of a part of something larger, which `whole` continues."""
        return Stopped(
            f"{self.given}, in {part}",
            "",
            f"{self.action} that alone, {whole} all of it",
            self.exit_code,
        )


@dataclass
class Session:
    """Everything of a run on this rank. Build with `start` or `resume`, then `run`, then score
    (strategies.results).
    """

    comm: Comm
    job: Job
    loaders: SplitLoaders
    console: Console
    stop_request: StopRequest
    state: states.RunState
    plan: Plan
    trainers: dict[int, Trainer]
    begun: float = field(default_factory=time.perf_counter)
    pending: list[dict[str, Any]] = field(
        default_factory=list
    )  # this rank's records on their way to the others

    @property
    def directory(self) -> Path:
        """The run's output directory."""
        return Path(self.job.output.directory)

    @property
    def elapsed(self) -> float:
        """Seconds of training and validation so far, those before a resume included, without the
        writing of checkpoints.
        """
        return self.state.elapsed + time.perf_counter() - self.begun

    def run(self) -> None:
        """Train until every member is done. Collective. Raises Stopped after a checkpoint when
        any rank got a signal.
        """
        trainers = self.trainers.values()
        starts = [sum(steps) for steps in zip(*(t.starts for t in trainers), strict=True)]
        with self._tuned(), self.console.training(starts[1:], sum(t.steps_done for t in trainers)):
            while (target := self._target()) is not None:
                self._leg(*target)
        self._check_replicas("at the end")

    def _tuned(self) -> AbstractContextManager[Any]:
        """Let the members train on as many threads as are fastest, where the job leaves their
        number open.
        """
        if self.job.training.threads or thread_limit() == 1:
            return nullcontext()
        tuner = ThreadTuner(self.console.warn)
        for trainer in self.trainers.values():
            trainer.tuner = tuner
        return tuner

    def _target(self) -> tuple[int, int] | None:
        """Return (epoch, step) up to which all members train next, None when all are done.
        Collective.
        """
        mine = [
            (t.position.epoch, t.position.step) for t in self.trainers.values() if not self._done(t)
        ]
        least = [p for p in share(self.comm, min(mine, default=None)) if p is not None]
        if not least:
            return None
        epoch, step = min(least)
        every = self.job.checkpoint.every_steps
        return epoch, (step // every + 1) * every if every else 1 << 62

    def _done(self, trainer: Trainer) -> bool:
        return bool(trainer.position.finished) or trainer.position.epoch >= self.last_epoch

    @property
    def last_epoch(self) -> int:
        """The epoch at which this phase ends: members part after the synchronous start."""
        if self.plan.members < self.job.ensemble.members and starts_together(self.job):
            return min(self.job.ensemble.synchronous_epochs, self.job.training.epochs)
        return self.job.training.epochs

    def _leg(self, epoch: int, step: int) -> None:
        """Train every member up to the target, validate where an epoch ended, save, and stop
        when asked to.
        """
        records, stop = [], 0
        for trainer in self.trainers.values():
            if self._done(trainer) or trainer.position.epoch > epoch:
                continue
            if trainer.position.step < step:
                with doing(Doing.TRAINING):
                    stop |= trainer.train(step - trainer.position.step)
            trainer.note_divergence()
            if trainer.position.finished:
                records.append(
                    self._record(
                        trainer,
                        trainer.position.epoch + 1,
                        trainer.figures() | {"train_loss": math.nan, "train_accuracy": math.nan},
                    )
                )
            elif trainer.epoch_done:
                with doing(Doing.EVALUATING):
                    records.append(self._close_epoch(trainer))
        gathered = self._note_records(records)
        self.loaders.check_unchanged(self.comm, self.console)
        fallen = {
            record["member"]: record["ended"]
            for record in gathered
            if record.get("ended", "").startswith(DIVERGED)
        }
        self._set_back(fallen)
        stopping = agree_any(self.comm, bool(stop or self.stop_request.number))
        self._save_if_due(
            [record for record in gathered if record["member"] not in fallen], stopping
        )
        if stopping:
            raise self._stopped()

    def _close_epoch(self, trainer: Trainer) -> dict[str, Any]:
        """Validate on the ranks of the member and return the epoch's record. Collective over
        these ranks.
        """
        figures, found = trainer.close_epoch(), {}
        self._settle_average(trainer)
        if len(self.loaders.validation):
            loss, accuracy = self._validate(trainer)
            trainer.note_validation(loss)
            found = {"validation_loss": loss, "validation_accuracy": accuracy}
        every = self.job.training.check_replicas
        if every and trainer.position.epoch % every == 0:
            self._check_trainer(trainer, f"after epoch {trainer.position.epoch}")
        return self._record(trainer, trainer.position.epoch, figures | found)

    def _record(self, trainer: Trainer, epoch: int, figures: dict[str, float]) -> dict[str, Any]:
        """Return what the history says of an epoch of a member, without figures that are no
        numbers, and why it was the last one.
        """
        record = {
            "event": "epoch",
            "member": trainer.member,
            "epoch": epoch,
            "step": trainer.optimizer.steps,
            "validation_loss": None,
            "validation_accuracy": None,
        }
        record |= {
            name: value if math.isfinite(value) else None for name, value in figures.items()
        } | {"elapsed": self.elapsed}
        if trainer.position.finished or trainer.position.epoch >= self.job.training.epochs:
            record["ended"] = trainer.position.ended(self.job.training.epochs)
        return record

    def _settle_average(self, trainer: Trainer) -> None:
        """Give the average of the weights the statistics that belong to it; those of the network
        in training stay. Collective over the member's ranks.
        """
        if trainer.average and len(trainer.network.statistics):
            part = trainer.reducer.part
            with trainer.using(VALIDATED) as network:
                estimate_statistics(network, trainer.loader, trainer.rows, self.job, part)
                trainer.average["statistics"][:] = network.statistics

    def _validate(self, trainer: Trainer) -> tuple[float, float]:
        """Return a member's validation loss and accuracy, the same bits on all its ranks.
        Collective over them.
        """
        loader, group = self.loaders.validation, self.plan.comm
        with trainer.using(VALIDATED):
            _, _, losses, correct = evaluate_block(
                trainer.network, loader, group.size, group.rank, self.job.training.deterministic
            )
        parts = share(group, (losses, correct))
        loss = math.fsum(loss for losses, _ in parts for loss in losses)  # exact, so of no order
        return loss / len(loader), sum(correct for _, correct in parts) / len(loader)

    def _note_records(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Collect the members' records on rank 0, show and append them; return them on every
        rank. Collective.
        """
        self.pending = records if self.plan.comm.rank == 0 else []
        gathered = [r for part in share(self.comm, self.pending) for r in part]
        self.state.history.extend(gathered)
        self.pending = []
        if gathered and self.comm.rank == 0:
            confirm(self.directory)
            History(self.directory / "history.jsonl").append(*gathered)
            self.console.epoch(gathered, self.job.training.epochs)
        return gathered

    def _set_back(self, ended: dict[int, str]) -> None:
        """Give members that diverged the state that the newest checkpoint has of them, or their
        start, for a resume to go on from. Collective.
        """
        if not ended:
            return
        held = on_root(self.comm, lambda: states.has_checkpoint(self.directory))
        loaded = states.load_newest(self.comm, self.directory) if held else None
        for member, why in ended.items():
            found = loaded.member(self.comm, member) if loaded else {}
            if trainer := self.trainers.get(member):
                if loaded:
                    loaded.restore(trainer, found)
                else:
                    trainer.restart()
                trainer.position.finished = why
            epoch = loaded.attributes["positions"][member]["epoch"] if loaded else 0
            who = f"member {member}" if self.plan.members > 1 else "the network"
            self.console.warn(
                f"{who} {why}; it is kept as it was after {plural(epoch, 'epoch')}, from where "
                f"{self.remedy} trains it on"
            )

    @property
    def remedy(self) -> str:
        """The command that trains members on that diverged."""
        return (
            f"`ensync resume {shlex.quote(str(self.directory))} --set "
            f"optimizer.learning_rate={self.job.optimizer.learning_rate / 10:g}`"
        )

    def _save_if_due(self, ended: list[dict[str, Any]], stopping: bool) -> None:
        c = self.job.checkpoint
        epoch = max((r["epoch"] for r in ended), default=0)
        last = self._target() is None
        if (
            stopping
            or last
            or (ended and c.every_epochs and epoch % c.every_epochs == 0)
            or (not ended and c.every_steps)
        ):
            self.save()

    def save(self) -> str:
        """Write a checkpoint; return its file name. Collective."""
        for trainer in self.trainers.values():
            if trainer.position.step:
                self._settle_average(trainer)
        before, self.state.elapsed = self.state.elapsed, self.elapsed
        begun = time.perf_counter()
        try:
            with doing(Doing.SAVING):
                name = states.save(
                    self.comm, self.directory / "checkpoints", self.state, self.plan, self.trainers
                )
            with doing(Doing.MEETING):
                # the others slept while rank 0 wrote: their waking is no training either
                self.comm.Barrier()
            return name
        finally:
            self.state.elapsed = before
            self.begun += time.perf_counter() - begun

    def _stopped(self) -> Stopped:
        number = max(share(self.comm, int(self.stop_request.number)))
        position = min((t.position.epoch, t.position.step) for t in self.trainers.values())
        where = plural(position[0], "epoch") + (
            f" and {plural(position[1], 'step')}" if position[1] else ""
        )
        where = share(self.comm, where)[0]
        return Stopped(
            f"stopped by {signal.Signals(number).name} after {where}, with a checkpoint",
            "",
            f"`ensync resume {self.directory}` continues",
            75 if number in AGAIN else 130,
        )

    def close(self) -> None:
        """Give the shared memory of the members' sums back; they cannot be trained any more.
        Collective.
        """
        for trainer in self.trainers.values():
            trainer.reducer.close()

    def _check_replicas(self, when: str) -> None:
        for trainer in self.trainers.values():
            self._check_trainer(trainer, when)

    def _check_trainer(self, trainer: Trainer, when: str) -> None:
        """Refuse replicas that differ by a bit. Collective over the member's ranks."""
        network = trainer.network
        if not all(
            [
                replicas_equal(self.plan.comm, vector)
                for vector in (network.parameters, network.statistics)
            ]
        ):
            raise EnsyncError(
                f"the replicas of member {trainer.member} differ {when}",
                "the same bits on all its ranks",
                "look for ranks of different CPU types or library versions (`ensync doctor`)",
            )

    def idle(self) -> bool:
        """Whether there is nothing left to train. Collective."""
        return self._target() is None and self.last_epoch == self.job.training.epochs

    def ended(self) -> dict[int, str]:
        """Return why each member's training ended, or how far it is, on every rank. Collective."""
        mine = {m: t.position.ended(self.job.training.epochs) for m, t in self.trainers.items()}
        return dict(sorted((m, why) for part in share(self.comm, mine) for m, why in part.items()))

    @property
    def failed(self) -> dict[int, str]:
        """The members that diverged or were lost, with the reason, on every rank. Collective."""
        return {m: why for m, why in self.ended().items() if why.startswith(UNUSABLE)}


def build_network(
    job: Job, identity: Identity, ranks: int, workspace: Workspace | None = None
) -> Network:
    """Return the job's network with buffers for this rank's share (or one virtual shard) of what
    goes through it at once.

    workspace: of networks that never compute at the same time as this one.
    """
    rows = rows_at_once(job, identity.sizes["train"], ranks)
    return zoo.build(job, identity.shape, identity.classes, rows, workspace)


def build_trainers(
    comm: Comm,
    job: Job,
    loaders: SplitLoaders,
    plan: Plan,
    console: Console,
    stop_request: StopRequest,
) -> dict[int, Trainer]:
    """Return this rank's members with their start values."""
    trainers: dict[int, Trainer] = {}

    def progress(trainer: Trainer) -> None:
        tick(trainer.optimizer.steps)
        p = trainer.position
        done = sum(t.steps_done for t in trainers.values())
        console.step(done, p.loss_sum / max(p.samples, 1))

    check_shards(job, comm.size, plan.members)
    workspace = Workspace()
    for member in plan.mine:
        network = build_network(job, loaders.identity, plan.comm.size, workspace)
        optimizer = Optimizer(job.optimizer, len(network.parameters), network.dtype)
        shards = job.training.virtual_shards
        build_replica = partial(build_network, job, loaders.identity, shards, workspace)
        reducer = choose(job, plan.comm, network, optimizer, build_replica)
        rows = rows_of(job, loaders.train.labels, plan.members, member)
        trainers[member] = Trainer(
            job,
            member,
            network,
            optimizer,
            reducer,
            loaders.train_of(rows),
            rows,
            stop_request,
            progress,
        )
        trainers[member].restart()
    loaders.check_shards(comm)
    return trainers


def start(
    comm: Comm, job: Job, loaders: SplitLoaders, console: Console, stop_request: StopRequest
) -> Session:
    """Return a session at epoch 0. Collective."""
    job = settle_members(job, comm.size)
    plan = make_plan(comm, first_members(job))
    state = states.RunState(job, plan.members, loaders.identity.fingerprint, loaders.identity)
    return Session(
        comm,
        job,
        loaders,
        console,
        stop_request,
        state,
        plan,
        build_trainers(comm, job, loaders, plan, console, stop_request),
    )


def _check_same(begun: Job, job: Job, within_epoch: bool) -> None:
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
        old, new = (getattr(getattr(j, section), key) for j in (begun, job))
        if old != new:
            raise EnsyncError(
                f"{name} = {new!r} for a run that was begun with {old!r}",
                "the value that the run was begun with",
                "leave it out, or train afresh with --set output.directory=DIR",
            )


def resume(
    comm: Comm,
    loaded: states.Loaded,
    job: Job,
    loaders: SplitLoaders,
    console: Console,
    stop_request: StopRequest,
) -> Session:
    """Return a session that continues from a checkpoint, on any number of ranks. Collective."""
    state = loaded.state
    state.identity = loaded.accept(loaders.dataset)
    _check_same(state.job, job, any(p["step"] for p in loaded.attributes["positions"]))
    begun, state.job = state.job, job
    plan = make_plan(comm, state.members)
    trainers = build_trainers(comm, job, loaders, plan, console, stop_request)
    for member in range(state.members):
        found = loaded.member(comm, member)
        if member in trainers:
            loaded.restore(trainers[member], found)
            trainers[member].go_on()
    session = Session(comm, job, loaders, console, stop_request, state, plan, trainers)
    _cut_history(session, loaded)
    _say_rate(session, begun)
    return session


def _cut_history(session: Session, loaded: states.Loaded) -> None:
    """Forget the records of epochs that are trained again, and why members that go on had ended.
    Collective.
    """
    path, state, ended = session.directory / "history.jsonl", session.state, session.ended()
    if told := on_root(session.comm, lambda: rebuild(path, state.history)):
        session.console.warn(told)
    reached = [p["epoch"] for p in loaded.attributes["positions"]]
    kept = [record for record in state.history if record["epoch"] <= reached[record["member"]]]
    state.history = [
        {k: v for k, v in record.items() if k != "ended" or v == ended[record["member"]]}
        for record in kept
    ]
    on_root(session.comm, lambda: rebuild(path, state.history))


def _say_rate(session: Session, begun: Job) -> None:
    """Say how the learning rate goes on where other settings than before change it."""
    job, trainer = session.job, next(iter(session.trainers.values()))
    now, before = trainer.learning_rate, trainer.rate_of(begun)
    if not math.isclose(now, before):
        over = (
            f": cosine over {job.training.epochs} epochs, before over {begun.training.epochs}"
            * (job.schedule.name == begun.schedule.name == "cosine")
        )
        session.console.line(
            f"the learning rate goes on at {now:.3g}, after {trainer.rate_of(begun, 1):.3g} in "
            f"the last step{over}"
        )
