"""Replicas that meet now and then: beside plain numpy, independent runs and synchronous ones. What
can happen to their runs is in test_mpi_communication.py.
"""

from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI
from runs.helpers import COMM, StopAt, begin, common_digits, gathered, job_maker, resume, run
from runs.plain_replicas import OPTIMIZER, RATE, Softmax, local

from ensync.core.config.communication import Communication
from ensync.core.sharding import block
from ensync.mpi.wire import passed
from ensync.mpi.world import alone
from ensync.runs import lifecycle, results, state
from ensync.runs.stopped import Stopped
from ensync.runs.validation import check_replicas
from ensync.strategies.local import LocalReducer
from ensync.training.reducers import Part, SerialReducer

pytestmark = [pytest.mark.mpi, pytest.mark.usefixtures("one_thread")]
ROWS = 407  # of the digits: 293 for training, in batches of 50 that 3 and 4 ranks do not divide
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
        network={"hidden": []},
        training={"precision": "float64", "epochs": 2, "batch": 50},
        optimizer=OPTIMIZER,
    )


def parameters(trained):
    return gathered(trained)[0]["members/0000/parameters"]


SETTINGS = [
    {"every": 4},
    {"every": 5, "start": 3},
    {"every": 3, "average_optimizer": True},
    {"every": 4, "outer_learning_rate": 0.7, "outer_momentum": 0.9},
    {"every": 1, "outer_learning_rate": 0.5},
    {"every": "never"},
    {"every": "never", "start": 4},
]


def compared(make_job, settings, shape, **sections):
    """Compare a run with plain numpy. shape: epochs, batch."""
    epochs, batch = shape
    training = {"batch": batch, "epochs": epochs}
    trained = begin(COMM, make_job(communication=settings, training=training, **sections))
    plain, start = Softmax(trained), parameters(trained)
    rates = [RATE * factor for factor in FACTORS[bool(sections)]]
    shape = (COMM.size, *shape)
    expected = local(plain, start, Communication(**settings), shape, rates)
    found = parameters(lifecycle.train(trained))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10)


FACTORS = [[1] * 12, [1 / 3, 2 / 3, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.125]]
FALLING = {"name": "step", "step_epochs": 0.5, "factor": 0.5, "warmup_epochs": 0.5}


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_steps_are_those_of_plain_numpy(make_job, settings):
    """12 steps, of which the last of each epoch has 43 rows: neither 2, 3 nor 4 divide it."""
    compared(make_job, settings, (2, 50))


@pytest.mark.parametrize("growth", [0.03, 0.05])
def test_intervals_grow_as_the_rate_falls(make_job, growth):
    """Of the steps 1 and 2 of a warm-up, then by the rate of their first one."""
    compared(make_job, {"every": 2, "growth": growth}, (2, 50), schedule=FALLING)


def test_ranks_without_rows_wait(make_job):
    """The last batch has one row, of which all ranks but one have none."""
    compared(make_job, {"every": 3}, (1, 73))


def test_meetings_in_every_step_are_synchronous_training(make_job, monkeypatch):
    """To rounding: of gradient descent the mean of the steps is the step of the mean. A job that
    asks for it gets the synchronous reducer, and so its bits.
    """
    sections = {"optimizer": {"name": "sgd"}, "network": {"hidden": [7]}}
    together = run(COMM, make_job("together", **sections))
    asked = begin(COMM, make_job("asked", **sections, communication={"every": 1}))
    assert type(asked.trainers[0].reducer) is type(together.trainers[0].reducer)
    monkeypatch.setattr(Communication, "is_local", True)
    monkeypatch.setattr(Communication, "is_outer", True)
    local = begin(COMM, make_job("local", **sections))
    assert isinstance(local.trainers[0].reducer, LocalReducer)
    found = parameters(lifecycle.train(local))
    np.testing.assert_allclose(found, parameters(together), rtol=1e-9, atol=1e-12)
    figures = [
        {k: r[k] for k in ("train_loss", "train_accuracy")}
        for r in (local.state.history[-1], together.state.history[-1])
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)


