"""RMSprop and Adagrad; PyTorch's formulas."""

from ensync.core.config.optimizers import Optimizer as Settings
from ensync.kernels.optim.scaled import Squares, scaled
from ensync.nn.optimizers.update import Update, epsilon_of


def rmsprop(settings: Settings, update: Update) -> None:
    """s = alpha * s + (1 - alpha) * g^2; p -= rate * g / (sqrt(s) + epsilon)."""
    _step(settings, update, settings.alpha, 1.0 - settings.alpha)


def adagrad(settings: Settings, update: Update) -> None:
    """s += g^2; p -= rate * g / (sqrt(s) + epsilon)."""
    _step(settings, update, 1.0, 1.0)


def _step(settings: Settings, update: Update, keep: float, share: float) -> None:
    squares = Squares(keep, share, epsilon_of(settings))
    rate, decay = update.rate, settings.weight_decay
    scaled(update.parameters, update.gradient, *update.slots, rate, decay, squares)
