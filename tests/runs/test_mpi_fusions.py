"""Fusions on ranks that hold the members' scores in different ways, against numpy with all of them
at hand.
"""

import numpy as np
import pytest
from mpi4py import MPI

from ensync.core.fusion import FUSIONS, Fusion
from ensync.core.sharding import block
from ensync.runs import scores

COMM = MPI.COMM_WORLD
ROWS, CLASSES, MEMBERS = 53, 5, 4
GREATEST = Fusion("greatest", "largest output", combine=lambda found: found.max(axis=0))

pytestmark = pytest.mark.mpi


def split_scores(layout, deterministic=False):
    """Return all scores (members, rows, classes) and this rank's SplitScores of them."""
    all_scores = np.random.default_rng(3).dirichlet(np.ones(CLASSES), (MEMBERS, ROWS))
    all_scores = all_scores.astype(np.float32)
    split = scores.SplitScores(range(ROWS), MEMBERS, CLASSES, deterministic)
    for member in range(MEMBERS):
        if layout == "a member a rank":
            start, stop = (0, ROWS) if member % COMM.size == COMM.rank else (0, 0)
        else:
            start, stop = block(ROWS, COMM.size, COMM.rank)
        if stop > start:
            split.blocks[member] = (start, all_scores[member, start:stop])
    return all_scores, split


@pytest.mark.parametrize("layout", ["a member a rank", "rows a rank"])
@pytest.mark.parametrize("excluded", [(), (0, 2)])
@pytest.mark.parametrize("upto", [None, 3])
def test_members_combined_at_once_equal_numpy(monkeypatch, layout, excluded, upto):
    monkeypatch.setattr(scores, "GATHERED_BYTES", 1000)  # a few rows at a time
    all_scores, split = split_scores(layout)
    split.excluded = dict.fromkeys(excluded, "left out")
    votes, sent = split.votes(COMM, GREATEST, np.ones(MEMBERS), upto)
    assert (votes is None) == (COMM.rank > 0)
    fused = [m for m in range(upto or MEMBERS) if m not in excluded]
    if COMM.rank == 0:
        np.testing.assert_array_equal(votes, all_scores[fused].max(axis=0))
        rows = block(ROWS, COMM.size, 0)[1]
        own = sum(m % COMM.size == 0 for m in fused) * ROWS
        held = own if layout == "a member a rank" else len(fused) * rows
        assert sent == (len(fused) * ROWS - held) * CLASSES * 8


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_bytes_of_a_sum_are_those_of_its_reduces(deterministic):
    all_scores, split = split_scores("rows a rank", deterministic)
    votes, sent = split.votes(COMM, FUSIONS["soft_voting"], np.full(MEMBERS, 1 / MEMBERS))
    reduces = MEMBERS if deterministic else 1
    assert sent == reduces * (COMM.size - 1) * ROWS * CLASSES * 8
    if COMM.rank == 0:
        np.testing.assert_allclose(votes, all_scores.astype(np.float64).mean(axis=0), rtol=1e-12)


def test_blocks_keep_to_their_memory(monkeypatch):
    monkeypatch.setattr(scores, "GATHERED_BYTES", 2000)
    _, split = split_scores("a member a rank")
    largest = []

    def combine(found):
        largest.append(found.nbytes)
        return found[0]

    split.votes(COMM, Fusion("first", "", combine=combine), np.ones(MEMBERS))
    assert max(largest, default=0) <= 2000 and (len(largest) > 1) == (COMM.rank == 0)