def test_those_that_never_meet_are_an_ensemble_from_a_shared_start(make_job):
    """As many independent runs, each on the rows of one rank, and the mean of their parameters and
    moving statistics, weighted by samples.
    """
    network = {"layers": NORMALIZED, "hidden": None}
    job = make_job("never", network=network, communication={"every": "never"})
    found = gathered(run(COMM, job))[0]
    single = begin(alone(), make_job(f"alone{COMM.rank}", network=network))
    (trainer,) = single.trainers.values()
    rows = [block(50, COMM.size, r)[1] - block(50, COMM.size, r)[0] for r in range(COMM.size)]
    last = [block(43, COMM.size, r)[1] - block(43, COMM.size, r)[0] for r in range(COMM.size)]
    shares = (5 * np.array(rows) + last) / 293
    trainer.reducer = SerialReducer(trainer.network, Part(COMM.size, COMM.rank, alone=True))
    lifecycle.train(single)
    for name in ("parameters", "statistics"):
        mean = COMM.allreduce(shares[COMM.rank] * trainer.vectors[name], op=MPI.SUM)
        np.testing.assert_allclose(found[f"members/0000/{name}"], mean, rtol=1e-9, atol=1e-12)


def test_the_mean_goes_on_on_other_ranks(make_job):
    """A run that was stopped between two meetings is one network for evaluation and for one
    rank.
    """
    job = make_job(communication={"every": 50, "outer_momentum": 0.5})
    with pytest.raises(Stopped):
        run(COMM, job, StopAt(5))
    loaded = state.load_newest(COMM, Path(job.output.directory))
    replicas = [name for name in loaded.arrays or {} if "/replicas/" in name]
    assert COMM.rank or len(replicas) == (3 + (COMM.size > 1)) * COMM.size
    if COMM.rank == 0:
        mine = state.load_newest(alone(), Path(job.output.directory))
        reached = mine.attributes["positions"][0]["updates"]
        again = resume(alone(), mine, job)
        assert again.trainers[0].optimizer.steps == 12 > reached
        assert results.evaluator_of_session(again).fuse("soft_voting").accuracy > 0.3
    COMM.Barrier()


def test_only_meetings_send(make_job):
    """Their difference and metrics, a metrics sum and a mean at an epoch's end, and two integers
    where wishes are asked for; replicas are equal outside of steps.
    """
    trained = run(COMM, make_job(communication={"every": 6}, training={"batch": 25}))
    (trainer,) = trained.trainers.values()
    reducer, vector = trainer.reducer, passed(trainer.network.message.nbytes, COMM.size)
    if COMM.size == 1:
        assert isinstance(reducer, SerialReducer)
        return
    check_replicas(trained.trainers[0], COMM, "at the end")
    meetings, other = 24 // 6, 0  # 12 steps an epoch, whose end is a meeting
    small = (
        reducer.bytes
        - (meetings + other) * vector
        - passed(trainer.optimizer.slots["velocity"].nbytes, COMM.size) * 2
    )
    numbers = meetings * passed(4 * 8, COMM.size)
    assert numbers <= small <= numbers + 24 * passed(16, COMM.size)


@pytest.mark.parametrize("seconds", [1e-9, 1e-4, 60.0])
def test_wishes_are_heard_on_all_ranks_in_the_same_step(seconds, monkeypatch):
    from ensync.mpi.wishes import Wishes

    monkeypatch.setattr("ensync.mpi.wishes.SECONDS", seconds)
    monkeypatch.setattr("ensync.mpi.wishes.LONGEST", 1000)  # heard after twice that at the latest
    sent = []
    wishes = Wishes(COMM, lambda nbytes, seconds: sent.append(nbytes))
    heard = [wishes.after_step(step >= 20 and COMM.rank == COMM.size - 1) for step in range(4000)]
    wishes.finish()
    assert COMM.allgather(heard) == COMM.size * [heard]
    assert not any(heard[:21]) and any(heard) and set(sent) == {16}
