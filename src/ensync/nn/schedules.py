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
from typing import NamedTuple

from ensync.core.config.schedules import Growth, Schedule

Epochs = float | Fraction


def learning_rate_factor(
    schedule: Schedule, step: int, steps_per_epoch: int, epochs: Epochs
) -> float:
    """Return the factor of the step taken when `step` steps are over, in a run of so many epochs of
    so many steps.

    Warm-up is linear (Goyal et al. 2017), cosine is Loshchilov and Hutter 2017, equation 5; beyond
    the last step the factor stays at its end.
    """
    if schedule.warmup_epochs:
        warmup = decimal(schedule.warmup_epochs)
        before, whole = step * warmup.denominator, steps_per_epoch * warmup.numerator
        if before < whole:
            return min(1.0, (before + warmup.denominator) / whole)
    return SHAPES[schedule.name](schedule, step, steps_per_epoch, epochs)


def _step(schedule: Schedule, step: int, steps_per_epoch: int, epochs: Epochs) -> float:
    length = decimal(schedule.step_epochs)
    return float(
        schedule.factor ** (step * length.denominator // (steps_per_epoch * length.numerator))
    )


def _multi_step(schedule: Schedule, step: int, steps_per_epoch: int, epochs: Epochs) -> float:
    """PyTorch's MultiStepLR, also between epochs."""
    passed = sum(step >= steps_per_epoch * decimal(each) for each in schedule.milestones)
    return float(schedule.factor**passed)


def _cosine(schedule: Schedule, step: int, steps_per_epoch: int, epochs: Epochs) -> float:
    start = schedule.warmup_epochs * steps_per_epoch
    done = min(1.0, (step - start) / max(1.0, epochs * steps_per_epoch - start))
    return schedule.minimum + (1.0 - schedule.minimum) * _half_cosine(done)


def _half_cosine(share: float) -> float:
    """Return what falls from 1 to 0 as the share rises from 0 to 1."""
    return 0.5 * (1.0 + math.cos(math.pi * share))


def _between(high: float, low: float, share: float) -> float:
    """Return low + share * (high - low), which is `high` itself at a share of 1."""
    return low * (1.0 - share) + high * share


class _Place(NamedTuple):
    """Whole numbers of one `unit` to a step: the steps done since the warm-up, and how many there
    are after it.
    """

    done: int
    whole: int
    unit: int


def _place(
    schedule: Schedule, step: int, steps_per_epoch: int, epochs: Epochs, ends: bool = True
) -> _Place:
    """Return the place after the warm-up, of at least one step in all; with `ends`, no more steps
    done than these. All that `peak` and `restart_epochs` name are whole units.
    """
    warmup, length = decimal(schedule.warmup_epochs), decimal(epochs)
    unit = warmup.denominator * length.denominator
    before = warmup.numerator * length.denominator * steps_per_epoch
    whole = max(unit, length.numerator * warmup.denominator * steps_per_epoch - before)
    scale = decimal(schedule.peak).denominator * decimal(schedule.restart_epochs).denominator
    done = step * unit - before
    return _Place(scale * (min(done, whole) if ends else done), scale * whole, scale * unit)


def _polynomial(schedule: Schedule, step: int, steps_per_epoch: int, epochs: Epochs) -> float:
    power = schedule.power if schedule.name == "polynomial" else 1.0
    done, whole, _ = _place(schedule, step, steps_per_epoch, epochs)
    return _between(1.0, schedule.minimum, ((whole - done) / whole) ** power)


def _triangular(schedule: Schedule, step: int, steps_per_epoch: int, epochs: Epochs) -> float:
    (done, whole, _), peak = (
        _place(schedule, step, steps_per_epoch, epochs),
        decimal(schedule.peak),
    )
    top = whole * peak.numerator // peak.denominator
    if done < top:
        return _between(1.0, schedule.start, done / top)
    return _between(1.0, schedule.minimum, (whole - done) / (whole - top))


def _one_cycle(schedule: Schedule, step: int, steps_per_epoch: int, epochs: Epochs) -> float:
    """PyTorch's OneCycleLR: the first of n steps is the start, step peak * n - 1 the top, and the
    last step the end.
    """
    (done, whole, unit), peak = (
        _place(schedule, step, steps_per_epoch, epochs),
        decimal(schedule.peak),
    )
    top, last = whole * peak.numerator // peak.denominator - unit, whole - unit
    if done <= top:
        return _between(1.0, schedule.start, 1.0 - _half_cosine(done / top if top else 1.0))
    share = (done - top) / (last - top) if done < last else 1.0
    return _between(1.0, schedule.minimum, _half_cosine(share))


def _cosine_restarts(schedule: Schedule, step: int, steps_per_epoch: int, epochs: Epochs) -> float:
    (done, _, unit), first = (
        _place(schedule, step, steps_per_epoch, epochs, ends=False),
        decimal(schedule.restart_epochs),
    )
    length = unit * steps_per_epoch * first.numerator // first.denominator
    if schedule.restart_growth == 1:
        done %= length
    while done >= length:
        done, length = done - length, length * schedule.restart_growth
    return _between(1.0, schedule.minimum, _half_cosine(done / length))


# What follows the warm-up, given (schedule, step, steps_per_epoch, epochs) as above.
SHAPES: dict[str, Callable[[Schedule, int, int, Epochs], float]] = {
    "constant": lambda schedule, step, steps_per_epoch, epochs: 1.0,
    "step": _step,
    "multi_step": _multi_step,
    "cosine": _cosine,
    "linear": _polynomial,
    "polynomial": _polynomial,
    "triangular": _triangular,
    "one_cycle": _one_cycle,
    "cosine_restarts": _cosine_restarts,
}


@functools.lru_cache(maxsize=16)
def decimal(value: Epochs) -> Fraction:
    """Return the number that was written in decimals, of which a float is the nearest; a fraction
    as it is.
    """
    if isinstance(value, Fraction):
        return value
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
