"""The loop: one network, its batches, an allreduce per step."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import numpy as np

from ensync.core.config.schema import Augmentation, Job
from ensync.core.errors import EnsyncError
from ensync.core.sharding import Purpose, block, epoch_order, global_span, key64, steps_per_epoch
from ensync.kernels.dense import online
from ensync.kernels.optim import updates
from ensync.kernels.thread_tuner import ThreadTuner
from ensync.nn.layers.base import Step
from ensync.nn.layers.dense import Dense
from ensync.nn.network import COUNTED, Network
from ensync.nn.optimizers import Optimizer
from ensync.nn.schedules import growths, learning_rate_factor
from ensync.training.batches import Augmenter, BatchLoader
from ensync.training.position import DIVERGED, EARLY, Position
from ensync.training.reducers import Part, Reducer, SerialReducer

AS_THEY_ARE = Augmentation()
# samples between two looks at the clock and the signals while every sample is a step; a multiple of
# the kernel's blocks of 32
ONLINE = 1024
TESTED = (
    "best/",
    "average/",
    "",
    # whose parameters and statistics a network is tested with, the first that there are; "": those
    # in training
)
VALIDATED = TESTED[1:]  # and judged by after each epoch


@dataclass
class Trainer:
    """One network in training: its rows, optimiser and position, its best parameters and their
    moving average.
    """

    job: Job
    member: int
    network: Network
    optimizer: Optimizer
    reducer: Reducer
    loader: BatchLoader
    rows: np.ndarray  # of the training split, int64, the same on all ranks of the network
    stop_requested: Callable[[], int] = lambda: 0
    progress: Callable[["Trainer"], None] = lambda trainer: None
    position: Position = field(default_factory=Position)
    best: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # parameters and statistics as validated in the best epoch, where the job wants them
    average: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # of the parameters where the job wants one, and the statistics that belong to it
    tuner: ThreadTuner | None = None  # where the number of threads is left to the program
    _order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __post_init__(self) -> None:
        batch = min(largest_batch(self.job), len(self.rows))
        if batch > COUNTED and self.network.dtype == np.float32:
            raise EnsyncError(
                f"a batch of {batch:,} samples in float32",
                f"at most {COUNTED:,}, which float32 can count",
                "lower training.batch or growth.largest_batch, or set training.precision = "
                "'float64'",
            )
        self._begin_average()

    def _begin_average(self) -> None:
        if self.job.training.weight_average:
            self.average = {
                "parameters": self.network.parameters.copy(),
                "statistics": self.network.statistics.copy(),
            }

    def restart(self) -> None:
        """Take the start values."""
        self.network.initialize(
            self.job.training.seed, self.member if self.job.ensemble.start == "own" else 0
        )
        if (
            self.optimizer.steps
        ):  # of a new one the slots are zero, and a part of each may never be needed here
            for slot in self.optimizer.slots.values():
                slot[:] = 0
        self.optimizer.steps, self.position, self.best = 0, Position(), {}
        self._begin_average()

    def go_on(self) -> None:
        """Train on after a resume, but where the job's patience with the validation loss is over
        or the parameters are no numbers.
        """
        p = self.position
        p.finished = ""
        if not self.job.training.best_weights:
            self.best = {}
        elif not self.best:  # nobody kept those of the best epoch so far
            p.best_loss = float("inf")
        self.note_patience()
        self.note_divergence()

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """Every vector by name, as views: parameters, statistics, those of the average and of
        the best epoch, slots of the optimiser.
        """
        named = {"parameters": self.network.parameters, "statistics": self.network.statistics}
        for prefix, group in (
            ("average/", self.average),
            ("optimizer/", self.optimizer.slots),
            ("best/", self.best),
        ):
            named |= {prefix + name: values for name, values in group.items()}
        return named

    @property
    def batch(self) -> int:
        """The global batch of this network in the epoch at hand."""
        return self._batch_in(self.position.epoch)

    def _batch_in(self, epoch: int) -> int:
        wanted, growth = self.job.training.batch, self.job.growth
        if wanted == "full":
            return len(self.rows)
        grown: int = wanted * growth.batch ** growths(growth, wanted, epoch)
        return min(grown, len(self.rows))

    @property
    def steps_per_epoch(self) -> int:
        """Updates in the epoch at hand; the last batch may be smaller."""
        return steps_per_epoch(len(self.rows), self.batch)

    @cached_property
    def starts(self) -> list[int]:
        """The steps before each epoch, and those of the whole run, where all of it is trained on
        these rows.
        """
        return [
            0,
            *accumulate(
                steps_per_epoch(len(self.rows), self._batch_in(epoch))
                for epoch in range(self.job.training.epochs)
            ),
        ]

    @property
    def steps_done(self) -> int:
        """The steps of the run before the one at hand, counted as in `starts`."""
        return self.starts[self.position.epoch] + self.position.step

    def train(self, steps: int | None = None) -> int:
        """Train up to `steps` steps, at most to the end of the epoch; return how many ranks ask to
        stop. Collective.

        Where every sample is a step of the dedicated kernel, up to the next multiple of ONLINE: its
        bits depend on where its calls are cut.
        """
        last = self.steps_per_epoch if steps is None else self.position.step + steps
        run = self._run
        if self._is_online():
            run, last = self._run_online, -(-last // ONLINE) * ONLINE
        last = min(last, self.steps_per_epoch)
        start = time.perf_counter()
        with self.reducer:
            stop = run(last)
        self.position.seconds += time.perf_counter() - start
        return stop

    @property
    def epoch_done(self) -> bool:
        """Whether every row of the epoch at hand was used."""
        return self.position.step >= self.steps_per_epoch

    def figures(self) -> dict[str, float]:
        """Return the training figures of the epoch at hand."""
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
        p.epoch, p.step = p.epoch + 1, 0
        p.loss_sum, p.correct, p.samples, p.seconds = 0.0, 0, 0, 0.0
        return figures

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return self.rate_of(self.job)

    def rate_of(self, job: Job, back: int = 0) -> float:
        """Return the rate that a job has for the next step, or for the one so many steps `back`."""
        return job.optimizer.learning_rate * self._factor(job, back)

    def _factor(self, job: Job, back: int = 0) -> float:
        """What schedule, growth and plateaus make of the learning rate."""
        p, steps = self.position, self.steps_per_epoch
        epoch = p.epoch + (p.step >= steps)
        grown = (
            1.0
            if job.training.batch == "full"
            else job.growth.learning_rate ** growths(job.growth, job.training.batch, epoch)
        )
        return (
            learning_rate_factor(
                job.schedule, max(0, p.epoch * steps + p.step - back), steps, job.training.epochs
            )
            * grown
            * p.rate_factor
        )

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

    def _run(self, last: int) -> int:
        """Mini-batch steps: one gradient, summed over the ranks, and one update."""
        order, p, reducer = self._epoch_rows(), self.position, self.reducer
        while p.step < last:
            first, end = global_span(len(order), p.step, self.batch)
            start = time.perf_counter() - reducer.seconds
            compute = partial(self._compute, order[first:end])
            metrics = reducer.reduce(compute, self.stop_requested)
            if not math.isfinite(metrics.loss_sum):
                p.finished = (
                    f"{DIVERGED} in epoch {p.epoch + 1}, step {p.step + 1}: the loss is "
                    f"{metrics.loss_sum}"
                )
                return metrics.stop
            self._update()
            if self.tuner is not None and end - first == self.batch:
                self.tuner.note(time.perf_counter() - reducer.seconds - start)
            p.step += 1
            p.samples += end - first
            p.loss_sum += metrics.loss_sum
            p.correct += metrics.correct
            self.progress(self)
            if metrics.stop:
                return metrics.stop
        return 0

    def _update(self) -> None:
        """One step of the optimiser, and of the weights' average."""
        self.reducer.apply(self.optimizer, self._factor(self.job))
        if (
            self.average
        ):  # which starts with the parameters after the first step, as PyTorch's AveragedModel does
            share = 1 - self.job.training.weight_average if self.optimizer.steps > 1 else 1.0
            updates.follow(self.network.parameters, self.average["parameters"], share)

    def _compute(self, batch: np.ndarray, network: Network, part: Part) -> None:
        """Fill the network's message from a part of the global batch, slice by slice where that
        is large.
        """
        total, own = None, 0
        allreduce = part.allreduce if network.synchronizes_statistics else None
        step = Step(training=True, key=self._mask_key(), allreduce=allreduce)
        for first in range(0, len(batch), self.job.training.slice):
            rows = batch[first : first + self.job.training.slice]
            start, stop = block(len(rows), part.count, part.index)
            step.first_row = first + start
            inputs, labels = self.loader.load(rows[start:stop], network.inputs, self._changes())
            network.backward(inputs, labels, len(batch), step)
            own += stop - start
            if len(rows) < len(batch):
                total = (
                    network.message.copy()
                    if total is None
                    else np.add(total, network.message, out=total)
                )
        if total is not None:
            network.message[:] = total
        if network.averages_statistics:
            np.multiply(network.statistics, own / len(batch), out=network.statistics_share)

    def _changes(self) -> Augmenter | None:
        """The random changes of this epoch's images, where the job wants any."""
        settings = self.job.augmentation.of_epoch(self.position.epoch)
        if settings == AS_THEY_ARE:
            return None
        return Augmenter(
            settings,
            self.network.shape,
            key64(self.job.training.seed, Purpose.AUGMENTATION, self.member, self.position.epoch),
        )

    def _mask_key(self) -> int:
        if not self.network.dropouts:
            return 0
        return int(
            key64(self.job.training.seed, Purpose.DROPOUT, self.member, self.optimizer.steps)
        )

    def _is_online(self) -> bool:
        """Whether the one-sample-per-step kernel computes the same as _run: plain SGD, dense
        layers, one rank.
        """
        o, s = self.job.optimizer, self.job.schedule
        steady = s.warmup_epochs == 0 and (
            s.name == "constant" or (s.name == "step" and s.step_epochs == int(s.step_epochs))
        )
        plain = o.name == "sgd" and not (
            o.weight_decay
            or o.clip_norm
            or self.job.training.label_smoothing
            or self.job.training.weight_average
        )
        plain = plain and self.job.augmentation == AS_THEY_ARE and not self.job.growth.every_epochs
        return (
            self.batch == 1
            and isinstance(self.reducer, SerialReducer)
            and plain
            and steady
            and all(isinstance(x, Dense) for x in self.network.layers)
        )

    def _run_online(self, last: int) -> int:
        """One step per sample in the dedicated kernel, ONLINE samples per call."""
        order, p, network, loss = self._epoch_rows(), self.position, self.network, self.network.loss
        layers: list[Any] = network.layers
        sizes = np.array([layers[0].width, *(layer.units for layer in layers)], np.int64)
        codes = np.array([layer.code for layer in layers], np.int64)
        while p.step < last:
            rows = order[p.step : min(p.step + ONLINE, last)]
            images, places = self.loader.raw(rows)
            labels = (
                self.loader.labels
                if self.loader.in_memory
                else _labels_beside(self.loader.labels, rows, places, len(images))
            )
            start = time.perf_counter()
            loss_sum, correct = online.train_online(
                network.parameters,
                online.Layers(sizes, codes),
                online.Loss(
                    online.CROSS_ENTROPY if loss.is_cross_entropy else online.SQUARED_ERROR,
                    loss.low,
                    loss.high,
                    loss.factor(network.classes),
                ),
                online.Samples(images, labels, places, self.loader.mean, self.loader.inverse_std),
                self.learning_rate,
            )
            if not np.isfinite(loss_sum):
                p.finished = (
                    f"{DIVERGED} in epoch {p.epoch + 1}, step "
                    f"{p.step + 1}..{p.step + len(rows)}: the loss is {loss_sum}"
                )
                return self.stop_requested()
            if self.tuner is not None and len(rows) == ONLINE:
                self.tuner.note(time.perf_counter() - start)
            p.step += len(rows)
            self.optimizer.steps += len(rows)
            p.samples += len(rows)
            p.loss_sum += float(loss_sum)
            p.correct += int(correct)
            self.progress(self)
            if stop := self.stop_requested():
                return stop
        return 0

    def note_divergence(self) -> None:
        """Train no further where parameters or statistics are not finite. Of a loss that is not,
        the step itself tells.
        """
        p, network = self.position, self.network
        if not (
            p.finished
            or all(np.isfinite(values).all() for values in (network.parameters, network.statistics))
        ):
            p.finished = (
                f"{DIVERGED} in epoch {p.epoch + 1}, step {p.step}: the parameters are not finite"
            )

    def note_validation(self, loss: float) -> None:
        """Remember the parameters that were validated where they are the best, and stop early
        where the job says so; `loss` is the same on all ranks.
        """
        p, t = self.position, self.job.training
        if not np.isfinite(loss):
            p.finished = f"{DIVERGED} in epoch {p.epoch}: the validation loss is {loss}"
            return
        self._note_plateau(loss)
        if loss < p.best_loss:
            p.best_loss, p.best_epoch = loss, p.epoch
            if t.best_weights:
                self.best = {
                    name: values.copy()
                    for name, values in first_kept(self.vectors, VALIDATED).items()
                }
        self.note_patience()

    def note_patience(self) -> None:
        """Stop early where the job's patience with the validation loss is over, and only then."""
        p, t = self.position, self.job.training
        if t.early_stopping and p.epoch - p.best_epoch >= t.early_stopping:
            p.finished = (
                f"{EARLY} at epoch {p.epoch} of {t.epochs}: no better validation loss "
                f"since epoch {p.best_epoch}"
            )

    def _note_plateau(self, loss: float) -> None:
        """Reduce the learning rate after `patience` epochs without a better loss (the algorithm
        of Keras' ReduceLROnPlateau).
        """
        p, plateau = self.position, self.job.plateau
        if loss < p.plateau_loss - plateau.threshold:
            p.plateau_loss, p.plateau_epochs = loss, 0
            return
        p.plateau_epochs += 1
        if plateau.patience and p.plateau_epochs >= plateau.patience:
            least = min(1.0, plateau.minimum / self.job.optimizer.learning_rate)
            p.rate_factor, p.plateau_epochs = max(least, p.rate_factor * plateau.factor), 0

    @contextmanager
    def using(self, kinds: Sequence[str]) -> Iterator[Network]:
        """Have the parameters and statistics that are the first kept of these kinds in the
        network meanwhile.
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


def first_kept(
    vectors: Mapping[str, np.ndarray], kinds: Sequence[str] = TESTED
) -> dict[str, np.ndarray]:
    """Return parameters and statistics of the first of these kinds that is among a network's
    vectors by name (Trainer.vectors).

    The one place that says which of its vectors a network is tested with, or validated with.
    """
    kind = next((kind for kind in kinds if f"{kind}parameters" in vectors), "")
    return {
        name: vectors[kind + name]
        for name in ("parameters", "statistics")
        if kind + name in vectors
    }


def largest_batch(job: Job) -> int:
    """Return the largest batch of a job, however few rows there are."""
    wanted = job.training.batch
    return (
        sys.maxsize
        if wanted == "full"
        else wanted * job.growth.batch ** growths(job.growth, wanted, job.training.epochs - 1)
    )


def _labels_beside(
    labels: np.ndarray, rows: np.ndarray, places: np.ndarray, count: int
) -> np.ndarray:
    """Return labels int64 `(count,)` that lie beside streamed images: those of `rows` at their
    `places`.
    """
    beside = np.zeros(count, np.int64)
    beside[places] = labels[rows]
    return beside
