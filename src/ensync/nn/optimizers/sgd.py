"""Gradient descent, plain and with momentum; PyTorch's formulas."""

from ensync.core.config.optimizers import Optimizer as Settings
from ensync.kernels.optim import updates
from ensync.nn.optimizers.update import Update, coupled_decay


def sgd(settings: Settings, update: Update) -> None:
    """p -= rate * (g + weight_decay * p), the decay before the step where it is decoupled."""
    decay = coupled_decay(settings, update)
    updates.sgd(update.parameters, update.gradient, update.rate, decay)


def momentum(settings: Settings, update: Update) -> None:
    """v = momentum * v + g; p -= rate * v, or rate * (g + momentum * v) for Nesterov's; g includes
    weight_decay * p where that is coupled.
    """
    updates.momentum(
        update.parameters,
        update.gradient,
        *update.slots,
        update.rate,
        settings.momentum,
        coupled_decay(settings, update),
        settings.name == "nesterov",
    )
