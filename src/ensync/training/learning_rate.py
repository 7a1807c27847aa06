"""The batches, steps and learning rates of a run: what changes from step to step and from epoch to
epoch, as functions of a position.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from ensync.core.config.optimizers import Group
from ensync.core.config.schema import Job
from ensync.core.sharding import steps_per_epoch
from ensync.nn.schedules import decimal, growths, learning_rate_factor
from ensync.training.position import Position


def largest_batch(job: Job) -> int:
    """Return the largest batch of a job, however few rows there are; with training.max_steps
    that of a run of any length.
    """
    return _batch_in(job, sys.maxsize if job.training.max_steps else job.training.epochs - 1)


def _batch_in(job: Job, epoch: int) -> int:
    """Return the batch that a job asks for in an epoch; sys.maxsize for all rows."""
    wanted, growth = job.training.batch, job.growth
    if wanted == "full":
        return sys.maxsize
    if growth.batch == 1:
        return wanted
    grown: int = wanted * growth.batch ** growths(growth, wanted, epoch)
    return grown


class Part(NamedTuple):
    """A part of a network's training: its rows, and the epoch at which it ends."""

    rows: int
    last_epoch: int


@dataclass(frozen=True)
class EpochPlan:
    """How many samples a step, and how many steps an epoch of a network with so many rows has.

    parts: of its training, in order, where it has other rows first or later.
    """

    job: Job
    rows: int
    parts: Sequence[Part] = ()

    def batch(self, epoch: int) -> int:
        """Return the global batch in an epoch."""
        return min(_batch_in(self.job, epoch), self.rows)

    def steps(self, epoch: int) -> int:
        """Return the steps of a whole epoch; the last batch may be smaller."""
        return steps_per_epoch(self.rows, self.batch(epoch))

    def end(self, epoch: int) -> int:
        """Return the steps of an epoch that are trained: all, but fewer in the last epoch of
        training.max_steps, and none after it.
        """
        if not self.job.training.max_steps:
            return self.steps(epoch)
        return round(min(1, max(0, self.length - epoch)) * self.steps(epoch))

    @cached_property
    def starts(self) -> list[int]:
        """The steps before each epoch, and those of the whole run."""
        return [0, *accumulate(self.end(epoch) for epoch in range(self.job.training.epochs))]

    @cached_property
    def length(self) -> int | Fraction:
        """The epochs of the whole run, the last perhaps a part of one."""
        training = self.job.training
        if not training.max_steps:
            return training.epochs
        left, epoch = training.max_steps, 0
        while left > (steps := self._steps_then(epoch)) and not self._is_steady(epoch):
            left, epoch = left - steps, epoch + 1
        whole = epoch + Fraction(left, steps)
        return int(whole) if whole.denominator == 1 else whole

    def updates(self, epoch: int) -> int:
        """Return the steps before an epoch, each on the rows that the network had then."""
        return sum(self._steps_then(before) for before in range(epoch))

    def _steps_then(self, epoch: int) -> int:
        """Return the steps of a whole epoch on the rows that the network has in it."""
        rows = next((part.rows for part in self.parts if epoch < part.last_epoch), self.rows)
        return replace(self, rows=rows).steps(epoch)

    def _is_steady(self, epoch: int) -> bool:
        """Whether all later epochs have as many steps as this one."""
        parted = all(part.last_epoch <= epoch for part in self.parts[:-1])
        return parted and _batch_in(self.job, epoch) == _batch_in(self.job, sys.maxsize)


@dataclass(frozen=True)
class LearningRate:
    """The learning rate that the settings of a job give, where the epochs are those of `plan`."""

    job: Job
    plan: EpochPlan

    def factors(self, position: Position) -> tuple[float | None, ...]:
        """Return what multiplies the learning rate of the parameters in no group, then of each
        group, for the next step; None for a group whose epochs are over.
        """
        return (
            self.factor(position),
            *(self._of_group(group, position) for group in self.job.optimizer.groups),
        )

    def _of_group(self, group: Group, position: Position) -> float | None:
        if group.epochs is None:
            return self.factor(position)
        p, steps, length = position, self.plan.steps(position.epoch), decimal(group.epochs)
        if (p.epoch * steps + p.step) * length.denominator >= steps * length.numerator:
            return None
        return self.factor(position, epochs=group.epochs if group.anneal else None)

    def factor(self, position: Position, back: int = 0, epochs: float | None = None) -> float:
        """Return what schedule, growth and plateaus multiply the learning rate by for the next
        step, or for the one so many steps `back`; epochs: of the schedule, None for those of the
        run.
        """
        p, job, steps = position, self.job, self.plan.steps(position.epoch)
        epoch = p.epoch + (p.step >= steps)
        grown = (
            1.0
            if job.training.batch == "full"
            else job.growth.learning_rate ** growths(job.growth, job.training.batch, epoch)
        )
        step = max(0, p.epoch * steps + p.step - back)
        whole = self._length if epochs is None else epochs
        scheduled = learning_rate_factor(job.schedule, step, steps, whole)
        return scheduled * grown * p.rate_factor

    @property
    def _length(self) -> int | Fraction:
        """The epochs of a run of these settings."""
        plan = self.plan if self.job is self.plan.job else replace(self.plan, job=self.job)
        return plan.length

    def __call__(self, position: Position, back: int = 0) -> float:
        """Return the learning rate of that step."""
        return self.job.optimizer.learning_rate * self.factor(position, back)
