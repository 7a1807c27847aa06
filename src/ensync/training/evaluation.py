"""A network on data that it does not learn from: scores of a split, and the moving statistics of
an averaged network.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ensync.core.sharding import Purpose, block, key64
from ensync.nn.layers.base import Step
from ensync.nn.network import Network
from ensync.training.batches import BatchLoader
from ensync.training.reducers import Part
from ensync.training.views import View

ESTIMATED = 2048  # training rows that moving statistics are estimated from


class Estimate(NamedTuple):
    """The dataset rows int64 that moving statistics are estimated from, the first ESTIMATED of
    them, how many are normalised together, and the seed of the dropout meanwhile.
    """

    rows: np.ndarray
    together: int
    seed: int


def estimate_statistics(
    network: Network, loader: BatchLoader, estimate: Estimate, part: Part
) -> None:
    """Set the moving statistics of batch normalisation to their means over rows. Collective over
    the ranks that compute the parts.

    For parameters that no step has led to, such as an average of several, statistics that followed
    steps are wrong. Dropout stays as in training; the algorithm of torch.optim.swa_utils.update_bn,
    with images as they are in a test. The same digits on any number of ranks.
    """
    if not network.normalizes:
        return
    done, (rows, together, seed) = 0, estimate
    network.statistics[:] = 0
    for first in range(0, min(len(rows), ESTIMATED), together):
        batch = rows[first : min(first + together, ESTIMATED)]
        start, stop = block(len(batch), part.count, part.index)
        inputs, labels = loader.load(batch[start:stop], network.inputs)
        done += len(batch)
        key = int(key64(seed, Purpose.DROPOUT, first))
        step = Step(
            training=True,
            key=key,
            first_row=start,
            allreduce=part.allreduce,
            share=len(batch) / done,
        )
        if len(labels) or step.allreduce is not None:
            network.forward(inputs, step)


class Evaluated(NamedTuple):
    """What was found of a block of a split: its first row, scores `(rows, classes)`, loss sums,
    how many rows are right, and how many by the images alone, without other views.
    """

    start: int
    scores: np.ndarray
    losses: list[float]
    correct: int
    alone: int


def evaluate_block(
    network: Network,
    loader: BatchLoader,
    size: int,
    rank: int,
    deterministic: bool,
    views: Sequence[View] = (),
) -> Evaluated:
    """Evaluate the block of a split that is `rank`'s of `size`.

    A loss sum is of network.rows neighbours at most. deterministic: these are the same for any
    size, and so are their bits. views: whose outputs or scores are averaged, the first being the
    image itself; none: those of the images alone.
    """
    start, stop = block(len(loader), size, rank, network.rows if deterministic else 1)
    scores = np.empty((stop - start, network.classes), network.dtype)
    losses, correct, alone = [], 0, 0
    for first in range(start, stop, network.rows):
        rows = np.arange(first, min(first + network.rows, stop), dtype=np.int64)
        inputs, labels = loader.load(rows, network.inputs)
        outputs = network.forward(inputs, Step())
        part, loss, right = network.judge(outputs, labels)
        alone += int(right)
        if views:
            mean = _over_views(network, loader, rows, views, outputs)
            part, loss, right = network.judge(mean, labels)
        scores[first - start : first - start + len(rows)] = part
        losses.append(float(loss))
        correct += int(right)
    return Evaluated(start, scores, losses, correct, alone)


def _over_views(
    network: Network,
    loader: BatchLoader,
    rows: np.ndarray,
    views: Sequence[View],
    outputs: np.ndarray,
) -> np.ndarray:
    """Return the mean outputs `(rows, classes)` over views, or those of the mean scores.

    outputs: of the first view, which is the image itself.
    """

    def part(view: View, outputs: np.ndarray) -> np.ndarray:
        told = network.score(outputs) if view.of_scores else outputs
        shared: np.ndarray = network.dtype.type(view.share) * told
        return shared

    mean = part(views[0], outputs)
    for view in views[1:]:
        inputs, _ = loader.load(rows, network.inputs, view)
        mean += part(view, network.forward(inputs, Step()))
    return network.outputs_of(mean) if views[0].of_scores else mean
