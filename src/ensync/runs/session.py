"""A run in training: members in groups of ranks, trained leg by leg, decisions taken by all."""

import math
import shlex
import signal
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensync.core.activity import Doing, doing
from ensync.core.config.job import plain_settings
from ensync.core.config.schema import Job
from ensync.core.signals import AGAIN
from ensync.kernels.thread_tuner import ThreadTuner
from ensync.kernels.threads import thread_limit
from ensync.mpi.mesh import Mesh
from ensync.mpi.world import Comm, agree_any, on_root, share
from ensync.report.callbacks import TrainStart
from ensync.report.console import Console
from ensync.report.history import History
from ensync.report.text import plural
from ensync.runs.context import RunContext
from ensync.runs.data import SplitLoaders
from ensync.runs.records import epoch_record
from ensync.runs.schema import EpochRecord
from ensync.runs.speeds import follow_speeds, rows_of_ranks
from ensync.runs.state import RunState, has_checkpoint, load_newest
from ensync.runs.state import save as save_run
from ensync.runs.stopped import Stopped
from ensync.runs.validation import check_replicas, estimate_average_statistics, validate
from ensync.storage.lock import confirm
from ensync.strategies.strategy import Phase
from ensync.training.position import DIVERGED, UNUSABLE
from ensync.training.trainer import Trainer


