"""What the exits of a run's networks come to, from where its test images left."""

import numpy as np

from ensync.nn.early import work_until
from ensync.nn.network import Network
from ensync.report.results import ExitFigures
from ensync.training.exits import thresholds_of


def no_counts(network: Network, members: int) -> np.ndarray:
    """Return zeros int64 `(members, thresholds, exits + 1, 2)`, to which counts are added; nothing
    for a network without exits.
    """
    if network.early is None:
        return np.zeros(0, np.int64)
    thresholds = len(thresholds_of(network.early))
    return np.zeros((members, thresholds, len(network.exits) + 1, 2), np.int64)


def exit_figures(network: Network, counts: np.ndarray) -> list[ExitFigures]:
    """Return a row for each threshold, of counts `(members, thresholds, exits + 1, 2)`: the means
    over members.
    """
    if network.early is None or not counts.any():
        return []
    work = np.array(work_until(network.layers, network.shapes))
    rows = []
    for threshold, counted in zip(
        thresholds_of(network.early), counts.sum(axis=0).swapaxes(1, 2), strict=True
    ):
        left, right = counted
        shares = left / left.sum()
        rows.append(
            ExitFigures(
                threshold=None if np.isinf(threshold) else threshold,
                accuracy=float(right.sum() / left.sum()),
                multiply_adds=float(shares @ work),
                shares=shares.tolist(),
            )
        )
    return rows
