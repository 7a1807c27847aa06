"""What changes in the course of training, as pure functions of the place in it: the learning rate's factor, the batch."""

import math

from ensync.settings import Growth, Schedule


def learning_rate_factor(schedule: Schedule, passed: float, step: float, epochs: int) -> float:
    """Return the factor of the step taken when `passed` epochs are over; `step`: its length in epochs.

    Warm-up is linear (Goyal et al. 2017), cosine is Loshchilov and Hutter 2017, equation 5.
    """
    warmup = schedule.warmup_epochs
    if passed < warmup:
        return min(1.0, (passed + step) / warmup)
    if schedule.name == "step":
        return float(schedule.factor ** math.floor(passed / schedule.step_epochs))
    if schedule.name == "cosine":
        done = min(1.0, (passed - warmup) / max(step, epochs - warmup))
        return schedule.minimum + (1.0 - schedule.minimum) * 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0


def growths(growth: Growth, batch: int, epoch: int) -> int:
    """Return how often a batch has grown when this many epochs are over, without passing the largest."""
    if not growth.every_epochs:
        return 0
    times = 0
    while times < epoch // growth.every_epochs and batch * growth.batch <= growth.largest_batch:
        batch, times = batch * growth.batch, times + 1
    return times
