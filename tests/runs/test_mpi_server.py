"""A server of parameters: beside plain numpy that follows the same delays, beside synchronous
training, and where the order of arrival decides. Resumes, stops and failures are in
test_mpi_communication.
"""

import numpy as np
import pytest
from runs.helpers import COMM, begin, common_digits, gathered, job_maker, run

from ensync.core.delays import delays
from ensync.core.sharding import block, epoch_order
from ensync.mpi.wire import passed
from ensync.runs import lifecycle
from ensync.runs.staleness import staleness_of

pytestmark = [pytest.mark.mpi, pytest.mark.usefixtures("one_thread")]
ROWS = 407  # of the digits: 293 for training, in batches of 50 that 3 and 4 ranks do not divide
RATE, MOMENTUM = 0.05, 0.9
STEPS = 12  # two epochs of six


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


def plain(trained, w, most, weight):
    """Return what steps of momentum make of softmax regression w float64 (650,), by gradients of
    versions that are as old as the schedule says.
    """
    loader, seed = trained.loaders.train, trained.job.training.seed
    pixels = trained.loaders.dataset.read("train", 0, len(loader)).astype(float)
    inputs = (pixels - np.float64(loader.mean)) * np.float64(loader.inverse_std)
    targets = np.eye(10)[loader.labels]

    def gradient(w, rows):
        outputs = inputs[rows] @ w[:640].reshape(64, 10) + w[640:]
        odds = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        slope = odds / odds.sum(axis=1, keepdims=True) - targets[rows]
        return np.append((inputs[rows].T @ slope).ravel(), slope.sum(axis=0))

    versions, velocity = [w], np.zeros_like(w)
    for epoch in range(2):
        order = epoch_order(len(inputs), seed, epoch)
        for rows in (order[i : i + 50] for i in range(0, len(order), 50)):
            step = len(versions) - 1
            late = delays(seed, step, most, COMM.size)
            parts = [rows[slice(*block(len(rows), COMM.size, k))] for k in range(COMM.size)]
            weights = [1 / (1 + d) if weight == "inverse" else 1.0 for d in late]
            pushed = [
                c * gradient(versions[step - d], part) for c, d, part in zip(weights, late, parts)
            ]
            mean = sum(pushed) / sum(c * len(part) for c, part in zip(weights, parts))
            velocity = MOMENTUM * velocity + mean
            versions.append(versions[-1] - RATE * velocity)
    return versions[-1]


@pytest.mark.parametrize(("most", "weight"), [(3, "inverse"), (2, "equal")])
def test_steps_are_those_of_plain_numpy(make_job, most, weight):
    settings = {"server": "seeded", "max_staleness": most, "staleness_weight": weight}
    trained = begin(COMM, make_job(communication=settings))
    start = parameters(trained)
    trained = lifecycle.train(trained)
    expected = plain(trained, start, most, weight)
    np.testing.assert_allclose(parameters(trained), expected, rtol=1e-7, atol=1e-10)
    counted = np.bincount(
        [d for step in range(STEPS) for d in delays(1, step, most, COMM.size)], minlength=most + 1
    )
    assert staleness_of(trained) == counted.tolist()
    reducer, network = trained.trainers[0].reducer, trained.trainers[0].network
    sent = network.message if COMM.rank else network.parameters
    vectors = STEPS * sent.nbytes * (1 if COMM.rank else COMM.size - 1)
    assert reducer.bytes == vectors + STEPS * passed(4 * 8, COMM.size)


@pytest.mark.parametrize("server", ["seeded", "arrival"])
def test_without_staleness_it_is_synchronous_training(make_job, server):
    """With batch normalisation over a rank's rows, and an optimiser that counts its steps."""
    sections = {
        "network": {
            "hidden": None,
            "batch_norm": "local",
            "layers": [
                {"kind": "dense", "units": 6},
                {"kind": "batch_normalization", "activation": "relu", "momentum": 0.8},
                {"kind": "dense"},
            ],
        },
        "optimizer": {"name": "adam", "learning_rate": 0.01},
        "schedule": {"name": "cosine"},
    }
    together = gathered(run(COMM, make_job("together", **sections)))
    settings = {"server": server, "max_staleness": 0}
    served = gathered(run(COMM, make_job("served", **sections, communication=settings)))
    for name, values in together[0].items():
        np.testing.assert_allclose(served[0][name], values, rtol=1e-7, atol=1e-10)
    assert served[1][0]["best_loss"] == pytest.approx(together[1][0]["best_loss"])


def test_networks_of_arrival_are_no_older_than_allowed(make_job):
    """Every push counts once, and what is trained learns."""
    settings = {"server": "arrival", "max_staleness": 2}
    trained, shown = begin(COMM, make_job(communication=settings)), []
    trained.trainers[0].progress = lambda t: shown.append((t.loss, t.position.loss_sum))
    trained = lifecycle.train(trained)
    counts = staleness_of(trained)
    assert len(counts) == 3 and sum(counts) == STEPS * COMM.size
    losses = [record["train_loss"] for record in trained.state.history]
    assert losses[1] < losses[0]
    means = [loss for loss, _ in shown[:6]]  # of the steps whose losses have come
    sums = [sum_ for _, sum_ in shown[:6]]
    assert np.isnan(means[:2]).all() and sums[:2] == [0, 0]
    assert means[2:] == [s / n for s, n in zip(sums[2:], (50, 100, 150, 293))]


def test_no_rank_goes_back_to_an_older_network():
    late = np.array([delays(5, step, 4, 6) for step in range(300)])
    assert late[0].max() == 0 and set(late.ravel()) == {0, 1, 2, 3, 4}
    assert (late[1:] <= late[:-1] + 1).all()
    assert (delays(5, 299, 4, 6) == late[-1]).all() and (delays(6, 299, 4, 6) != late[-1]).any()
