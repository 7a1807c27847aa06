"""What does the steps of a network: a runner for mini-batches, and a faster one for steps of one
sample. Each says itself which networks and settings it supports.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, ClassVar, Protocol

import numpy as np

from ensync.core.config.schema import Job
from ensync.core.sharding import Purpose, key64
from ensync.kernels.dense import online
from ensync.nn.layers.base import Layer, Step
from ensync.nn.layers.dense import Dense
from ensync.nn.network import Network, Piece
from ensync.nn.optimizers import Factors, Optimizer
from ensync.nn.step_metrics import StepMetrics
from ensync.training.batches import Augmenter, BatchLoader, augmenter_of
from ensync.training.mixing import mixing_of
from ensync.training.reducers import Part, Reducer, SerialReducer
from ensync.training.shares import Shares


@dataclass
class Replica:
    """One network on this rank, with all that its steps need.

    rows: of the training split, int64, the same on all ranks that train the network.
    stop_requested: positive where this rank was asked to stop; a runner asks once a call.
    shares: where the parts of a batch go by the speeds of the ranks.
    """

    job: Job
    member: int
    network: Network
    optimizer: Optimizer
    reducer: Reducer
    loader: BatchLoader
    rows: np.ndarray
    stop_requested: Callable[[], int] = lambda: 0
    shares: Shares | None = None


class Runner(Protocol):
    """Does the steps of a replica.

    steps: how many a call does, but for the last call of an epoch.
    """

    steps: int
    replica: Replica

    def run(self, rows: np.ndarray, epoch: int, factors: Factors) -> StepMetrics:
        """Train on dataset rows int64, those of the next steps in their order, and count the
        steps in the optimiser. factors: of the learning rates. Collective.

        Where the loss is not finite, the parameters are of no more use.
        """
        ...


class MiniBatchRunner:
    """One step a call: the gradient of a global batch, summed over the ranks, and one update. It
    supports everything.

    batch: the samples of a step, of which the last of an epoch may have fewer; None: any.
    """

    steps = 1

    def __init__(self, replica: Replica, batch: int | None = None) -> None:
        self.replica, self.batch, job = replica, batch, replica.job
        self.at_once = job.training.slice
        if batch is not None:
            self.at_once = job.slice_of(min(batch, len(replica.rows)))
        self._augmenter: tuple[int, Augmenter | None] = (-1, None)  # of an epoch

    @classmethod
    def supports(cls, replica: Replica, batch: int) -> bool:
        """Whether it computes what the job of a replica asks for in steps of so many samples."""
        return True

    def run(self, rows: np.ndarray, epoch: int, factors: Factors) -> StepMetrics:
        """Do one step, without an update where the loss is not finite."""
        r = self.replica
        compute = self._compute if r.shares is None else partial(self._compute_share, r.shares)
        metrics = r.reducer.reduce(partial(compute, rows, epoch), r.stop_requested)
        if math.isfinite(metrics.loss_sum):
            r.reducer.apply(r.optimizer, factors)
        return metrics

    def _compute_share(
        self, shares: Shares, batch: np.ndarray, epoch: int, network: Network, part: Part
    ) -> int:
        """Compute a part as large as this rank is fast, and note how fast that was."""
        reducer, start = self.replica.reducer, perf_counter()
        waited = reducer.seconds
        rows = self._compute(batch, epoch, network, shares.cut(part))
        shares.note(rows, perf_counter() - start - (reducer.seconds - waited))
        return rows

    def _compute(self, batch: np.ndarray, epoch: int, network: Network, part: Part) -> int:
        """Fill the network's message from a part of the global batch, slice by slice where that
        is large; return the rows of the part.
        """
        n, own = len(batch), part.rows(len(batch), self.at_once)
        pieces = self._pieces(batch, epoch, network, part)
        network.accumulate(pieces, -(-n // self.at_once), own if part.alone else n)
        if network.averages_statistics:
            np.multiply(network.statistics, own / n, out=network.statistics_share)
        return own

    def _pieces(
        self, batch: np.ndarray, epoch: int, network: Network, part: Part
    ) -> Iterator[Piece]:
        """Yield the part of each slice of the global batch, loaded."""
        r = self.replica
        given = r.job.augmentation, r.job.training.seed, r.member
        if self._augmenter[0] != epoch:
            shape = r.loader.shape or network.shape
            self._augmenter = epoch, augmenter_of(*given, shape, epoch)
        augmenter = self._augmenter[1]
        mixing = mixing_of(*given, network.shape, epoch, r.optimizer.steps)
        allreduce = part.allreduce if network.synchronizes_statistics else None
        key, n, at_once = self._mask_key(), len(batch), self.at_once
        # of several slices gradients are complete after the last one
        after_layer = part.after_layer if n <= at_once else None
        for first in range(0, n, at_once):
            rows = batch[first : first + at_once]
            start, stop = part.block(len(rows))
            step = Step(True, key, first + start, allreduce, None, after_layer)
            inputs, labels = r.loader.load(rows[start:stop], network.inputs, augmenter)
            partners = None
            if mixing is not None and len(labels):
                before = int(batch[step.first_row - 1])  # of the first: the last
                partners = mixing.partners(r.loader, inputs, labels, before, augmenter)
            yield Piece(inputs, labels, step, partners)

    def _mask_key(self) -> int:
        """Return the key of this step's dropout masks."""
        r = self.replica
        if not r.network.dropouts:
            return 0
        return int(key64(r.job.training.seed, Purpose.DROPOUT, r.member, r.optimizer.steps))


