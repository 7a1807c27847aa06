"""Adam and AdamW; PyTorch's formulas, and Keras' of Adam."""

import math

from ensync.core.config.optimizers import KERAS_EPSILON
from ensync.core.config.optimizers import Optimizer as Settings
from ensync.kernels.optim import updates
from ensync.nn.optimizers.update import Update, epsilon_of


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
    if settings.preset == "pytorch":
        return epsilon_of(settings)
    epsilon = KERAS_EPSILON if settings.epsilon is None else settings.epsilon
    return epsilon / math.sqrt(1 - settings.beta2**number)
