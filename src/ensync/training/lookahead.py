"""Lookahead: weights that follow the trained ones slowly, and lead them back."""

from collections.abc import Callable

import numpy as np

from ensync.core.config.schedules import Lookahead as Settings
from ensync.kernels.optim import updates
from ensync.nn.network import Network


class Lookahead:
    """Slow weights that meet the trained ones every so many steps (Zhang et al. 2019).

    There slow = a * slow + (1 - a) * trained, and trained = slow, with statistics of batch
    normalisation alike. After the last step of the run trained = slow. vectors: the slow ones;
    empty where the settings want none.
    """

    def __init__(self, settings: Settings, network: Network) -> None:
        self.settings, self.network = settings, network
        self.vectors: dict[str, np.ndarray] = {}
        self.restart()

    def restart(self) -> None:
        """Begin with the network as it is."""
        if self.settings.every_steps:
            self.vectors = {
                "parameters": self.network.parameters.copy(),
                "statistics": self.network.statistics.copy(),
            }

    def after_step(self, done: int, whole: int, meet: Callable[[], None]) -> None:
        """Let slow and trained weights meet where it is time, when so many steps of a run of
        `whole` are done.

        meet: waits for the ranks that share the trained ones, none of which may still read them
        when they change.
        """
        s = self.settings
        if not self.vectors or (done % s.every_steps and done < whole):
            return
        share = s.share * (done / whole) ** s.power if done < whole else 1.0
        trained = {"parameters": self.network.parameters, "statistics": self.network.statistics}
        for name, slow in self.vectors.items():
            updates.follow(trained[name], slow, 1.0 - share)
        meet()
        for name, slow in self.vectors.items():
            trained[name][:] = slow