class OneSampleRunner:
    """Steps of one sample each in a dedicated kernel: plain SGD on dense layers, on one rank.

    `steps` is a multiple of the kernel's blocks of 32; the bits depend on where its calls are cut.
    """

    steps = 1024

    # The settings whose effect the kernel has, or that have none on a step; all others must have
    # their defaults. "*": a whole section.
    SUPPORTED: ClassVar[dict[str, set[str]]] = {
        "data": {"*"},
        "network": {"*"},
        "training": {
            *("strategy", "epochs", "batch", "seed", "loss", "targets", "slice", "precision"),
            *("threads", "early_stopping", "best_weights", "virtual_shards", "watchdog"),
            *("check_replicas", "max_steps"),
        },
        "optimizer": {
            *("name", "learning_rate"),
            *("momentum", "preset", "beta1", "beta2", "epsilon"),  # without effect on sgd
        },
        "schedule": {"name", "step_epochs", "factor", "minimum"},
        "plateau": {"*"},
        "growth": {"batch", "largest_batch", "learning_rate"},  # without effect: no growth
        "communication": {"*"},
        "evaluation": {"*"},
        "ensemble": {"*"},
        "fusion": {"*"},
        "checkpoint": {"*"},
        "output": {"*"},
        "study": {"*"},
    }

    def __init__(self, replica: Replica, batch: int = 1) -> None:
        self.replica = replica
        layers: list[Any] = replica.network.layers
        sizes = np.array([layers[0].width, *(layer.units for layer in layers)], np.int64)
        codes = np.array([layer.activation.code for layer in layers], np.int64)
        self._layers = online.Layers(sizes, codes)
        self._loss = _kernel_loss(replica.network)

    @classmethod
    def supports(cls, replica: Replica, batch: int) -> bool:
        """Whether it computes what the job of a replica asks for in steps of so many samples."""
        return replica.job.training.precision != "bf16" and cls.supports_but_bf16(replica, batch)

    @classmethod
    def supports_but_bf16(cls, replica: Replica, batch: int) -> bool:
        """Whether it does so, or would in another precision than bf16."""
        job, schedule = replica.job, replica.job.schedule
        return (
            batch == 1
            and isinstance(replica.reducer, SerialReducer)
            and job.optimizer.name == "sgd"
            and (
                schedule.name == "constant"
                or (schedule.name == "step" and schedule.step_epochs == int(schedule.step_epochs))
            )
            and all(map(_is_dense, replica.network.layers))
            and not cls._unsupported(job)
        )

    @classmethod
    def _unsupported(cls, job: Job) -> list[str]:
        """Return the settings of a job that differ from their defaults and that the kernel does
        not know.
        """
        found = []
        for section in type(job).model_fields:
            supported, settings = cls.SUPPORTED.get(section, set()), getattr(job, section)
            if "*" not in supported:
                found += [
                    f"{section}.{key}"
                    for key, field in type(settings).model_fields.items()
                    if key not in supported and getattr(settings, key) != field.default
                ]
        return found

    def run(self, rows: np.ndarray, epoch: int, factors: Factors) -> StepMetrics:
        """Do one step for each row."""
        (factor,) = factors
        assert factor is not None, "only a group may be left as it is"
        r, network = self.replica, self.replica.network
        images, places = r.loader.raw(rows)
        labels = (
            r.loader.labels
            if r.loader.in_memory
            else _labels_beside(r.loader.labels, rows, places, len(images))
        )
        loss_sum, correct = online.train_online(
            network.parameters,
            self._layers,
            self._loss,
            online.Samples(images, labels, places, r.loader.mean, r.loader.inverse_std),
            r.job.optimizer.learning_rate * factor,
        )
        r.optimizer.steps += len(rows)
        return StepMetrics(float(loss_sum), int(correct), r.stop_requested())


def _is_dense(layer: Layer) -> bool:
    """Whether the kernel for one sample computes a layer: dense, with a bias, and the slope of
    its activation a function of its outputs.
    """
    return isinstance(layer, Dense) and layer.use_bias and not layer.activation.keeps_sums


def _kernel_loss(network: Network) -> online.Loss:
    loss = network.loss
    if loss.is_cross_entropy:
        return online.Loss(online.CROSS_ENTROPY, loss.low, loss.high, 0.0)
    return online.Loss(online.SQUARED_ERROR, loss.low, loss.high, loss.factor(network.classes))


def _labels_beside(
    labels: np.ndarray, rows: np.ndarray, places: np.ndarray, count: int
) -> np.ndarray:
    """Return labels int64 `(count,)` that lie beside streamed images: those of `rows` at their
    `places`.
    """
    beside = np.zeros(count, np.int64)
    beside[places] = labels[rows]
    return beside


RUNNERS = (OneSampleRunner, MiniBatchRunner)


def runner_of(replica: Replica, batch: int) -> Runner:
    """Return the first runner that supports a replica in steps of so many samples."""
    return next(runner(replica, batch) for runner in RUNNERS if runner.supports(replica, batch))
