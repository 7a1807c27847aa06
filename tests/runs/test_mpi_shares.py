"""Parts of a batch by speed: beside one rank, beside equal parts, and across checkpoints. How fast
ranks are is said by a clock of the tests' own.
"""

from pathlib import Path

import numpy as np
import pytest
from runs.helpers import COMM, StopAt, begin, common_digits, gathered, job_maker, resume, run

from ensync.core.config.communication import Communication
from ensync.core.shares import rows_by_speed
from ensync.mpi.world import alone
from ensync.runs import speeds, state
from ensync.runs.stopped import Stopped
from ensync.training import runners
from ensync.training.batches import BatchLoader

pytestmark = [pytest.mark.mpi, pytest.mark.usefixtures("one_thread")]
ROWS = 407  # of the digits: 293 for training, in batches of 50 that 3 and 4 ranks do not divide
SLOW = tuple(1.0 if rank else 0.4 for rank in range(COMM.size))  # rows per second of each rank
BY_SPEED = {"shares": "speed"}
NORMALIZED = [
    {"kind": "dense", "units": 6},
    {"kind": "batch_normalization", "activation": "relu", "momentum": 0.8},
    {"kind": "dense"},
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, ROWS)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        network={"hidden": [7]},
        training={"precision": "float64", "epochs": 3, "batch": 50},
        optimizer={"name": "sgd", "learning_rate": 0.1},
    )


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Let a row take months, more on a slow rank, so that real waits are nothing."""
    now, load = [0.0], BatchLoader.load

    def slow_load(self, rows, out, changes=None):
        now[0] += 1e7 * len(rows) / SLOW[COMM.rank]
        return load(self, rows, out, changes)

    monkeypatch.setattr(BatchLoader, "load", slow_load)
    monkeypatch.setattr(runners, "perf_counter", lambda: now[0])


def expected(n=50):
    return [*rows_by_speed(n, SLOW)]


@pytest.mark.parametrize(
    "sections",
    [
        {"network": {"layers": NORMALIZED, "hidden": None}, "training": {"slice": 23}},
        # the last batch has one row
        {"augmentation": {"mixup": 0.4}, "training": {"batch": 73, "epochs": 2}},
    ],
    ids=str,
)
def test_the_gradient_is_that_of_the_batch(make_job, sections):
    """A step on unequal parts is that of one rank, to rounding."""
    found, positions = gathered(run(COMM, make_job(**sections, communication=BY_SPEED)))
    single, known = gathered(run(alone(), make_job(f"alone{COMM.rank}", **sections)))
    for name, values in single.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-7, atol=1e-10)
    assert positions[0]["speeds"] == (
        pytest.approx(normal(SLOW), rel=0.02) if COMM.size > 1 else ()
    )
    assert positions[0]["best_loss"] == pytest.approx(known[0]["best_loss"])


def normal(given):
    return tuple(each * len(given) / sum(given) for each in given)


def test_the_epochs_say_who_had_how_many_rows(make_job):
    trained = run(COMM, make_job(communication=BY_SPEED))
    shares = [record.get("shares") for record in trained.state.history]
    if COMM.size == 1:
        assert shares == [None] * 3
        return
    assert shares == [[*rows_by_speed(50, (1.0,) * COMM.size)], expected(), expected()]
    assert speeds.last_shares(trained.state.history, 1) == [expected()]
    assert COMM.allgather(trained.trainers[0].position.speeds) == COMM.size * [
        trained.trainers[0].position.speeds
    ]


def test_replicas_are_weighted_by_their_rows(make_job, monkeypatch):
    """Those that meet in every step are synchronous training, whatever their parts."""
    single = gathered(run(alone(), make_job(f"alone{COMM.rank}")))[0]
    monkeypatch.setattr(Communication, "is_local", True)
    monkeypatch.setattr(Communication, "is_outer", True)
    found = gathered(run(COMM, make_job("local", communication=BY_SPEED)))[0]
    name = "members/0000/parameters"
    np.testing.assert_allclose(found[name], single[name], rtol=1e-7, atol=1e-10)


def test_resumed_equals_uninterrupted_to_the_bit(make_job):
    """Within an epoch, whose parts go on as they were, and between meetings."""
    sections = {"communication": BY_SPEED | {"every": 4}, "optimizer": {"name": "momentum"}}
    whole, positions = gathered(run(COMM, make_job("whole", **sections)))
    job = make_job("parts", **sections)
    with pytest.raises(Stopped):
        run(COMM, job, StopAt(8, rank=COMM.size - 1))
    loaded = state.load_newest(COMM, Path(job.output.directory))
    found, reached = gathered(resume(COMM, loaded, job))
    assert all(np.array_equal(found[name], values) for name, values in whole.items())
    assert reached[0]["loss_sum"] == positions[0]["loss_sum"]
    assert reached[0]["speeds"] == pytest.approx(positions[0]["speeds"])


def test_other_ranks_begin_with_equal_parts(make_job):
    if COMM.size < 2:
        pytest.skip("needs another number of ranks")
    job = make_job(communication=BY_SPEED, training={"batch": 40})
    with pytest.raises(Stopped):
        run(COMM, job, StopAt(11))
    fewer = COMM.Split(0 if COMM.rank < COMM.size - 1 else 1)
    if COMM.rank < COMM.size - 1:
        loaded = state.load_newest(fewer, Path(job.output.directory))
        assert len(loaded.attributes["positions"][0]["speeds"]) == COMM.size
        again = resume(fewer, loaded, job)
        shares = [record.get("shares") for record in again.state.history]
        if fewer.size > 1:
            assert shares[1] == [*rows_by_speed(40, (1.0,) * fewer.size)]
            assert shares[2] == [*rows_by_speed(40, SLOW[: fewer.size])]
    COMM.Barrier()
    fewer.Free()


def test_groups_of_an_ensemble_share_by_speed(make_job):
    """The result is that of equal parts, to rounding."""
    ensemble = {"training": {"strategy": "ensemble"}, "ensemble": {"members": 2}}
    equal = gathered(run(COMM, make_job("equal", **ensemble)))[0]
    found = gathered(run(COMM, make_job("speed", **ensemble, communication=BY_SPEED)))[0]
    for name, values in equal.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-7, atol=1e-10)


def test_a_line_says_the_rows_of_each_of_few_ranks():
    assert speeds.listed([21, 43]) == "rank 0 has 21, rank 1 has 43 of 64 rows"
    many = speeds.listed([8, 9, 5, 8, 8, 12, 8, 8, 8, 6])
    assert many == "rank 2 has 5, rank 5 has 12 of 80 rows, all others between these"


def test_begin_has_room_for_the_largest_part(make_job):
    network = begin(COMM, make_job(communication=BY_SPEED)).trainers[0].network
    assert network.rows >= min(50, 2 * -(-50 // COMM.size))
