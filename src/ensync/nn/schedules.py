"""What changes in the course of training, as pure functions of the place in it: the learning rate's
factor, the batch.

A place is a whole number of steps, of so many an epoch, and epochs are the decimal numbers of the
job file: what is compared is exact, so that a reduction after 0.1 epochs of 10 steps falls on the
step after the first.
"""

import functools
import math
from collections.abc import Callable
from fractions import Fraction

from ensync.core.config.schema import Growth, Schedule


def learning_rate_factor(
    schedule: Schedule, step: int, steps_per_epoch: int, epochs: float
) -> float:
    """Return the factor of the step taken when `step` steps are over, in a run of so many epochs of
    so many steps.

    Warm-up is linear (Goyal et al. 2017), cosine is Loshchilov and Hutter 2017, equation 5.
    """
    if schedule.warmup_epochs:
        warmup = decimal(schedule.warmup_epochs)
        before, whole = step * warmup.denominator, steps_per_epoch * warmup.numerator
        if before < whole:
            return min(1.0, (before + warmup.denominator) / whole)
    return SHAPES[schedule.name](schedule, step, steps_per_epoch, epochs)


def _step(schedule: Schedule, step: int, steps_per_epoch: int, epochs: float) -> float:
    length = decimal(schedule.step_epochs)
    return float(
        schedule.factor ** (step * length.denominator // (steps_per_epoch * length.numerator))
    )


def _cosine(schedule: Schedule, step: int, steps_per_epoch: int, epochs: float) -> float:
    start = schedule.warmup_epochs * steps_per_epoch
    done = min(1.0, (step - start) / max(1.0, epochs * steps_per_epoch - start))
    return schedule.minimum + (1.0 - schedule.minimum) * 0.5 * (1.0 + math.cos(math.pi * done))


# What follows the warm-up, given (schedule, step, steps_per_epoch, epochs) as above.
SHAPES: dict[str, Callable[[Schedule, int, int, float], float]] = {
    "constant": lambda schedule, step, steps_per_epoch, epochs: 1.0,
    "step": _step,
    "cosine": _cosine,
}


@functools.lru_cache(maxsize=16)
def decimal(value: float) -> Fraction:
    """Return the number that was written in decimals, of which a float is the nearest."""
    return Fraction(repr(float(value)))


def growths(growth: Growth, batch: int, epoch: int) -> int:
    """Return how often a batch has grown when this many epochs are over, without passing the
    largest.
    """
    if not growth.every_epochs:
        return 0
    times = 0
    while times < epoch // growth.every_epochs and batch * growth.batch <= growth.largest_batch:
        batch, times = batch * growth.batch, times + 1
    return times
