"""The parts of a member's training, and how long any training may be."""

import numpy as np

from ensync.strategies.strategy import Strategy
from ensync.training.learning_rate import Part

MOST_EPOCHS = 1_000_000  # as training.epochs


def parts_of(strategy: Strategy, ranks: int, labels: np.ndarray, member: int) -> list[Part]:
    """Return the parts of a member's training, where it has several: the rows of the one network
    that it starts from, then its own.

    labels: int64 (rows,), of the training split.
    """
    phases = strategy.phases(ranks)
    if len(phases) == 1:
        return []
    return [
        Part(len(strategy.rows(labels, each.members, member % each.members)), each.last_epoch)
        for each in phases
    ]
