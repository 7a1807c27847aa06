"""Ranks that part at a training accuracy, and the statistics of the mean of their networks."""

import numpy as np
import pytest
from runs.helpers import COMM, begin, common_digits, gathered, job_maker, run

from ensync.runs import lifecycle
from ensync.runs.networks import rows_together

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(COMM.size == 1, reason="one rank never parts"),
]
ROWS, UNITS = 407, 6  # of the digits: 293 for training
LAYERS = [
    {"kind": "dense", "units": UNITS},
    {"kind": "batch_normalization", "activation": "relu", "momentum": 0.8},
    {"kind": "dense"},
]
APART = {"every": "never", "start_accuracy": 0.5}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, ROWS)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        network={"layers": LAYERS},
        training={"precision": "float64", "epochs": 5, "batch": 50},
        optimizer={"name": "momentum", "learning_rate": 0.05},
    )


def vectors(trained):
    return {
        name.removeprefix("members/0000/"): values
        for name, values in gathered(trained)[0].items()
        if "/communication/" not in name
    }


def test_ranks_part_at_the_end_of_the_epoch_that_reaches_the_accuracy(make_job):
    """Which gives the bits of a run that is told the step beforehand. With statistics of its own
    the mean has the same parameters, and so have the replicas.
    """
    trained = run(COMM, make_job("accuracy", communication=APART))
    (parted,) = COMM.bcast(trained.trainers[0].reducer.vectors["parted"])
    reached = COMM.bcast([r["train_accuracy"] >= 0.5 for r in trained.state.history])
    assert parted == 6 * (reached.index(True) + 1) < 30
    told = {"every": "never", "start": int(parted)}
    found, expected = vectors(trained), vectors(run(COMM, make_job("told", communication=told)))
    estimated = vectors(
        run(COMM, make_job("own", communication={**told, "estimate_statistics": True}))
    )
    assert set(found) == set(expected) == set(estimated)
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name
        assert np.array_equal(estimated[name], values) == (name != "statistics"), name


def test_statistics_of_the_mean_are_those_of_plain_numpy(make_job):
    """Means of those of the batches that a pass over the training images has, of any strategy."""
    settings = {"every": 4, "estimate_statistics": True}
    trained = run(COMM, make_job(communication=settings))
    (trainer,) = trained.trainers.values()
    loader, network = trained.loaders.train, trainer.network
    pixels = trained.loaders.dataset.read("train", 0, len(loader)).astype(float)
    inputs = (pixels - np.float64(loader.mean)) * np.float64(loader.inverse_std)
    weights = network.parameters[: 64 * UNITS].reshape(64, UNITS)
    sums = inputs @ weights + network.parameters[64 * UNITS :][:UNITS]
    together = rows_together(trained.job, network, len(loader))
    batches = [sums[first : first + together] for first in range(0, len(sums), together)]
    shares = np.array([len(batch) for batch in batches]) / len(sums)
    expected = [
        shares @ [batch.mean(axis=0) for batch in batches],
        shares @ [batch.var(axis=0) for batch in batches],
    ]
    found = network.statistics.reshape(2, UNITS)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("accuracy", "steps"), [(1, 0), (0.01, 3)])
def test_ranks_that_never_part_say_so(make_job, monkeypatch, accuracy, steps):
    """None does at the end of a part of an epoch, which a longer run goes back into."""
    settings = {**APART, "start_accuracy": accuracy}
    trained = begin(COMM, make_job(communication=settings, training={"max_steps": steps}))
    warned = []
    monkeypatch.setattr(trained.console, "warn", warned.append)
    lifecycle.train(trained)
    (said,) = warned
    assert f"never parted: no epoch before the last had a training accuracy of {accuracy}" in said
