"""The batches, steps and learning rates of a run: what changes from step to step and from epoch to
epoch, as functions of a position.
"""

import sys
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from ensync.core.config.schema import Group, Job
from ensync.core.sharding import steps_per_epoch
from ensync.nn.schedules import decimal, growths, learning_rate_factor
from ensync.training.position import Position


def largest_batch(job: Job) -> int:
    """Return the largest batch of a job, however few rows there are."""
    return _batch_in(job, job.training.epochs - 1)


def _batch_in(job: Job, epoch: int) -> int:
    """Return the batch that a job asks for in an epoch; sys.maxsize for all rows."""
    wanted, growth = job.training.batch, job.growth
    if wanted == "full":
        return sys.maxsize
    grown: int = wanted * growth.batch ** growths(growth, wanted, epoch)
    return grown


@dataclass(frozen=True)
class EpochPlan:
    """How many samples a step, and how many steps an epoch of a network with so many rows has."""

    job: Job
    rows: int

    def batch(self, epoch: int) -> int:
        """Return the global batch in an epoch."""
        return min(_batch_in(self.job, epoch), self.rows)

    def steps(self, epoch: int) -> int:
        """Return the steps of an epoch; the last batch may be smaller."""
        return steps_per_epoch(self.rows, self.batch(epoch))

    @cached_property
    def starts(self) -> list[int]:
        """The steps before each epoch, and those of the whole run."""
        return [0, *accumulate(self.steps(epoch) for epoch in range(self.job.training.epochs))]


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
        whole = job.training.epochs if epochs is None else epochs
        scheduled = learning_rate_factor(job.schedule, step, steps, whole)
        return scheduled * grown * p.rate_factor

    def __call__(self, position: Position, back: int = 0) -> float:
        """Return the learning rate of that step."""
        return self.job.optimizer.learning_rate * self.factor(position, back)
