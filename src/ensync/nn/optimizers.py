"""Optimisers: the state is a few flat vectors beside the parameters; PyTorch's formulas."""

import numpy as np

from ensync.kernels import updates
from ensync.settings import Optimizer as Settings


class Optimizer:
    """Holds the state of one optimiser: `slots` (flat vectors like the parameters) and `steps` (updates done)."""

    SLOTS = {"sgd": (), "momentum": ("velocity",), "nesterov": ("velocity",), "adam": ("first", "second"), "adamw": ("first", "second")}

    def __init__(self, settings: Settings, size: int, dtype: np.dtype) -> None:
        self.settings = settings
        self.steps = 0
        self.slots = {name: np.zeros(size, dtype) for name in self.SLOTS[settings.name]}

    def step(self, parameters: np.ndarray, gradient: np.ndarray, factor: float = 1.0) -> None:
        """Update the flat parameters in place; `factor` is the schedule's."""
        s, slots = self.settings, self.slots
        rate = s.learning_rate * factor
        if s.name == "sgd":
            updates.sgd(parameters, gradient, rate, s.weight_decay)
        elif s.name in ("momentum", "nesterov"):
            updates.momentum(parameters, gradient, slots["velocity"], rate, s.momentum, s.weight_decay, s.name == "nesterov")
        else:
            updates.adam(parameters, gradient, slots["first"], slots["second"], self.steps + 1, rate,
                         s.beta1, s.beta2, s.epsilon, s.weight_decay, s.name == "adamw")
        self.steps += 1
