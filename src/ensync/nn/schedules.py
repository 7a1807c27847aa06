"""The factor on the learning rate, as a function of the step."""

import math

from ensync.settings import Schedule


def learning_rate_factor(schedule: Schedule, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the factor of update number `step` (from 0); warm-up is linear (Goyal et al. 2017), cosine is Loshchilov and Hutter 2017, equation 5."""
    warmup = schedule.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / warmup if warmup >= 1 else 1.0
    if schedule.name == "step":
        return float(schedule.factor ** math.floor(step / (schedule.step_epochs * steps_per_epoch)))
    if schedule.name == "cosine":
        done = min(1.0, (step - warmup) / max(1.0, epochs * steps_per_epoch - warmup))
        return schedule.minimum + (1.0 - schedule.minimum) * 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0
