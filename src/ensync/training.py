"""The loop: one network, its batches, an allreduce per step."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

import numpy as np

from ensync.feed import Feed
from ensync.kernels import online
from ensync.nn.layers import Dense, Step
from ensync.nn.network import CORRECT, LOSS_SUM, STOP, Network
from ensync.nn.optimizers import Optimizer
from ensync.nn.schedules import learning_rate_factor
from ensync.settings import Job
from ensync.sharding import Purpose, block, epoch_order, global_span, key64, steps_per_epoch

SLICE = 512      # rows that go through the network at once; a larger local batch is added up in slices
ONLINE = 1000    # samples between two looks at the clock and the signals while every sample is a step


class Ranks(Protocol):
    """The ranks that train one network together (an MPI communicator)."""

    size: int
    rank: int


@dataclass
class Position:
    """Where a network stands: everything besides its vectors that a resumed run needs."""

    epoch: int = 0               # whole epochs done
    step: int = 0                # steps done in the epoch at hand
    loss_sum: float = 0.0        # of the samples seen in it
    correct: int = 0
    samples: int = 0
    seconds: float = 0.0         # of training in it
    best_loss: float = float("inf")
    best_epoch: int = 0
    finished: str = ""           # why it stopped early: "early stopping", "diverged ..."

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint's attributes; JSON knows no infinity."""
        return {k: (None if v == float("inf") else v) for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Position":
        """Read what as_dict wrote."""
        return cls(**{f.name: (f.default if values[f.name] is None else values[f.name]) for f in fields(cls)})


@dataclass
class Trainee:
    """One network in training on the ranks of `comm`: its rows, optimiser and position, and its best parameters so far."""

    comm: Ranks
    allreduce: Callable[[np.ndarray], None]
    job: Job
    member: int
    network: Network
    optimizer: Optimizer
    feed: Feed
    rows: np.ndarray                                     # of the training split, int64, the same on all ranks of comm
    stop_requested: Callable[[], int] = lambda: 0
    progress: Callable[["Trainee"], None] = lambda trainee: None
    position: Position = field(default_factory=Position)
    best: dict[str, np.ndarray] = field(default_factory=dict)
    _order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    @property
    def batch(self) -> int:
        """The global batch of this network."""
        wanted = self.job.training.batch
        return len(self.rows) if wanted == "full" else min(wanted, len(self.rows))

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one epoch; the last batch may be smaller."""
        return steps_per_epoch(len(self.rows), self.batch)

    def train(self, steps: int | None = None) -> int:
        """Train up to `steps` steps, at most to the end of the epoch; return how many ranks ask to stop. Collective."""
        last = self.steps_per_epoch if steps is None else min(self.position.step + steps, self.steps_per_epoch)
        run = self._run_online if self._is_online() else self._run
        start = time.perf_counter()
        stop = run(last)
        self.position.seconds += time.perf_counter() - start
        return stop

    @property
    def epoch_done(self) -> bool:
        """Whether every row of the epoch at hand was used."""
        return self.position.step >= self.steps_per_epoch

    def close_epoch(self) -> dict[str, float]:
        """Return the epoch's training figures and move on to the next one."""
        p = self.position
        figures = {
            "train_loss": p.loss_sum / max(p.samples, 1), "train_accuracy": p.correct / max(p.samples, 1),
            "seconds": p.seconds, "samples_per_second": p.samples / max(p.seconds, 1e-9), "learning_rate": self.learning_rate,
        }
        p.epoch, p.step = p.epoch + 1, 0
        p.loss_sum, p.correct, p.samples, p.seconds = 0.0, 0, 0, 0.0
        return figures

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return self.job.optimizer.learning_rate * self._factor(self.optimizer.steps)

    def _factor(self, step: int) -> float:
        return learning_rate_factor(self.job.schedule, step, self.steps_per_epoch, self.job.training.epochs)

    def _epoch_rows(self) -> np.ndarray:
        """The dataset rows of this epoch in their order, the same on every rank and for any number of ranks."""
        epoch = self.position.epoch
        if self._order[0] != epoch:
            order = epoch_order(len(self.rows), self.job.training.seed, epoch, self.feed.window, self.member)
            self._order = (epoch, self.rows[order])
        return self._order[1]

    def _run(self, last: int) -> int:
        """Mini-batch steps: gradient of the local rows, one sum over ranks, one update."""
        order, p, network = self._epoch_rows(), self.position, self.network
        tail = network.tail
        while p.step < last:
            first, end = global_span(len(order), p.step, self.batch)
            self._gradient(order[first:end])
            tail[STOP] = self.stop_requested()
            self.allreduce(network.reduced)
            if not np.isfinite(tail[LOSS_SUM]):
                p.finished = f"diverged in epoch {p.epoch + 1}, step {p.step + 1}: the loss is {tail[LOSS_SUM]}"
                return int(tail[STOP])
            self.optimizer.step(network.parameters, network.gradient, self._factor(self.optimizer.steps))
            p.step += 1
            p.samples += end - first
            p.loss_sum += float(tail[LOSS_SUM])
            p.correct += int(tail[CORRECT])
            self.progress(self)
            if tail[STOP]:
                return int(tail[STOP])
        return 0

    def _gradient(self, batch: np.ndarray) -> None:
        """Fill network.reduced from this rank's share of the global batch, slice by slice where it is large."""
        network = self.network
        start, stop = block(len(batch), self.comm.size, self.comm.rank)
        step = Step(training=True, key=self._mask_key(), first_row=start)
        total = None
        for first in range(start, max(stop, start + 1), network.rows):
            inputs, labels = self.feed.load(batch[first : min(first + network.rows, stop)], network.inputs)
            step.first_row = first
            network.backward(inputs, labels, len(batch), step)
            if stop - start > network.rows:
                total = network.reduced.copy() if total is None else np.add(total, network.reduced, out=total)
        if total is not None:
            network.reduced[:] = total

    def _mask_key(self) -> int:
        if not self.network.dropouts:
            return 0
        return int(key64(self.job.training.seed, Purpose.DROPOUT, self.member, self.optimizer.steps))

    def _is_online(self) -> bool:
        """Whether the one-sample-per-step kernel computes the same as _run: plain SGD, dense layers, one rank."""
        o, s = self.job.optimizer, self.job.schedule
        steady = s.warmup_epochs == 0 and (s.name == "constant" or (s.name == "step" and s.step_epochs == int(s.step_epochs)))
        plain = o.name == "sgd" and o.weight_decay == 0 and self.job.training.label_smoothing == 0
        return self.batch == 1 and self.comm.size == 1 and plain and steady and all(isinstance(x, Dense) for x in self.network.layers)

    def _run_online(self, last: int) -> int:
        """One step per sample in the dedicated kernel, ONLINE samples per call."""
        order, p, network, loss = self._epoch_rows(), self.position, self.network, self.network.loss
        layers: list[Any] = network.layers
        sizes = np.array([layers[0].width, *(layer.units for layer in layers)], np.int64)
        codes = np.array([layer.code for layer in layers], np.int64)
        while p.step < last:
            rows = order[p.step : min(p.step + ONLINE, last)]
            images, places = self.feed.raw(rows)
            labels = self.feed.labels if self.feed.in_memory else _labels_beside(self.feed.labels, rows, places, len(images))
            loss_sum, correct = online.train_online(
                network.parameters, sizes, codes, 0 if loss.is_cross_entropy else 1, images, labels, places,
                self.feed.mean, self.feed.inverse_std, self.learning_rate, loss.low, loss.high, loss.factor(network.classes))
            if not np.isfinite(loss_sum):
                p.finished = f"diverged in epoch {p.epoch + 1}, step {p.step + 1}..{p.step + len(rows)}: the loss is {loss_sum}"
                return self.stop_requested()
            p.step += len(rows)
            self.optimizer.steps += len(rows)
            p.samples += len(rows)
            p.loss_sum += float(loss_sum)
            p.correct += int(correct)
            self.progress(self)
            if stop := self.stop_requested():
                return stop
        return 0

    def note_validation(self, loss: float) -> None:
        """Remember the best parameters and stop early where the job says so; `loss` is the same on all ranks."""
        p, t = self.position, self.job.training
        if loss < p.best_loss:
            p.best_loss, p.best_epoch = loss, p.epoch
            if t.best_weights:
                self.best = {"parameters": self.network.parameters.copy(), "statistics": self.network.statistics.copy()}
        elif t.early_stopping and p.epoch - p.best_epoch >= t.early_stopping:
            p.finished = f"early stopping: no better validation loss since epoch {p.best_epoch}"

    def use_best(self) -> None:
        """Put the parameters of the best validation epoch into the network, where they were kept."""
        if self.best:
            self.network.parameters[:] = self.best["parameters"]
            self.network.statistics[:] = self.best["statistics"]


def _labels_beside(labels: np.ndarray, rows: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Return labels int64 `(count,)` that lie beside streamed images: those of `rows` at their `places`."""
    beside = np.zeros(count, np.int64)
    beside[places] = labels[rows]
    return beside


def evaluate_rows(network: Network, feed: Feed, start: int, stop: int) -> tuple[np.ndarray, float, int]:
    """Return scores `(stop - start, classes)`, loss sum and correct count of these rows of a split."""
    scores = np.empty((stop - start, network.classes), network.dtype)
    loss_sum, correct = 0.0, 0
    for first in range(start, stop, network.rows):
        rows = np.arange(first, min(first + network.rows, stop), dtype=np.int64)
        inputs, labels = feed.load(rows, network.inputs)
        part, loss, right = network.evaluate(inputs, labels)
        scores[first - start : first - start + len(rows)] = part
        loss_sum, correct = loss_sum + float(loss), correct + int(right)
    return scores, loss_sum, correct
