"""The members' scores of a split, fused on rank 0, every row once. A fusion that is a sum over
members takes one Reduce; one that needs all members at once gathers their scores, some rows at a
time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ensync.core import metrics
from ensync.core.fusion import (
    Combination,
    Contribution,
    Fusion,
    averaged_parameters,
    shares,
    usable,
    validation_weights,
    weighted_parameters,
    winners,
)
from ensync.mpi.allreduce import gather_to_root, reduce_to_root, sum_counts
from ensync.mpi.exchange import arrays_from_root, join_on_root
from ensync.mpi.world import Comm
from ensync.nn.network import Network
from ensync.report.results import FusionFigures, TopK
from ensync.training.batches import BatchLoader
from ensync.training.evaluation import evaluate_block
from ensync.training.exits import count_exits
from ensync.training.views import View

GATHERED_BYTES = 32 << 20  # of all members' scores on rank 0 at once


class OnRoot(NamedTuple):
    """What came together on rank 0 (None elsewhere), and the bytes that the other ranks sent."""

    values: np.ndarray | None
    sent: int


@dataclass
class SplitScores:
    """The scores of one split that this rank computed: `blocks[m] = (first row, scores (rows,
    classes))` of member m.

    `correct`, `alone` (right by the images alone, without other views) and `loss_sum` `(members,)`
    are of this rank's rows until `reduce` sums them over the ranks. deterministic: the same bits on
    any number of ranks. views: as in `evaluate_block`. exits: where images leave networks with
    exits, counts `(members, thresholds, exits + 1, 2)` (training.exits); empty: not counted.
    """

    loader: BatchLoader
    members: int
    classes: int
    deterministic: bool = False
    views: Sequence[View] = ()
    exits: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    blocks: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    excluded: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.correct, self.alone = np.zeros((2, self.members), np.int64)
        self.loss_sum = np.zeros(self.members)

    def evaluate(
        self, member: int, network: Network, size: int, rank: int, counts: bool = True
    ) -> None:
        """Compute a member's scores of block `rank` of the split, one of `size`; counts: not
        where another rank, which holds a part of the same network, has the same.
        """
        found = evaluate_block(network, self.loader, size, rank, self.deterministic, self.views)
        if not counts:
            return
        self.blocks[member] = (found.start, found.scores)
        self.correct[member] += found.correct
        self.alone[member] += found.alone
        self.loss_sum[member] += math.fsum(found.losses)
        if len(self.exits):
            self.exits[member] += count_exits(network, self.loader, size, rank, self.deterministic)

    def reduce(self, comm: Comm, failed: dict[int, str]) -> None:
        """Sum the counts over ranks, and exclude the members that failed, and those with scores
        that are not finite. Collective.
        """
        bad = np.zeros(self.members, np.int64)
        for member, (_, scores) in self.blocks.items():
            bad[member] = not usable(scores)
        bad, self.correct, self.alone, self.loss_sum = (
            sum_counts(comm, a) for a in (bad, self.correct, self.alone, self.loss_sum)
        )
        self.exits = sum_counts(comm, self.exits) if len(self.exits) else self.exits
        unusable: list[int] = np.flatnonzero(bad).tolist()
        self.excluded = {m: "its outputs are not finite" for m in unusable} | failed

    @property
    def present(self) -> list[int]:
        """The members that are not excluded."""
        return [m for m in range(self.members) if m not in self.excluded]

    def votes(
        self, comm: Comm, fusion: Fusion, weights: np.ndarray, upto: int | None = None
    ) -> OnRoot:
        """Return on rank 0 the votes float64 `(rows, classes)` of the present members below `upto`.
        Collective.
        """
        fused = [member for member in self.present if upto is None or member < upto]
        if fusion.combine is not None:
            return self._combined(comm, fusion.combine, fused)
        assert fusion.contribute is not None
        return self._summed(comm, fusion.contribute, weights, fused)

    def _summed(
        self, comm: Comm, contribute: Contribution, weights: np.ndarray, fused: Sequence[int]
    ) -> OnRoot:
        def of(members: Sequence[int]) -> np.ndarray:
            total = np.zeros((len(self.loader), self.classes))
            for member, (start, scores) in self.blocks.items():
                if member in members and member in fused:
                    total[start : start + len(scores)] += contribute(scores, weights[member])
            return total

        return sum_to_root(comm, of, self.members, self.deterministic)

    def _combined(self, comm: Comm, combine: Combination, fused: Sequence[int]) -> OnRoot:
        votes, sent = np.empty((len(self.loader), self.classes)), 0
        for first, block in self._gathered(comm, fused):
            sent += block.sent
            if block.values is not None:
                votes[first : first + block.values.shape[1]] = combine(block.values)
        return OnRoot(votes if comm.rank == 0 else None, sent)

    def gathered(self, comm: Comm) -> np.ndarray | None:
        """Return on rank 0 the scores float32 `(present members, rows, classes)`, gathered in
        blocks of GATHERED_BYTES at most, and None elsewhere. Collective.
        """
        fused, rows = self.present, len(self.loader)
        whole = None
        if comm.rank == 0:
            whole = np.empty((len(fused), rows, self.classes), np.float32)
        for first, block in self._gathered(comm, fused) if fused else ():
            if whole is not None and block.values is not None:
                whole[:, first : first + block.values.shape[1]] = block.values
        return whole

    def _gathered(self, comm: Comm, fused: Sequence[int]) -> Iterator[tuple[int, OnRoot]]:
        """Yield the first row and, on rank 0, the scores float64 `(members, rows, classes)` of
        blocks of rows, of GATHERED_BYTES at most. Collective.
        """
        own = [
            (place, self.blocks[member][0], self.blocks[member][0] + len(self.blocks[member][1]))
            for place, member in enumerate(fused)
            if member in self.blocks
        ]
        layout = gather_to_root(comm, own)
        rows, row_bytes = len(self.loader), len(fused) * self.classes * 8
        at_once = max(1, GATHERED_BYTES // row_bytes)
        for first in range(0, rows, at_once):
            last = min(first + at_once, rows)
            parts = [
                self.blocks[fused[place]][1][low - start : high - start].ravel()
                for place, start, low, high in _within(own, first, last)
            ]
            joined = join_on_root(comm, np.concatenate([np.empty(0), *parts]))
            yield first, self._laid_out(joined, layout, (len(fused), first, last))

    def _laid_out(
        self,
        joined: np.ndarray | None,
        layout: list[list[tuple[int, int, int]]] | None,
        extent: tuple[int, int, int],
    ) -> OnRoot:
        """Put the ranks' parts of a block, one after the other, in their places."""
        members, first, last = extent
        if joined is None or layout is None:
            return OnRoot(None, 0)
        block, taken, sent = np.empty((members, last - first, self.classes)), 0, 0
        for rank, own in enumerate(layout):
            for place, _, low, high in _within(own, first, last):
                part = joined[taken : taken + (high - low) * self.classes]
                block[place, low - first : high - first] = part.reshape(-1, self.classes)
                taken += len(part)
                sent += part.nbytes if rank else 0
        return OnRoot(block, sent)