@dataclass
class Session:
    """A phase of a run on this rank. Made by `start` or `resume` (runs.start); then `run`, and
    test (runs.results).

    pending: this rank's records on their way to the others. sent_before: bytes that this rank
    passed to others in the phases before.
    """

    context: RunContext
    state: RunState
    mesh: Mesh
    trainers: dict[int, Trainer]
    started: float = field(default_factory=time.perf_counter)
    pending: list[EpochRecord] = field(default_factory=list)
    sent_before: int = 0

    @property
    def comm(self) -> Comm:
        """All ranks of the run."""
        return self.context.comm

    @property
    def job(self) -> Job:
        """The job, with its number of members."""
        return self.context.job

    @property
    def loaders(self) -> SplitLoaders:
        """The dataset."""
        return self.context.loaders

    @property
    def console(self) -> Console:
        """Where the run tells how it goes."""
        return self.context.console

    @property
    def directory(self) -> Path:
        """The run's output directory."""
        return self.context.directory

    @property
    def elapsed(self) -> float:
        """Seconds of training and validation so far, those before a resume included, without the
        writing of checkpoints.
        """
        return self.state.elapsed + time.perf_counter() - self.started

    @property
    def sent(self) -> int:
        """Bytes that this rank has passed to others in training since the program started."""
        return self.sent_before + sum(t.reducer.bytes for t in self.trainers.values())

    def run(self) -> None:
        """Train until every member is done. Collective. Raises Stopped after a checkpoint when
        any rank got a signal.
        """
        trainers = self.trainers.values()
        starts = [sum(steps) for steps in zip(*(t.starts for t in trainers), strict=True)]
        with self._tuned(), self.console.training(starts[1:], sum(t.steps_done for t in trainers)):
            while (target := self._target()) is not None:
                self._train_leg(*target)
        for trainer in trainers:
            check_replicas(trainer, self.mesh.data, "at the end")
            whole = self.last_epoch == self.job.training.epochs and not trainer.position.finished
            if whole and (remark := trainer.reducer.remark):
                self.console.warn(remark)

    @property
    def train_start(self) -> TrainStart:
        """What callbacks are told before the first step."""
        members = self.context.strategy.members(self.comm.size)
        epoch = max((record["epoch"] for record in self.state.history), default=0)
        job = plain_settings(self.job)
        return TrainStart(directory=self.directory, job=job, members=members, epoch=epoch)

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
        return trainer.done or trainer.position.epoch >= self.last_epoch

    @property
    def phase(self) -> Phase:
        """The phase of the training that this session is."""
        phases = self.context.strategy.phases(self.comm.size)
        return next((each for each in phases if each.members == self.mesh.members), phases[-1])

    @property
    def last_epoch(self) -> int:
        """The epoch at which this phase ends."""
        return self.phase.last_epoch

    def _train_leg(self, epoch: int, step: int) -> None:
        """Train every member up to the target, validate where an epoch ended, save, and stop
        when asked to.
        """
        records: list[EpochRecord] = []
        stop = 0
        for trainer in self.trainers.values():
            if self._done(trainer) or trainer.position.epoch > epoch:
                continue
            if trainer.position.step < step:
                with doing(Doing.TRAINING):
                    stop |= trainer.train(step - trainer.position.step)
            records += self._records_of(trainer)
        self._judge(records)
        gathered = self._note_records(records)
        self.loaders.check_unchanged(self.comm, self.console)
        diverged = {
            record["member"]: record["ended"]
            for record in gathered
            if record.get("ended", "").startswith(DIVERGED)
        }
        self._restore_diverged(diverged)
        trouble = self.context.callbacks.epochs(self.comm, gathered, self.mesh.members)
        stopping = agree_any(self.comm, bool(stop or self.context.stop_request.number))
        self._save_if_due(
            [record for record in gathered if record["member"] not in diverged],
            stopping or trouble is not None,
        )
        if trouble is not None:
            raise trouble
        if stopping:
            raise self._stopped()

    def _records_of(self, trainer: Trainer) -> list[EpochRecord]:
        """Return the record of the epoch that a member's leg has ended, if any. Collective over
        the member's ranks.
        """
        trainer.check_parameters()
        if trainer.position.finished:
            figures = trainer.figures() | {"train_loss": math.nan, "train_accuracy": math.nan}
            return [epoch_record(trainer, trainer.position.epoch + 1, figures, self.elapsed)]
        if trainer.epoch_done:
            with doing(Doing.EVALUATING):
                return [self._close_epoch(trainer)]
        return []

    def _close_epoch(self, trainer: Trainer) -> EpochRecord:
        """Validate on the ranks of the member and return the epoch's record. Collective over
        these ranks.
        """
        shares = rows_of_ranks(trainer, self.mesh.data.size) if trainer.shares else []
        figures, found = trainer.close_epoch(), {}
        follow_speeds(trainer, self.mesh.data, self.console)
        estimate_average_statistics(trainer)
        if len(self.loaders.validation):
            loss, accuracy = validate(trainer, self.loaders.validation, self.mesh.data)
            trainer.after_validation(loss)
            found = {"validation_loss": loss, "validation_accuracy": accuracy}
        every = self.job.training.check_replicas
        if every and trainer.position.epoch % every == 0:
            check_replicas(trainer, self.mesh.data, f"after epoch {trainer.position.epoch}")
        record = epoch_record(trainer, trainer.position.epoch, figures | found, self.elapsed)
        if shares:
            record["shares"] = shares
        return record

    def _judge(self, records: list[EpochRecord]) -> None:
        """Note in the records of epochs how the members do together, where the context asks for
        it; that takes none of the run's seconds. Collective.
        """
        judge = self.context.judge
        if judge is None or not agree_any(self.comm, bool(records)):
            return
        start = time.perf_counter()
        with doing(Doing.EVALUATING):
            accuracy = judge(self)
        if accuracy is not None:
            for record in records:
                record["fused_validation_accuracy"] = accuracy
        self.started += time.perf_counter() - start

    def _note_records(self, records: list[EpochRecord]) -> list[EpochRecord]:
        """Collect the members' records on rank 0, show and append them; return them on every
        rank. Collective.
        """
        self.pending = records if self.mesh.is_first else []
        gathered = [r for part in share(self.comm, self.pending) for r in part]
        self.state.history.extend(gathered)
        self.pending = []
        if gathered and self.comm.rank == 0:
            confirm(self.directory)
            History(self.directory / "history.jsonl").append(*gathered)
            self.console.epoch(gathered, self.job.training.epochs)
        return gathered

    def _restore_diverged(self, ended: dict[int, str]) -> None:
        """Give members that diverged the state that the newest checkpoint has of them, or their
        start, for a resume to go on from. Collective.
        """
        if not ended:
            return
        held = on_root(self.comm, lambda: has_checkpoint(self.directory))
        loaded = load_newest(self.comm, self.directory) if held else None
        for member, why in ended.items():
            found = loaded.member(self.comm, member) if loaded else {}
            if trainer := self.trainers.get(member):
                if loaded:
                    loaded.restore(trainer, found)
                else:
                    trainer.restart()
                trainer.position.finished = why
            epoch = loaded.attributes["positions"][member]["epoch"] if loaded else 0
            who = f"member {member}" if self.mesh.members > 1 else "the network"
            self.console.warn(
                f"{who} {why}; it is kept as it was after {plural(epoch, 'epoch')}, {self._advice}"
            )

    @property
    def _advice(self) -> str:
        """What is said of a member that diverged and is kept as it was before."""
        if self.context.compared:
            return (
                "and left out here: lower optimizer.learning_rate for all that is compared, or let "
                "a study try several (study.trials)"
            )
        return f"from where {self.remedy} trains it on"

    @property
    def remedy(self) -> str:
        """The command that trains members on that diverged."""
        return (
            f"`ensync resume {shlex.quote(str(self.directory))} --set "
            f"optimizer.learning_rate={self.job.optimizer.learning_rate / 10:g}`"
        )

    def _save_if_due(self, ended: list[EpochRecord], stopping: bool) -> None:
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
                estimate_average_statistics(trainer)
        before, self.state.elapsed = self.state.elapsed, self.elapsed
        start = time.perf_counter()
        try:
            with doing(Doing.SAVING):
                name = save_run(
                    self.mesh, self.directory / "checkpoints", self.state, self.trainers
                )
            with doing(Doing.MEETING):
                # the others slept while rank 0 wrote: their waking is no training either
                self.comm.Barrier()
            return name
        finally:
            self.state.elapsed = before
            self.started += time.perf_counter() - start

    def _stopped(self) -> Stopped:
        number = max(share(self.comm, int(self.context.stop_request.number)))
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

    def idle(self) -> bool:
        """Whether there is nothing left to train. Collective."""
        return self._target() is None and self.last_epoch == self.job.training.epochs

    def ended(self) -> dict[int, str]:
        """Return why each member's training ended, or how far it is, on every rank. Collective."""
        mine = {m: t.ended for m, t in self.trainers.items()}
        return dict(sorted((m, why) for part in share(self.comm, mine) for m, why in part.items()))

    @property
    def failed(self) -> dict[int, str]:
        """The members that diverged or were lost, with the reason, on every rank. Collective."""
        return {m: why for m, why in self.ended().items() if why.startswith(UNUSABLE)}
