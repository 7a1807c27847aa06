"""Optimisers with a learning rate for each layer, for large batches."""

import math

import numpy as np

from ensync.core.config.optimizers import Optimizer as Settings
from ensync.kernels.optim import updates
from ensync.nn.optimizers.update import Update, epsilon_of


def lars(settings: Settings, update: Update) -> None:
    """v = momentum * v + trust * (g + weight_decay * p); p -= rate * v, with a trust for each array
    of parameters (You, Gitman and Ginsburg 2017, with the rate outside the velocity as in PyTorch's
    SGD).
    """
    start = 0
    for _, parameter in update.layout:
        part = slice(start, start := start + parameter.size)
        values, gradient, velocity = (
            vector[part] for vector in (update.parameters, update.gradient, *update.slots)
        )
        trust = _trust(settings, values, gradient) if len(parameter.shape) > 1 else 1.0
        gradient *= gradient.dtype.type(trust)
        decay = trust * settings.weight_decay
        updates.momentum(
            values, gradient, velocity, update.rate, settings.momentum, decay, nesterov=False
        )


def lamb(settings: Settings, update: Update) -> None:
    """p -= rate * trust * u, where u is Adam's step at a rate of 1, plus weight_decay * p, and
    trust = |p| / |u| for each array of parameters (You et al. 2020, algorithm 2).
    """
    s, start = settings, 0
    adam = updates.AdamSettings(1.0, s.beta1, s.beta2, epsilon_of(s), 0.0, False)
    for _, parameter in update.layout:
        part = slice(start, start := start + parameter.size)
        values, gradient, first, second = (
            vector[part] for vector in (update.parameters, update.gradient, *update.slots)
        )
        step = np.zeros_like(values)
        updates.adam(step, gradient, first, second, update.number, adam)  # from 0 to -u
        step -= values.dtype.type(s.weight_decay) * values
        trust = 1.0
        if len(parameter.shape) > 1:
            size, length = (math.sqrt(updates.sum_of_squares(each)) for each in (values, step))
            trust = size / length if size and length else 1.0
        step *= step.dtype.type(update.rate * trust)
        values += step


def _trust(settings: Settings, parameters: np.ndarray, gradient: np.ndarray) -> float:
    """Return trust_coefficient * |p| / (|g| + weight_decay * |p| + epsilon), 1 where one of the
    norms is 0.
    """
    size, slope = (math.sqrt(updates.sum_of_squares(each)) for each in (parameters, gradient))
    if not (size and slope):
        return 1.0
    below = slope + settings.weight_decay * size + epsilon_of(settings)
    return settings.trust_coefficient * size / below
