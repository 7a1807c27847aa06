"""The state of an optimiser, and its steps: a few flat vectors beside the parameters."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from ensync.core.config.optimizers import OPTIMIZERS
from ensync.core.config.optimizers import Optimizer as Settings
from ensync.kernels.optim import updates
from ensync.nn.memory import zeros
from ensync.nn.optimizers.adam import adam
from ensync.nn.optimizers.groups import Stretch, slots_of, stretches_of
from ensync.nn.optimizers.layerwise import lamb, lars
from ensync.nn.optimizers.muon import muon
from ensync.nn.optimizers.scaled import adagrad, rmsprop
from ensync.nn.optimizers.sgd import momentum, sgd
from ensync.nn.optimizers.update import Layout, Update

UPDATES: dict[str, Callable[[Settings, Update], None]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": momentum,
    "adam": adam,
    "adamw": adam,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "lars": lars,
    "lamb": lamb,
    "muon": muon,
}
# What multiplies the learning rate of the parameters in no group, then of each group; None: it is
# not trained.
Factors = Sequence[float | None]


class Optimizer:
    """Holds the state of one optimiser: `slots` (flat vectors like the parameters) and `steps`
    (updates done).

    layout: the names and shapes of the parameters in the flat vector, as Network.layout has them.
    Errors: EnsyncError, where a group's pattern does not fit to the names.
    """

    def __init__(self, settings: Settings, layout: Layout, dtype: np.dtype) -> None:
        self.settings, self.of_groups = settings, settings.of_groups
        self.steps = 0
        self.stretches = stretches_of(settings, layout)
        self.size = sum(parameter.size for _, parameter in layout)
        self.slots = {name: zeros(self.size, dtype) for name in slots_of(settings)}

    @property
    def elementwise(self) -> bool:
        """Whether each parameter is updated by its own gradient alone, so that `step_piece` may
        do any piece of a step.
        """
        specs = (OPTIMIZERS[each.name] for each in self.of_groups)
        return all(spec.elementwise for spec in specs) and not self.settings.clip_norm

    def step(
        self, parameters: np.ndarray, gradient: np.ndarray, factors: Factors | None = None
    ) -> None:
        """Update the flat parameters in place. The gradient may be overwritten.

        factors: None for 1 each.
        """
        factors = factors or [1.0] * len(self.of_groups)
        if self.settings.clip_norm:
            for stretch in self.stretches:
                if factors[stretch.group] is None:  # only what is trained counts
                    gradient[stretch.start : stretch.stop] = 0
            clip(gradient, self.settings.clip_norm)
        self.step_piece(slice(None), parameters, gradient, factors)
        self.steps += 1

    def step_piece(
        self, piece: slice, parameters: np.ndarray, gradient: np.ndarray, factors: Factors
    ) -> None:
        """Do a piece of a step, given the parameters and the gradient there; the caller counts
        the step when all pieces are done. Of an optimiser that is not elementwise, the whole.
        """
        start, stop, _ = piece.indices(self.size)
        for stretch in self.stretches:
            first, end = max(start, stretch.start), min(stop, stretch.stop)
            factor = factors[stretch.group]
            if first < end and factor is not None:
                own = slice(first - start, end - start)
                self._update(stretch, slice(first, end), parameters[own], gradient[own], factor)

    def _update(
        self,
        stretch: Stretch,
        place: slice,
        parameters: np.ndarray,
        gradient: np.ndarray,
        factor: float,
    ) -> None:
        """Update a stretch, or a part of it, which lies at `place` in the flat vectors."""
        settings = self.of_groups[stretch.group]
        slots = [self.slots[name][place] for name in OPTIMIZERS[settings.name].slots]
        rate = settings.learning_rate * factor
        update = Update(parameters, gradient, slots, self.steps + 1, rate, stretch.layout)
        UPDATES[settings.name](settings, update)


def clip(gradient: np.ndarray, longest: float) -> None:
    """Scale a flat gradient in place to the norm `longest` where its own is above (PyTorch's
    clip_grad_norm_).
    """
    factor = longest / (math.sqrt(updates.sum_of_squares(gradient)) + 1e-6)
    if factor < 1:
        gradient *= gradient.dtype.type(factor)