def _within(
    parts: Sequence[tuple[int, int, int]], first: int, last: int
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (place, start, low, high) of the parts (place, start, stop) that have rows from `first`
    to before `last`: those from `low` to before `high`.
    """
    for place, start, stop in parts:
        low, high = max(start, first), min(stop, last)
        if low < high:
            yield place, start, low, high


def sum_to_root(
    comm: Comm,
    contribution: Callable[[Sequence[int]], np.ndarray],
    members: int,
    deterministic: bool,
) -> OnRoot:
    """Return on rank 0 the sum of all ranks' contributions to `members`. Collective.

    contribution(members): this rank's sum over some of them. deterministic: one Reduce for each
    member, added in order of member.
    """
    total, sent = None, 0
    for part in [[m] for m in range(members)] if deterministic else [range(members)]:
        own = contribution(part)
        sent += (comm.size - 1) * own.nbytes
        summed = reduce_to_root(comm, own)
        if total is None:
            total = summed
        elif summed is not None:  # on rank 0
            np.add(total, summed, out=total)
    return OnRoot(total, sent)


def voting_weights(
    fusion: Fusion, test: SplitScores, validation_correct: np.ndarray, validation_rows: int
) -> np.ndarray:
    """Return the weight float64 `(members,)` of each member, 0 for those excluded: equal, or from
    how many validation images each has right, where the fusion weighs by them.
    """
    weights = np.zeros(test.members)
    present = test.present
    if present:
        weighted = fusion.needs_validation and validation_rows
        weights[present] = (
            validation_weights(validation_correct[present], validation_rows, test.classes)
            if weighted
            else 1 / len(present)
        )
    return weights


def average(
    comm: Comm,
    mine: Sequence[tuple[int, np.ndarray, np.ndarray]],
    weights: np.ndarray,
    network: Network,
    deterministic: bool,
) -> int:
    """Give `network` the weighted mean of the members' parameters and statistics on every rank, and
    return the bytes that were sent for their sum. Collective.

    mine: (member, parameters, statistics) of the members that this rank contributes; one rank
    contributes each member.
    """

    def of(members: Sequence[int]) -> np.ndarray:
        total = np.zeros(len(network.parameters) + len(network.statistics))
        for member, parameters, statistics in mine:
            if member in members:
                total += weighted_parameters(
                    np.concatenate([parameters, statistics]), weights[member]
                )
        return total

    summed, sent = sum_to_root(comm, of, len(weights), deterministic)
    mean = (
        {"mean": averaged_parameters(summed, weights.sum(), network.dtype)}
        if summed is not None
        else None
    )
    values = arrays_from_root(comm, mean)["mean"]
    network.parameters[:] = values[: len(network.parameters)]
    network.statistics[:] = values[len(network.parameters) :]
    return sent


def figures(votes: np.ndarray, labels: np.ndarray, is_probability: bool) -> FusionFigures:
    """Return what is reported of votes `(rows, classes)` and labels int64 `(rows,)`.

    is_probability: the votes divided by their sum are, and have a loss.
    """
    classes = votes.shape[1]
    counts = metrics.confusion(labels, winners(votes), classes)
    k = min(metrics.TOP_K, classes)
    rows = max(len(labels), 1)
    return FusionFigures(
        rows=len(labels),
        accuracy=metrics.accuracy(counts),
        loss=metrics.cross_entropy_sum(shares(votes), labels) / rows if is_probability else None,
        macro_f1=metrics.macro_f1(counts),
        weighted_f1=metrics.weighted_f1(counts),
        top_k=TopK(k, metrics.top_k_correct(votes, labels, k) / rows),
        precision=metrics.precision(counts).tolist(),
        recall=metrics.recall(counts).tolist(),
        f1=metrics.f1(counts).tolist(),
        confusion=counts.tolist(),
    )
