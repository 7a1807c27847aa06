"""Sums that begin while the backward pass computes, beside those that begin after it."""

from types import SimpleNamespace

import numpy as np
import pytest
from runs.helpers import COMM, begin, common_digits, gathered, job_maker, run

from ensync.mpi import buckets
from ensync.mpi.buckets import BucketSums, Hidden, cut
from ensync.runs import lifecycle
from ensync.strategies import overlapped
from ensync.strategies.overlapped import OverlappedReducer, layer_ends

pytestmark = [pytest.mark.mpi, pytest.mark.usefixtures("one_thread")]
SMALL = {"overlap": True, "bucket_megabytes": 5e-4}  # 125 numbers
several = pytest.mark.skipif(COMM.size == 1, reason="one rank sums nothing")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, 407)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        network={"hidden": [9, 8]},
        training={"epochs": 2, "batch": 50},
        optimizer={"name": "momentum", "learning_rate": 0.05},
    )


def parameters(trained):
    return gathered(trained)[0]["members/0000/parameters"]


@pytest.mark.parametrize(
    ("ends", "found"),
    [
        ([], []),
        ([7], [(0, 7)]),
        ([3, 3, 12, 14], [(3, 14), (0, 3)]),
        ([50, 51, 75], [(65, 75), (51, 65), (41, 51), (31, 41), (21, 31), (11, 21), (0, 11)]),
        ([0, 0, 30], [(20, 30), (10, 20), (0, 10)]),
    ],
)
def test_buckets_go_from_the_last_layer_to_the_first(ends, found):
    assert cut(ends, 10) == [slice(*pair) for pair in found]


@several
def test_sums_are_the_same_whenever_they_begin(make_job, monkeypatch):
    """By the bit; and to rounding those of one sum. Batches in slices begin theirs at the end."""
    early = run(COMM, make_job("early", communication=SMALL))
    assert isinstance(early.trainers[0].reducer, OverlappedReducer)
    plain = run(COMM, make_job("plain", communication={"overlap": False}))
    monkeypatch.setattr(buckets, "EACH", 1)
    late = run(COMM, make_job("late", communication=SMALL))
    monkeypatch.undo()
    sliced = run(COMM, make_job("sliced", communication=SMALL, training={"slice": 20}))
    assert np.array_equal(parameters(early), parameters(late))
    for each in (plain, sliced):
        np.testing.assert_allclose(parameters(early), parameters(each), rtol=1e-4, atol=1e-5)
    sent = [COMM.allreduce(each.trainers[0].reducer.bytes) for each in (early, late, plain)]
    assert sent[0] == sent[1] == pytest.approx(sent[2], rel=0.01)


@several
def test_sums_begin_on_the_way(make_job, monkeypatch):
    """All of the gradient's but those of the first steps, and in the order of the backward pass."""
    trained = begin(COMM, make_job(communication=SMALL, training={"epochs": 1}))
    (trainer,) = trained.trainers.values()
    seen, complete, finish = [], BucketSums.complete, BucketSums.finish

    def completed(sums, start):
        complete(sums, start)
        seen.append((start, len(sums._requests)))

    def finished(sums):
        seen.append(("end", len(sums._requests)))
        finish(sums)

    monkeypatch.setattr(BucketSums, "complete", completed)
    monkeypatch.setattr(BucketSums, "finish", finished)
    lifecycle.train(trained)
    starts = [0, *layer_ends(trainer.network)[:-1]]
    assert starts == [0, 585, 665]
    expected = [(665, 0), (585, 1), (0, 5), ("end", 5)]  # 90, 80 and 585 numbers
    none = [(start, 0) for start, _ in expected]
    assert [seen[i : i + 4] for i in range(0, 24, 4)] == 4 * [none] + 2 * [expected]
    (note,) = trainer.reducer.notes
    assert "hidden" in note and " ms a step behind the backward pass" in note


def test_what_is_hidden_is_said_in_milliseconds():
    assert str(Hidden(12.34, 3.21)) == "hidden 9.1 of 12.3 ms"
    assert str(Hidden(1.0, 1.5)) == "hidden 0.0 of 1.0 ms"


@pytest.mark.parametrize("nodes", [1, COMM.size])
@pytest.mark.parametrize("library", ["MPICH", "Open MPI"])
@pytest.mark.parametrize("megabytes", [1e-6, 1.0])
def test_sums_overlap_between_nodes_where_the_mpi_gains_by_it(
    make_job, monkeypatch, nodes, library, megabytes
):
    """Where the job leaves it open, and there are several buckets."""
    monkeypatch.setattr(overlapped, "topology", lambda comm: SimpleNamespace(nodes=nodes))
    monkeypatch.setattr(buckets.MPI, "get_vendor", lambda: (library, (5, 0, 0)))
    trained = begin(COMM, make_job(communication={"bucket_megabytes": megabytes}))
    found = isinstance(trained.trainers[0].reducer, OverlappedReducer)
    assert found == (nodes == COMM.size > 1 and library == "MPICH" and megabytes < 1)
