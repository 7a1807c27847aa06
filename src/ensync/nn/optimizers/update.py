"""What a formula is given in a step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ensync.core.config.optimizers import OPTIMIZERS, TAKEN_OFF
from ensync.core.config.optimizers import Optimizer as Settings
from ensync.nn.layers.base import Parameter

Layout = Sequence[tuple[str, Parameter]]


@dataclass(frozen=True)
class Update:
    """A step of parameters with the same settings, or a piece of one: vectors of one length and
    type, and the step's numbers.

    slots: in the order of OptimizerSpec.slots. number: 1 at the first step. rate: the learning
    rate. layout: of the parameters, where the optimiser is not elementwise.
    """

    parameters: np.ndarray
    gradient: np.ndarray
    slots: Sequence[np.ndarray]
    number: int
    rate: float
    layout: Layout = ()


def epsilon_of(settings: Settings) -> float:
    """Return optimizer.epsilon, or the optimiser's own."""
    if settings.epsilon is not None:
        return settings.epsilon
    return OPTIMIZERS[settings.name].epsilon


def coupled_decay(settings: Settings, update: Update) -> float:
    """Return the weight decay to add to the gradient; take one that is decoupled off the
    parameters: p *= 1 - rate * weight_decay (Loshchilov and Hutter 2019).
    """
    decoupled = settings.decoupled or OPTIMIZERS[settings.name].decay == TAKEN_OFF
    if not (decoupled and settings.weight_decay):
        return settings.weight_decay
    kept = 1.0 - update.rate * settings.weight_decay
    np.multiply(update.parameters, update.parameters.dtype.type(kept), out=update.parameters)
    return 0.0
