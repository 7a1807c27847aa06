"""What happens to a network beside its steps: the moving average of its weights, the copy of its
best ones, a learning rate that plateaus lower, and the reasons to end its training early.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ensync.core.config import schedules
from ensync.core.config.training import Training
from ensync.kernels.optim import updates
from ensync.nn.network import Network
from ensync.training.position import DIVERGED, EARLY, Position

# The prefixes of the vectors that a network may have several of. It is tested with the first that
# there are, "" being those in training, and validated with the first of VALIDATED.
TESTED = ("best/", "average/", "")
VALIDATED = TESTED[1:]


def first_kept(
    vectors: Mapping[str, np.ndarray], kinds: Sequence[str] = TESTED
) -> dict[str, np.ndarray]:
    """Return parameters and statistics of the first of these kinds that is among a network's
    vectors by name (Trainer.vectors).

    The one place that says which of its vectors a network is tested with, or validated with.
    """
    kind = next((kind for kind in kinds if f"{kind}parameters" in vectors), "")
    return {
        name: vectors[kind + name]
        for name in ("parameters", "statistics")
        if kind + name in vectors
    }


class WeightAverage:
    """An exponential moving average of the parameters (training.weight_average).

    vectors: the average, and the statistics that belong to it; empty where the job wants none.
    """

    def __init__(self, settings: Training, network: Network) -> None:
        self.decay, self.network = settings.weight_average, network
        self.vectors: dict[str, np.ndarray] = {}
        self.restart()

    def restart(self) -> None:
        """Begin with the network as it is."""
        if self.decay:
            self.vectors = {
                "parameters": self.network.parameters.copy(),
                "statistics": self.network.statistics.copy(),
            }

    def after_step(self, steps: int) -> None:
        """Add the parameters after so many steps. The average starts with those after the first
        step, as PyTorch's AveragedModel does.
        """
        if self.vectors:
            share = 1 - self.decay if steps > 1 else 1.0
            updates.follow(self.network.parameters, self.vectors["parameters"], share)


class BestWeights:
    """The parameters and statistics of the best epoch so far (training.best_weights).

    vectors: these, as they were validated; empty before the first, and where the job wants none.
    """

    def __init__(self, settings: Training) -> None:
        self.wanted = settings.best_weights
        self.vectors: dict[str, np.ndarray] = {}

    def after_validation(
        self, position: Position, loss: float, vectors: Mapping[str, np.ndarray]
    ) -> None:
        """Note the epoch, and copy the validated ones of a network's vectors, where the loss is
        the lowest so far.
        """
        if loss < position.best_loss:
            position.best_loss, position.best_epoch = loss, position.epoch
            if self.wanted:
                validated = first_kept(vectors, VALIDATED)
                self.vectors = {name: values.copy() for name, values in validated.items()}

    def resume(self, position: Position) -> None:
        """Drop the copy where the job does not want it any more; where it wants one that was not
        kept so far, begin with the next epoch.
        """
        if not self.wanted:
            self.vectors = {}
        elif not self.vectors:
            position.best_loss = float("inf")


class EarlyStopping:
    """Ends the training after some epochs without a better validation loss
    (training.early_stopping).
    """

    def __init__(self, settings: Training) -> None:
        self.patience, self.epochs = settings.early_stopping, settings.epochs

    def check(self, position: Position) -> None:
        """Finish where the patience is over."""
        if self.patience and position.epoch - position.best_epoch >= self.patience:
            position.finished = (
                f"{EARLY} at epoch {position.epoch} of {self.epochs}: no better validation loss "
                f"since epoch {position.best_epoch}"
            )


class Plateau:
    """Lowers the learning rate after `patience` epochs without a better loss (the algorithm of
    Keras' ReduceLROnPlateau).
    """

    def __init__(self, settings: schedules.Plateau, learning_rate: float) -> None:
        self.settings = settings
        self.least = min(1.0, settings.minimum / learning_rate)

    def after_validation(self, position: Position, loss: float) -> None:
        """Count the epoch, and lower the position's rate factor where there were enough."""
        p, settings = position, self.settings
        if loss < p.plateau_loss - settings.threshold:
            p.plateau_loss, p.plateau_epochs = loss, 0
            return
        p.plateau_epochs += 1
        if settings.patience and p.plateau_epochs >= settings.patience:
            p.rate_factor = max(self.least, p.rate_factor * settings.factor)
            p.plateau_epochs = 0


def check_parameters(
    position: Position, network: Network, anywhere: Callable[[bool], bool]
) -> None:
    """Finish where parameters or statistics are not finite. A loss that is not finite is seen
    in its step. anywhere: as of a reducer.
    """
    vectors = network.parameters, network.statistics
    if not position.finished and anywhere(not all(np.isfinite(v).all() for v in vectors)):
        position.finished = (
            f"{DIVERGED} in epoch {position.epoch + 1}, step {position.step}: the parameters are "
            "not finite"
        )
