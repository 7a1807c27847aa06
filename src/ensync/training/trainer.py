"""The training loop: one network, from where it stands to the end of an epoch."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.core.sharding import epoch_order, global_span
from ensync.core.timeline import Timeline
from ensync.kernels.thread_tuner import ThreadTuner
from ensync.nn.network import COUNTED, Network
from ensync.nn.whitening import Images
from ensync.training.callbacks import (
    BestWeights,
    EarlyStopping,
    Plateau,
    WeightAverage,
    check_parameters,
    first_kept,
)
from ensync.training.learning_rate import EpochPlan, LearningRate, Part, largest_batch
from ensync.training.lookahead import Lookahead
from ensync.training.position import DIVERGED, Position
from ensync.training.profiled import ProfiledRunner
from ensync.training.reducers import PENDING
from ensync.training.runners import Replica, Runner, runner_of


@dataclass
class Trainer(Replica):
    """One network in training: where it stands, its best parameters and their moving average.

    progress: called after each call of the runner.
    """

    progress: Callable[["Trainer"], None] = lambda trainer: None
    position: Position = field(default_factory=Position)
    start_values: int = 0  # number of the random stream of its first parameters
    start_images: Callable[[], Images] | None = None  # of which its first filters may be made
    start_from: Callable[[Network], object] | None = None  # sets them where they are not drawn
    tuner: ThreadTuner | None = None  # where the number of threads is left to the program
    parts: Sequence[Part] = ()  # of its training, where it has other rows first or later
    timeline: Timeline | None = None  # where its steps are noted
    _order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))
    _counted: int = 0  # samples of the epoch whose losses have come together

    def __post_init__(self) -> None:
        batch = min(largest_batch(self.job), len(self.rows))
        if batch > COUNTED and self.network.dtype == np.float32:
            raise EnsyncError(
                f"a batch of {batch:,} samples in float32",
                f"at most {COUNTED:,}, which float32 can count",
                "lower training.batch or growth.largest_batch, or set training.precision = "
                "'float64'",
            )
        self.plan = EpochPlan(self.job, len(self.rows), self.parts)
        self.lookahead = Lookahead(self.job.lookahead, self.network)
        self.average = WeightAverage(self.job.training, self.network)
        self.best = BestWeights(self.job.training)
        self.early_stopping = EarlyStopping(self.job.training)
        self.plateau = Plateau(self.job.plateau, self.job.optimizer.learning_rate)

    def restart(self) -> None:
        """Take the start values."""
        self.network.initialize(self.job.training.seed, self.start_values, self.start_images)
        if self.start_from is not None:
            self.start_from(self.network)
        if self.optimizer.steps:  # the slots of a new one are zero; writing takes their memory
            for slot in self.optimizer.slots.values():
                slot[:] = 0
        self.optimizer.steps, self.position, self.best.vectors = 0, Position(), {}
        self.reducer.restart()
        self.lookahead.restart()
        self.average.restart()

    def reopen(self, before: Job) -> None:
        """Go back into the last epoch where training.max_steps of the job `before` had ended it
        too early for the job as it is now.
        """
        p, plan = self.position, replace(self.plan, job=before)
        length = plan.length if before.training.max_steps else p.epoch
        if not p.step and p.epoch - 1 < length < p.epoch and not self.done:
            p.epoch, p.step = p.epoch - 1, plan.end(p.epoch - 1)

    def resume(self) -> None:
        """Train on from a checkpoint, unless the patience with the validation loss is over or the
        parameters are not finite.
        """
        self.position.finished = ""
        self.best.resume(self.position)
        self.early_stopping.check(self.position)
        self.check_parameters()

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """Every vector by name, as views: parameters, statistics, those of the average, of
        lookahead, of the reducer and of the best epoch, slots of the optimiser.
        """
        named = {"parameters": self.network.parameters, "statistics": self.network.statistics}
        for prefix, group in (
            ("average/", self.average.vectors),
            ("lookahead/", self.lookahead.vectors),
            ("optimizer/", self.optimizer.slots),
            ("communication/", self.reducer.vectors),
            ("best/", self.best.vectors),
        ):
            named |= {prefix + name: values for name, values in group.items()}
        return named

    @property
    def batch(self) -> int:
        """The global batch of this network in the current epoch."""
        return self.plan.batch(self.position.epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Updates in the current epoch, of which the last may be a part."""
        return self.plan.end(self.position.epoch)

    @property
    def starts(self) -> list[int]:
        """The steps before each epoch, and those of the whole run, where all of it is trained on
        these rows.
        """
        return self.plan.starts

    @property
    def steps_done(self) -> int:
        """The steps of the run before the next one, counted as in `starts`."""
        return self.starts[self.position.epoch] + self.position.step

    @property
    def done(self) -> bool:
        """Whether training has ended."""
        return self.position.over(self.job.training, self.optimizer.steps)

    @property
    def ended(self) -> str:
        """Why training has ended, or how far it is."""
        return self.position.ended(self.job.training, self.optimizer.steps)

    @property
    def epoch_done(self) -> bool:
        """Whether every row of the current epoch was used, or every step of the run done."""
        return self.position.step >= self.steps_per_epoch

    @property
    def runner(self) -> Runner:
        """What does the steps of the current epoch."""
        runner = runner_of(self, self.batch)
        return runner if self.timeline is None else ProfiledRunner(runner, self.timeline)

    def train(self, steps: int | None = None) -> int:
        """Train up to `steps` steps, at most to the end of the epoch; return how many ranks were
        asked to stop. Collective.

        Rounded up to whole calls of the runner: its bits may depend on where calls are cut.
        """
        runner, end = self.runner, self.steps_per_epoch
        last = end if steps is None else self.position.step + steps
        last = min(-(-last // runner.steps) * runner.steps, end)
        start, self.reducer.left = time.perf_counter(), last - self.position.step
        self.reducer.run_steps = self.starts[-1]
        if self.shares is not None:
            self.shares.speeds = self.position.speeds
        with self.reducer:
            stop = self._run(runner, last)
        self.position.seconds += time.perf_counter() - start
        return stop

    def _run(self, runner: Runner, last: int) -> int:
        p, order, batch, rate = self.position, self._epoch_rows(), self.batch, self._rate
        while p.step < last:
            count = min(runner.steps, last - p.step)
            first, end = global_span(len(order), p.step, batch)
            if count > 1:
                end = global_span(len(order), p.step + count - 1, batch)[1]
            start = time.perf_counter() - self.reducer.seconds
            metrics = runner.run(order[first:end], p.epoch, rate.factors(p))
            if not math.isfinite(metrics.loss_sum):
                steps = f"{p.step + 1}" + f"..{p.step + count}" * (runner.steps > 1)
                self._note_divergence(steps, metrics.loss_sum)
                return metrics.stop
            self.lookahead.after_step(self.steps_done + count, self.starts[-1], self.reducer.meet)
            self.average.after_step(self.optimizer.steps)
            if self.tuner is not None and end - first == runner.steps * batch:
                self.tuner.note(time.perf_counter() - self.reducer.seconds - start)
            p.step += count
            p.samples += end - first
            p.loss_sum += metrics.loss_sum
            p.correct += metrics.correct
            if metrics is not PENDING:
                self._counted = p.samples - self.reducer.behind * batch
            self.progress(self)
            if metrics.stop:
                return metrics.stop
        return 0

    def _epoch_rows(self) -> np.ndarray:
        """The dataset rows of this epoch in their order, the same on every rank and for any
        number of ranks.
        """
        epoch = self.position.epoch
        if self._order[0] != epoch:
            order = epoch_order(
                len(self.rows), self.job.training.seed, epoch, self.loader.window, self.member
            )
            self._order = (epoch, self.rows[order])
        return self._order[1]

    def _note_divergence(self, steps: str, loss: float) -> None:
        p = self.position
        p.finished = f"{DIVERGED} in epoch {p.epoch + 1}, step {steps}: the loss is {loss}"

    @property
    def loss(self) -> float:
        """The mean loss of those samples of the epoch whose losses have come together, NaN before
        the first.
        """
        return self.position.loss_sum / self._counted if self._counted else math.nan

    def figures(self) -> dict[str, float]:
        """Return the training figures of the current epoch."""
        p = self.position
        return {
            "train_loss": p.loss_sum / max(p.samples, 1),
            "train_accuracy": p.correct / max(p.samples, 1),
            "seconds": p.seconds,
            "samples_per_second": p.samples / max(p.seconds, 1e-9),
            "learning_rate": self.learning_rate,
        }

    def close_epoch(self) -> dict[str, float]:
        """Return the epoch's training figures and move on to the next one."""
        p, figures = self.position, self.figures()
        if p.step == self.plan.steps(p.epoch):  # a longer run goes back into a part of an epoch
            self.reducer.after_epoch(figures["train_accuracy"])
        p.epoch, p.step = p.epoch + 1, 0
        p.loss_sum, p.correct, p.samples, p.seconds = 0.0, 0, 0, 0.0
        self._counted = 0
        return figures

    @property
    def _rate(self) -> LearningRate:
        return LearningRate(self.job, self.plan)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self._rate(self.position)

    def rate_of(self, job: Job, back: int = 0) -> float:
        """Return the learning rate that the settings of a job give for the next step, or for the
        one so many steps `back`.
        """
        return LearningRate(job, self.plan)(self.position, back)

    def check_parameters(self) -> None:
        """Train no further where parameters or statistics are not finite."""
        check_parameters(self.position, self.network, self.reducer.anywhere)

    def after_validation(self, loss: float) -> None:
        """Lower the learning rate, keep the validated parameters or stop early, as the job says;
        `loss` is the same on all ranks.
        """
        p = self.position
        if not np.isfinite(loss):
            p.finished = f"{DIVERGED} in epoch {p.epoch}: the validation loss is {loss}"
            return
        self.plateau.after_validation(p, loss)
        self.best.after_validation(p, loss, self.vectors)
        self.early_stopping.check(p)

    @contextmanager
    def using(self, kinds: Sequence[str]) -> Iterator[Network]:
        """Have the parameters and statistics that are the first kept of these kinds in the
        network within the block.
        """
        live, chosen = first_kept(self.vectors, ("",)), first_kept(self.vectors, kinds)
        if chosen["parameters"] is live["parameters"]:
            yield self.network
            return
        before = {name: values.copy() for name, values in live.items()}
        try:
            for name, values in live.items():
                values[:] = chosen[name]
            yield self.network
        finally:
            for name, values in live.items():
                values[:] = before[name]
