"""Where the images of a split leave a network with exits, for several thresholds."""

import numpy as np

from ensync.core.sharding import block
from ensync.nn.early import Early, answers, confidences
from ensync.nn.network import Network
from ensync.training.batches import BatchLoader

# Confidences at which images may leave: at the first exit whatever it answers, ..., never.
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999, np.inf)


def thresholds_of(early: Early) -> list[float]:
    """Return the thresholds, in their order, with a network's own."""
    own = [] if early.threshold is None else [early.threshold]
    return sorted({*THRESHOLDS, *own})


def count_exits(
    network: Network, loader: BatchLoader, size: int, rank: int, deterministic: bool
) -> np.ndarray:
    """Return int64 (thresholds, exits + 1, 2): how many images of the block of a split that is
    `rank`'s of `size` leave at each exit or at the end, and how many of them are right.

    deterministic: blocks whose bits do not depend on size.
    """
    assert network.early is not None, "a network with exits"
    thresholds = np.array(thresholds_of(network.early))
    counts = np.zeros((len(thresholds), len(network.exits) + 1, 2), np.int64)
    start, stop = block(len(loader), size, rank, network.rows if deterministic else 1)
    for first in range(start, stop, network.rows):
        rows = np.arange(first, min(first + network.rows, stop), dtype=np.int64)
        inputs, labels = loader.load(rows, network.inputs)
        found = answers(network.layers, inputs.reshape(len(rows), *network.shape))
        sure = np.stack([confidences(each, network.early.measure) for each in found])
        right = np.stack([each.argmax(axis=1) == labels for each in found])
        sure[-1] = np.inf  # whoever comes to the end stays
        for number, threshold in enumerate(thresholds):
            place = (sure >= threshold).argmax(axis=0)  # the first
            counts[number, :, 0] += np.bincount(place, minlength=len(found))
            correct = place[right[place, np.arange(len(rows))]]
            counts[number, :, 1] += np.bincount(correct, minlength=len(found))
    return counts
