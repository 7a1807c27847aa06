"""A network on data that it does not learn from: scores of a split, and the moving statistics of an averaged network."""

from collections.abc import Callable

import numpy as np

from ensync.feed import Feed
from ensync.nn.layers import Step
from ensync.nn.network import Network
from ensync.sharding import Purpose, block, key64
from ensync.training import Ranks

ESTIMATED = 10_000   # training rows that moving statistics are estimated from


def estimate_statistics(network: Network, feed: Feed, ranks: Ranks, allreduce: Callable[[np.ndarray], None], seed: int) -> None:
    """Set the moving statistics of batch normalisation to their means over the first ESTIMATED rows of a feed. Collective over `ranks`.

    Dropout stays as in training; the algorithm of torch.optim.swa_utils.update_bn.
    """
    rows, together, done = min(len(feed), ESTIMATED), network.rows * ranks.size, 0
    for first in range(0, rows, together):
        start, stop = block(min(together, rows - first), ranks.size, ranks.rank)
        inputs, labels = feed.load(np.arange(first + start, first + stop, dtype=np.int64), network.inputs)
        batch = min(together, rows - first)
        done += batch
        key = int(key64(seed, Purpose.DROPOUT, first))
        step = Step(training=True, key=key, first_row=start, allreduce=allreduce if ranks.size > 1 else None, share=batch / done)
        if len(labels) or step.allreduce is not None:
            network.forward(inputs, step)


def evaluate_block(network: Network, feed: Feed, size: int, rank: int, deterministic: bool) -> tuple[int, np.ndarray, list[float], int]:
    """Evaluate the block of a split that is `rank`'s of `size`: return its first row, scores `(rows, classes)`, loss sums and the correct count.

    A loss sum is of network.rows neighbours at most. deterministic: these are the same for any size, and so are their bits.
    """
    start, stop = block(len(feed), size, rank, network.rows if deterministic else 1)
    scores = np.empty((stop - start, network.classes), network.dtype)
    losses, correct = [], 0
    for first in range(start, stop, network.rows):
        rows = np.arange(first, min(first + network.rows, stop), dtype=np.int64)
        inputs, labels = feed.load(rows, network.inputs)
        part, loss, right = network.evaluate(inputs, labels)
        scores[first - start : first - start + len(rows)] = part
        losses.append(float(loss))
        correct += int(right)
    return start, scores, losses, correct
