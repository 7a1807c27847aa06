"""Optimisers: the state is a few flat vectors beside the parameters; PyTorch's formulas, and
Keras' of Adam.
"""

import math

import numpy as np

from ensync.core.config.schema import Optimizer as Settings
from ensync.kernels.optim import updates
from ensync.nn.memory import zeros


class Optimizer:
    """Holds the state of one optimiser: `slots` (flat vectors like the parameters) and `steps`
    (updates done).
    """

    SLOTS = {
        "sgd": (),
        "momentum": ("velocity",),
        "nesterov": ("velocity",),
        "adam": ("first", "second"),
        "adamw": ("first", "second"),
    }

    def __init__(self, settings: Settings, size: int, dtype: np.dtype) -> None:
        self.settings = settings
        self.steps = 0
        self.slots = {name: zeros(size, dtype) for name in self.SLOTS[settings.name]}

    @property
    def elementwise(self) -> bool:
        """Whether each parameter is updated by its own gradient alone, so that `step_piece` may
        do any piece of a step.
        """
        return not self.settings.clip_norm

    def step(self, parameters: np.ndarray, gradient: np.ndarray, factor: float = 1.0) -> None:
        """Update the flat parameters in place; `factor` is the schedule's. The gradient may be
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
        the step when all pieces are done.
        """
        s, slots = self.settings, [slot[piece] for slot in self.slots.values()]
        rate = s.learning_rate * factor
        if s.name == "sgd":
            updates.sgd(parameters, gradient, rate, s.weight_decay)
        elif s.name in ("momentum", "nesterov"):
            updates.momentum(
                parameters, gradient, *slots, rate, s.momentum, s.weight_decay, s.name == "nesterov"
            )
        else:
            adam = updates.AdamSettings(
                rate, s.beta1, s.beta2, self._epsilon(), s.weight_decay, s.name == "adamw"
            )
            updates.adam(parameters, gradient, *slots, self.steps + 1, adam)

    def _epsilon(self) -> float:
        """What Adam adds to sqrt(v / (1 - beta2^t)). Keras adds epsilon to sqrt(v), which is
        epsilon / sqrt(1 - beta2^t) here.
        """
        s = self.settings
        if s.preset == "pytorch":
            return 1e-8 if s.epsilon is None else s.epsilon
        return (1e-7 if s.epsilon is None else s.epsilon) / math.sqrt(
            1 - s.beta2 ** (self.steps + 1)
        )


def clip(gradient: np.ndarray, longest: float) -> None:
    """Scale a flat gradient in place to the norm `longest` where its own is above (PyTorch's
    clip_grad_norm_).
    """
    factor = longest / (math.sqrt(updates.sum_of_squares(gradient)) + 1e-6)
    if factor < 1:
        gradient *= gradient.dtype.type(factor)
