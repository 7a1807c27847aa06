"""Optimisers: the state is a few flat vectors beside the parameters; PyTorch's formulas, and
Keras' of Adam.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ensync.core.config.optimizers import OPTIMIZERS
from ensync.core.config.schema import Optimizer as Settings
from ensync.kernels.optim import updates
from ensync.nn.layers.base import Parameter
from ensync.nn.memory import zeros

Layout = Sequence[tuple[str, Parameter]]


@dataclass(frozen=True)
class Update:
    """A step, or a piece of one: vectors of one length and type, and the step's numbers.

    slots: in the order of OptimizerSpec.slots. number: 1 at the first step. rate: the learning
    rate. layout: of the parameters, where the optimiser is not elementwise.
    """

    parameters: np.ndarray
    gradient: np.ndarray
    slots: Sequence[np.ndarray]
    number: int
    rate: float
    layout: Layout = ()


def sgd(settings: Settings, update: Update) -> None:
    """p -= rate * (g + weight_decay * p)."""
    updates.sgd(update.parameters, update.gradient, update.rate, settings.weight_decay)


def momentum(settings: Settings, update: Update) -> None:
    """v = momentum * v + g; p -= rate * v, or rate * (g + momentum * v) for Nesterov's."""
    updates.momentum(
        update.parameters,
        update.gradient,
        *update.slots,
        update.rate,
        settings.momentum,
        settings.weight_decay,
        settings.name == "nesterov",
    )


def adam(settings: Settings, update: Update) -> None:
    """Adam, or AdamW."""
    s = settings
    numbers = updates.AdamSettings(
        update.rate,
        s.beta1,
        s.beta2,
        _epsilon(s, update.number),
        s.weight_decay,
        s.name == "adamw",
    )
    updates.adam(update.parameters, update.gradient, *update.slots, update.number, numbers)


def _epsilon(settings: Settings, number: int) -> float:
    """What Adam adds to sqrt(v / (1 - beta2^t)). Keras adds epsilon to sqrt(v), which is
    epsilon / sqrt(1 - beta2^t) here.
    """
    s = settings
    if s.preset == "pytorch":
        return 1e-8 if s.epsilon is None else s.epsilon
    return (1e-7 if s.epsilon is None else s.epsilon) / math.sqrt(1 - s.beta2**number)


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


def _trust(settings: Settings, parameters: np.ndarray, gradient: np.ndarray) -> float:
    """Return trust_coefficient * |p| / (|g| + weight_decay * |p| + epsilon), 1 where one of the
    norms is 0.
    """
    epsilon = 1e-8 if settings.epsilon is None else settings.epsilon
    size, slope = (math.sqrt(updates.sum_of_squares(each)) for each in (parameters, gradient))
    if not (size and slope):
        return 1.0
    return settings.trust_coefficient * size / (slope + settings.weight_decay * size + epsilon)


UPDATES: dict[str, Callable[[Settings, Update], None]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": momentum,
    "adam": adam,
    "adamw": adam,
    "lars": lars,
}


class Optimizer:
    """Holds the state of one optimiser: `slots` (flat vectors like the parameters) and `steps`
    (updates done).

    layout: the names and shapes of the parameters in the flat vector, as Network.layout has them.
    """

    def __init__(self, settings: Settings, layout: Layout, dtype: np.dtype) -> None:
        self.settings, self.spec = settings, OPTIMIZERS[settings.name]
        self.steps = 0
        self.layout = () if self.spec.elementwise else layout
        size = sum(parameter.size for _, parameter in layout)
        self.slots = {name: zeros(size, dtype) for name in self.spec.slots}

    @property
    def elementwise(self) -> bool:
        """Whether each parameter is updated by its own gradient alone, so that `step_piece` may
        do any piece of a step.
        """
        return self.spec.elementwise and not self.settings.clip_norm

    def step(self, parameters: np.ndarray, gradient: np.ndarray, factor: float = 1.0) -> None:
        """Update the flat parameters in place; factor: of the learning rate. The gradient may be
        overwritten.
        """
        if self.settings.clip_norm:
            clip(gradient, self.settings.clip_norm)
        self.step_piece(slice(None), parameters, gradient, factor)
        self.steps += 1

    def step_piece(
        self, piece: slice, parameters: np.ndarray, gradient: np.ndarray, factor: float = 1.0
    ) -> None:
        """Do a piece of a step, given the parameters and the gradient there; the caller counts
        the step when all pieces are done. Of an optimiser that is not elementwise, the whole.
        """
        slots = [slot[piece] for slot in self.slots.values()]
        rate = self.settings.learning_rate * factor
        update = Update(parameters, gradient, slots, self.steps + 1, rate, self.layout)
        UPDATES[self.settings.name](self.settings, update)


def clip(gradient: np.ndarray, longest: float) -> None:
    """Scale a flat gradient in place to the norm `longest` where its own is above (PyTorch's
    clip_grad_norm_).
    """
    factor = longest / (math.sqrt(updates.sum_of_squares(gradient)) + 1e-6)
    if factor < 1:
        gradient *= gradient.dtype.type(factor)
