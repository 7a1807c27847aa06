"""Replicas that meet now and then: beside plain numpy, independent runs and synchronous ones. What
can happen to their runs is in test_mpi_communication.py.
"""

from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI
from runs.helpers import COMM, StopAt, begin, common_digits, gathered, job_maker, resume, run

from ensync.core.config.communication import Communication
from ensync.core.sharding import block, epoch_order
from ensync.mpi.wire import passed
from ensync.mpi.world import alone
from ensync.runs import lifecycle, results, state
from ensync.runs.stopped import Stopped
from ensync.runs.validation import check_replicas
from ensync.strategies.local import LocalReducer
from ensync.training.reducers import Part, SerialReducer

pytestmark = [pytest.mark.mpi, pytest.mark.usefixtures("one_thread")]
ROWS = 407  # of the digits: 293 for training, in batches of 50 that 3 and 4 ranks do not divide
RATE, MOMENTUM = 0.05, 0.9
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
        optimizer={"name": "momentum", "learning_rate": RATE},
    )


def parameters(trained):
    return gathered(trained)[0]["members/0000/parameters"]


class Plain:
    """Softmax regression on the digits by replicas in plain numpy, float64."""

    def __init__(self, trained, start, settings):
        loader, self.settings, self.start = trained.loaders.train, settings, start
        pixels = trained.loaders.dataset.read("train", 0, len(loader)).astype(float)
        self.inputs = (pixels - np.float64(loader.mean)) * np.float64(loader.inverse_std)
        self.targets = np.eye(10)[loader.labels]
        self.seed = trained.job.training.seed

    def gradient(self, w, rows):
        """Return that of the mean loss of rows (n,), given weights and biases (650,)."""
        outputs = self.inputs[rows] @ w[:640].reshape(64, 10) + w[640:]
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        slope = shares / shares.sum(axis=1, keepdims=True) - self.targets[rows]
        return np.append((self.inputs[rows].T @ slope).ravel(), slope.sum(axis=0)) / len(rows)

    def trained(self, ranks, epochs, batch):
        """Return the mean of the replicas after so many epochs."""
        s, (w, outer) = self.settings, (self.start.copy(), np.zeros_like(self.start))
        apart = [[w.copy(), np.zeros_like(w), 0] for _ in range(ranks)]  # velocity, samples
        step = since = 0
        for epoch in range(epochs):
            order = epoch_order(len(self.inputs), self.seed, epoch)
            for rows in (order[i : i + batch] for i in range(0, len(order), batch)):
                parts = [rows[slice(*block(len(rows), ranks, k))] for k in range(ranks)]
                step += 1
                if step <= s.start:
                    parts = [rows] * ranks
                for each, part in zip(apart, parts, strict=True):
                    if len(part):
                        each[1] = MOMENTUM * each[1] + self.gradient(each[0], part)
                        each[0] = each[0] - RATE * each[1]
                        each[2] += len(part)
                since += 1
                if step <= s.start or (s.every != "never" and since == s.every):
                    rate, mu = s.outer_learning_rate, s.outer_momentum
                    if step <= s.start:
                        rate, mu = 1, 0
                    total, since = sum(each[2] for each in apart), 0
                    shares = [each[2] / total for each in apart]
                    d = w - sum(share * each[0] for share, each in zip(shares, apart))
                    outer = mu * outer + d
                    w = w - rate * (d + mu * outer)
                    velocity = sum(share * each[1] for share, each in zip(shares, apart))
                    for each in apart:
                        each[0], each[2] = w.copy(), 0
                        each[1] = velocity if s.average_optimizer else each[1]
        if not since:
            return w
        return sum(each[2] * each[0] for each in apart) / sum(each[2] for each in apart)


SETTINGS = [
    {"every": 4},
    {"every": 5, "start": 3},
    {"every": 3, "average_optimizer": True},
    {"every": 4, "outer_learning_rate": 0.7, "outer_momentum": 0.9},
    {"every": 1, "outer_learning_rate": 0.5},
    {"every": "never"},
    {"every": "never", "start": 4},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_steps_are_those_of_plain_numpy(make_job, settings):
    """12 steps, of which the last of each epoch has 43 rows: neither 2, 3 nor 4 divide it."""
    trained = begin(COMM, make_job(communication=settings))
    plain = Plain(trained, parameters(trained), Communication(**settings))
    found = parameters(lifecycle.train(trained))
    np.testing.assert_allclose(found, plain.trained(COMM.size, 2, 50), rtol=1e-7, atol=1e-10)


def test_ranks_without_rows_wait(make_job):
    """The last batch has one row, of which all ranks but one have none."""
    settings = {"every": 3}
    trained = begin(COMM, make_job(communication=settings, training={"batch": 73, "epochs": 1}))
    plain = Plain(trained, parameters(trained), Communication(**settings))
    found = parameters(lifecycle.train(trained))
    np.testing.assert_allclose(found, plain.trained(COMM.size, 1, 73), rtol=1e-7, atol=1e-10)


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


def test_wishes_are_heard_on_all_ranks_in_the_same_step(monkeypatch):
    from ensync.mpi.wishes import Wishes

    monkeypatch.setattr("ensync.mpi.wishes.SECONDS", 1e-4)
    sent = []
    wishes = Wishes(COMM, lambda nbytes, seconds: sent.append(nbytes))
    heard = [wishes.after_step(step >= 20 and COMM.rank == COMM.size - 1) for step in range(4000)]
    wishes.finish()
    assert COMM.allgather(heard) == COMM.size * [heard]
    assert not any(heard[:21]) and any(heard) and set(sent) == {16}
