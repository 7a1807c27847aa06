"""What the members say of a split, fused on rank 0: every row counted once, one Reduce per
fusion.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ensync.core import fusion, metrics
from ensync.mpi.allreduce import reduce_to_root, sum_counts
from ensync.mpi.exchange import arrays_from_root
from ensync.mpi.world import Comm
from ensync.nn.network import Network
from ensync.training.batches import BatchLoader
from ensync.training.evaluation import evaluate_block

TOP_K = 5


@dataclass
class SplitScores:
    """The members' scores of one split as far as this rank computed them: `blocks[m] = (first row,
    scores (rows, classes))`.

    `correct` and `loss_sum` `(members,)` are of this rank's rows until `settle` sums them over the
    ranks. deterministic: the same bits on any number of ranks.
    """

    loader: BatchLoader
    members: int
    classes: int
    deterministic: bool = False
    blocks: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    excluded: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.correct, self.loss_sum = np.zeros(self.members, np.int64), np.zeros(self.members)

    def ask(self, member: int, network: Network, size: int, rank: int) -> None:
        """Let a member answer for this rank's block of the split, one of `size`."""
        start, scores, losses, right = evaluate_block(
            network, self.loader, size, rank, self.deterministic
        )
        self.blocks[member] = (start, scores)
        self.correct[member] += right
        self.loss_sum[member] += math.fsum(losses)

    def settle(self, comm: Comm, failed: dict[int, str]) -> None:
        """Sum the counts over ranks and agree who is left out: the failed, and those with scores
        that are not finite. Collective.
        """
        bad = np.zeros(self.members, np.int64)
        for member, (_, scores) in self.blocks.items():
            bad[member] = not fusion.usable(scores)
        bad, self.correct, self.loss_sum = (
            sum_counts(comm, a) for a in (bad, self.correct, self.loss_sum)
        )
        unusable: list[int] = np.flatnonzero(bad).tolist()
        self.excluded = {m: "its outputs are not finite" for m in unusable} | failed

    @property
    def present(self) -> list[int]:
        """The members that join a fusion."""
        return [m for m in range(self.members) if m not in self.excluded]

    def votes(
        self, comm: Comm, method: str, weights: np.ndarray, upto: int | None = None
    ) -> np.ndarray | None:
        """Return on rank 0 the summed votes float64 `(rows, classes)` of the present members
        below `upto`. Collective.
        """

        def of(members: Sequence[int]) -> np.ndarray:
            total = np.zeros((len(self.loader), self.classes))
            for member, (start, scores) in self.blocks.items():
                if (
                    member in members
                    and member not in self.excluded
                    and (upto is None or member < upto)
                ):
                    total[start : start + len(scores)] += fusion.VOTES[method](
                        scores, weights[member]
                    )
            return total

        return sum_to_root(comm, of, self.members, self.deterministic)


def sum_to_root(
    comm: Comm,
    contribution: Callable[[Sequence[int]], np.ndarray],
    members: int,
    deterministic: bool,
) -> np.ndarray | None:
    """Return on rank 0 the sum of all ranks' contributions to `members`, None elsewhere.
    Collective.

    contribution(members): this rank's sum over some of them. deterministic: one Reduce for each
    member, added in order of member.
    """
    total, *others = (
        reduce_to_root(comm, contribution(part))
        for part in ([[m] for m in range(members)] if deterministic else [range(members)])
    )
    for other in others:
        if total is not None and other is not None:  # on rank 0
            np.add(total, other, out=total)
    return total


def voting_weights(
    method: str, panel: SplitScores, validation_correct: np.ndarray, validation_rows: int
) -> np.ndarray:
    """Return the weight `(members,)` of each member, 0 for those left out; weighted voting takes
    them from the validation split.
    """
    weights = np.zeros(panel.members)
    here = panel.present
    if here:
        weighted = method == "weighted_voting" and validation_rows
        weights[here] = (
            fusion.validation_weights(validation_correct[here], validation_rows, panel.classes)
            if weighted
            else 1 / len(here)
        )
    return weights


def average(
    comm: Comm,
    mine: Sequence[tuple[int, np.ndarray, np.ndarray]],
    weights: np.ndarray,
    network: Network,
    deterministic: bool,
) -> None:
    """Put the weighted mean of the members' parameters and statistics into `network` on every rank.
    Collective.

    mine: (member, parameters, statistics) of the members that this rank speaks for; each member has
    one speaker.
    """

    def of(members: Sequence[int]) -> np.ndarray:
        total = np.zeros(len(network.parameters) + len(network.statistics))
        for member, parameters, statistics in mine:
            if member in members:
                total += fusion.weighted_parameters(
                    np.concatenate([parameters, statistics]), weights[member]
                )
        return total

    summed = sum_to_root(comm, of, len(weights), deterministic)
    mean = (
        {"mean": fusion.averaged_parameters(summed, weights.sum(), network.dtype)}
        if summed is not None
        else None
    )
    values = arrays_from_root(comm, mean)["mean"]
    network.parameters[:] = values[: len(network.parameters)]
    network.statistics[:] = values[len(network.parameters) :]


def figures(votes: np.ndarray, labels: np.ndarray, is_probability: bool) -> dict[str, Any]:
    """Return what is reported of summed votes `(rows, classes)`: accuracy, loss (of
    probabilities), F1, top-k, per class, confusion counts.
    """
    classes = votes.shape[1]
    counts = metrics.confusion(labels, fusion.winners(votes), classes)
    k = min(TOP_K, classes)
    rows = max(len(labels), 1)
    return {
        "rows": len(labels),
        "accuracy": metrics.accuracy(counts),
        "loss": metrics.cross_entropy_sum(fusion.shares(votes), labels) / rows
        if is_probability
        else None,
        "macro_f1": metrics.macro_f1(counts),
        "weighted_f1": metrics.weighted_f1(counts),
        "top_k": {"k": k, "accuracy": metrics.top_k_correct(votes, labels, k) / rows},
        "precision": metrics.precision(counts).tolist(),
        "recall": metrics.recall(counts).tolist(),
        "f1": metrics.f1(counts).tolist(),
        "confusion": counts.tolist(),
    }
