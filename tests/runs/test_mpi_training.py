"""Runs on any number of ranks against the one-rank run, resumed ones against uninterrupted ones,
fusions against plain numpy.
"""

import copy
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI
from runs.helpers import (
    COMM,
    StopAt,
    begin,
    common_digits,
    gathered,
    job_maker,
    resume,
    run,
    write_digits,
)

from ensync.core.errors import EnsyncError
from ensync.core.fusion import FUSIONS
from ensync.mpi.world import alone
from ensync.runs import lifecycle, results, state
from ensync.runs.stopped import Stopped
from ensync.runs.validation import check_replicas
from ensync.training.runners import OneSampleRunner

pytestmark = pytest.mark.mpi
ROWS = 407  # of the digits: 293 for training, which neither 2, 3 nor 4 ranks divide


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, ROWS)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        network={"hidden": [12], "dropout": 0.2},
        training={"precision": "float64", "epochs": 2, "batch": 50},
    )


BATCHES = [50, 3, "full", 1]


@pytest.mark.parametrize("batch", BATCHES)
def test_synchronous_ranks_equal_one_rank(make_job, batch):
    """Neither rows nor batches divide by 3 or 4; a batch of 3 leaves a fourth rank empty, of 1
    all but one.
    """
    optimizer = {"name": "momentum", "learning_rate": 0.01}
    epochs = 1 if batch in (1, 3) else 2
    sections = {"training": {"batch": batch, "epochs": epochs}, "optimizer": optimizer}
    together, _ = gathered(run(COMM, make_job("together", **sections)))
    single, _ = gathered(run(alone(), make_job(f"alone{COMM.rank}", **sections)))
    for name, values in single.items():
        np.testing.assert_allclose(together[name], values, rtol=1e-7, atol=1e-10)


def test_one_sample_per_step_kernel_equals_the_general_loop(make_job):
    """One rank takes the dedicated kernel, several ranks the loop with an allreduce."""
    sections = {
        "network": {"name": "oregon-mlp", "hidden": [9, 8], "dropout": 0},
        "optimizer": {"name": "sgd", "learning_rate": 0.05},
        "training": {"batch": 1, "epochs": 1, "loss": "mean_squared_error"},
    }
    job = make_job(f"alone{COMM.rank}", **sections)
    single = run(alone(), job)
    assert isinstance(single.trainers[0].runner, OneSampleRunner)
    together = run(COMM, make_job("together", **sections))
    np.testing.assert_allclose(
        gathered(together)[0]["members/0000/parameters"],
        gathered(single)[0]["members/0000/parameters"],
        rtol=1e-6,
        atol=1e-9,
    )
    assert (
        together.state.history[0]["train_accuracy"] == single.state.history[0]["train_accuracy"]
        if COMM.rank == 0
        else True
    )


@pytest.mark.parametrize("data", ["shards", "bootstrap", "full", "label_skew"])
def test_members_do_not_depend_on_the_ranks_that_train_them(make_job, data):
    """Three members on any number of ranks: groups where ranks are more, turns where they are
    fewer.
    """
    sections = {
        "training": {"strategy": "ensemble", "epochs": 1},
        "ensemble": {"members": 3, "data": data},
    }
    spread, positions = gathered(run(COMM, make_job("spread", **sections)))
    single, _ = gathered(run(alone(), make_job(f"alone{COMM.rank}", **sections)))
    assert len(positions) == 3
    for name, values in single.items():
        np.testing.assert_allclose(spread[name], values, rtol=1e-7, atol=1e-10)
    assert not np.allclose(spread["members/0000/parameters"], spread["members/0001/parameters"])


def test_streamed_ranks_equal_one_rank(make_job, monkeypatch):
    from ensync.core.sharding import Window
    from ensync.runs import data as data_module
    from ensync.training import batches as loader

    for module in (loader, data_module):
        monkeypatch.setattr(module, "BLOCK", Window(16, 3))
    sections = {
        "data": {"placement": "stream"},
        "training": {"strategy": "ensemble", "epochs": 1},
        "ensemble": {"members": 2},
    }
    for strategy in ("synchronous", "ensemble"):
        sections["training"]["strategy"] = strategy
        spread, _ = gathered(run(COMM, make_job("spread", **copy.deepcopy(sections))))
        single, _ = gathered(run(alone(), make_job(f"alone{COMM.rank}", **copy.deepcopy(sections))))
        for name, values in single.items():
            np.testing.assert_allclose(spread[name], values, rtol=1e-7, atol=1e-10)


RESUMED = [
    (
        "synchronous",
        {
            "optimizer": {"name": "sgd", "learning_rate": 0.05},
            "network": {"dropout": 0},
            "training": {"batch": 1, "epochs": 1},
        },
    ),
    (
        "ensemble",
        {"ensemble": {"members": 3}, "schedule": {"name": "cosine", "warmup_epochs": 0.5}},
    ),
    ("ensemble", {"ensemble": {"members": 2, "start": "synchronous"}}),
]


@pytest.mark.parametrize("strategy,sections", RESUMED)
@pytest.mark.parametrize("looks", [1, 6])
def test_resumed_equals_uninterrupted_to_the_bit(make_job, monkeypatch, strategy, sections, looks):
    monkeypatch.setattr(OneSampleRunner, "steps", 40)
    sections = {
        **sections,
        "training": {
            "strategy": strategy,
            "precision": "float32",
            "batch": 32,
            "best_weights": True,
            **sections.get("training", {}),
        },
    }
    whole, positions = gathered(run(COMM, make_job("whole", **sections)))
    job = make_job("parts", **sections)
    with pytest.raises(Stopped) as stopped:
        run(COMM, job, StopAt(looks, rank=COMM.size - 1))
    assert stopped.value.exit_code == 75 and "ensync resume" in str(stopped.value)
    loaded = state.load_newest(COMM, Path(job.output.directory))
    assert sum(p["updates"] for p in loaded.attributes["positions"]) > 0
    found, reached = gathered(resume(COMM, loaded, job))
    assert set(found) == set(whole)
    for name, values in whole.items():
        assert np.array_equal(found[name], values), name
    for one, other in zip(reached, positions, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }


def test_resumed_on_other_ranks_equals_uninterrupted(make_job):
    """All ranks stop in the middle of an epoch; one rank goes on alone."""
    sections = {"training": {"strategy": "ensemble", "epochs": 2}, "ensemble": {"members": 3}}
    whole, _ = gathered(run(COMM, make_job("whole", **sections)))
    job = make_job("parts", **sections)
    with pytest.raises(Stopped):
        run(COMM, job, StopAt(3))
    if COMM.rank == 0:
        loaded = state.load_newest(alone(), Path(job.output.directory))
        found, _ = gathered(resume(alone(), loaded, job))
        for name, values in whole.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-7, atol=1e-10)
    COMM.Barrier()


def test_steps_between_checkpoints(make_job):
    """Members of unequal shards meet at every so many steps; the files on disk say so."""
    job = make_job(
        training={"strategy": "ensemble", "epochs": 1, "batch": 20},
        ensemble={"members": 3, "data": "label_skew"},
        checkpoint={"every_steps": 7, "keep": 50},
    )
    trained = run(COMM, job)
    longest = max(t.steps_per_epoch for t in trained.trainers.values())
    longest = COMM.allreduce(longest, op=MPI.MAX)
    names = sorted(p.name for p in (Path(job.output.directory) / "checkpoints").iterdir())
    assert len(names) >= -(-longest // 7)


LAYERS = [(64, 12, False), (12, 10, True)]  # inputs, units, whether it is the last


def numpy_outputs(parameters, layers, inputs):
    start = 0
    for width, units, last in layers:
        weights = parameters[start : start + width * units].reshape(width, units)
        bias = parameters[start + width * units : start + width * units + units]
        start += width * units + units
        inputs = inputs @ weights + bias
        if not last:
            inputs = np.maximum(inputs, 0)
    shifted = np.exp(inputs - inputs.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_fusions_equal_plain_numpy_and_those_from_files(make_job):
    job = make_job(
        training={"strategy": "ensemble"},
        ensemble={"members": 3, "start": "shared"},
        network={"dropout": 0},
    )
    trained = run(COMM, job)
    evaluator = results.evaluator_of_session(trained)
    live = {m: evaluator.fuse(m) for m in FUSIONS}
    loaded = state.load_newest(COMM, Path(job.output.directory))
    evaluator_of_files = results.evaluator_of_files(COMM, loaded, job, trained.loaders)
    from_files = {m: evaluator_of_files.fuse(m) for m in FUSIONS}
    vectors, _ = gathered(trained)
    if COMM.rank:
        assert all(v is None for v in live.values())
        return
    loaders, layers = trained.loaders, LAYERS
    pixels = loaders.dataset.read("test", 0, len(loaders.test)).astype(float)
    inputs = (pixels - np.float64(loaders.test.mean)) * np.float64(loaders.test.inverse_std)
    members = [vectors[f"members/{m:04d}/parameters"] for m in range(3)]
    probabilities = [numpy_outputs(p, layers, inputs) for p in members]
    labels = loaders.test.labels
    hard = np.stack(
        [
            np.bincount(votes, minlength=10)
            for votes in np.stack([p.argmax(1) for p in probabilities]).T
        ]
    )
    expected = {
        "soft_voting": np.mean(probabilities, axis=0),
        "hard_voting": hard,
        "weighted_voting": np.tensordot(_weights(loaders, members, layers), probabilities, 1),
        "median_voting": np.median(probabilities, axis=0),
        "weight_averaging": numpy_outputs(np.mean(members, axis=0), layers, inputs),
    }
    assert expected.keys() == FUSIONS.keys()
    for method, votes in expected.items():
        accuracy = (votes.argmax(1) == labels).mean()
        assert live[method].accuracy == pytest.approx(accuracy, abs=1e-12), method
        assert np.sum(live[method].confusion) == len(labels)
        assert from_files[method].confusion == live[method].confusion
    loss = -np.log(expected["soft_voting"][np.arange(len(labels)), labels]).mean()
    assert live["soft_voting"].loss == pytest.approx(loss, rel=1e-6)


def test_the_median_of_a_resumed_run_and_of_its_files_equals_numpy(make_job):
    """Of four members, an even number, and of the three that are left without one of them."""
    job = make_job(training={"strategy": "ensemble"}, ensemble={"members": 4})
    with pytest.raises(Stopped):
        run(COMM, job, StopAt(2))
    path = Path(job.output.directory)
    trained = resume(COMM, state.load_newest(COMM, path), job)
    loaded, median = state.load_newest(COMM, path), FUSIONS["median_voting"]
    live = results.evaluator_of_session(trained).votes(median).values
    files, without = (
        results.evaluator_of_files(COMM, loaded, job, trained.loaders, only).votes(median).values
        for only in (None, (0, 1, 3))
    )
    vectors, _ = gathered(trained)
    if COMM.rank:
        assert live is files is without is None
        return
    loaders = trained.loaders
    pixels = loaders.dataset.read("test", 0, len(loaders.test)).astype(float)
    inputs = (pixels - np.float64(loaders.test.mean)) * np.float64(loaders.test.inverse_std)
    probabilities = np.stack(
        [numpy_outputs(vectors[f"members/{m:04d}/parameters"], LAYERS, inputs) for m in range(4)]
    )
    for votes in (live, files):
        np.testing.assert_allclose(votes, np.median(probabilities, axis=0), rtol=1e-9, atol=1e-12)
    expected = np.median(probabilities[[0, 1, 3]], axis=0)
    np.testing.assert_allclose(without, expected, rtol=1e-9, atol=1e-12)


def _weights(loaders, members, layers):
    from ensync.core.fusion import validation_weights

    pixels = loaders.dataset.read("validation", 0, len(loaders.validation)).astype(float)
    inputs = (pixels - np.float64(loaders.test.mean)) * np.float64(loaders.test.inverse_std)
    right = np.array(
        [
            (numpy_outputs(p, layers, inputs).argmax(1) == loaders.validation.labels).sum()
            for p in members
        ]
    )
    return validation_weights(right, len(loaders.validation), 10)


def test_members_apart_are_not_averaged(make_job):
    trained = run(
        COMM, make_job(training={"strategy": "ensemble", "epochs": 1}, ensemble={"members": 2})
    )
    found = results.evaluator_of_session(trained).fuse("weight_averaging")
    if COMM.rank == 0:
        assert "different weights" in found.refused


def test_a_member_that_diverged_is_left_out_and_named(make_job):
    trained = begin(
        COMM, make_job(training={"strategy": "ensemble", "epochs": 1}, ensemble={"members": 3})
    )
    if 1 in trained.trainers:
        trained.trainers[1].network.parameters[:] = np.nan
    trained = lifecycle.train(trained)
    evaluator = results.evaluator_of_session(trained)
    soft = evaluator.fuse("soft_voting")
    assert (
        list(evaluator.test.excluded) == [1]
        and "diverged in epoch 1, step 1" in evaluator.test.excluded[1]
    )
    if COMM.rank == 0:
        assert soft.accuracy > 0.1 and np.isfinite(soft.loss)


def test_early_stopping_and_best_weights(make_job):
    job = make_job(
        training={"epochs": 40, "early_stopping": 2, "best_weights": True},
        optimizer={"learning_rate": 0.05},
    )
    trained = run(COMM, job)
    (trainer,) = trained.trainers.values()
    p = trainer.position
    assert p.finished.startswith("early stopping") and p.epoch == p.best_epoch + 2 < 40
    losses = COMM.bcast([r["validation_loss"] for r in trained.state.history])
    assert p.best_loss == min(losses) and losses.index(min(losses)) + 1 == p.best_epoch
    evaluator = results.evaluator_of_session(trained)
    assert evaluator.validation.loss_sum[0] / len(trained.loaders.validation) == pytest.approx(
        p.best_loss, rel=1e-9
    )


def test_replicas_that_differ_are_found(make_job):
    trained = run(COMM, make_job(training={"epochs": 1}))
    trained.trainers[0].network.parameters[0] += COMM.rank
    if COMM.size == 1:
        check_replicas(trained.trainers[0], COMM, "at the end")
    else:
        with pytest.raises(EnsyncError, match="replicas"):
            check_replicas(trained.trainers[0], COMM, "at the end")


def test_another_dataset_is_refused(make_job, dataset):
    job = make_job(training={"epochs": 1})
    run(COMM, job)
    other = COMM.bcast(str(Path(dataset).with_name("other.h5")))
    write_digits(other, ROWS, seed=2)
    moved = job.model_copy(update={"data": job.data.model_copy(update={"path": other})})
    loaded = state.load_newest(COMM, Path(job.output.directory))
    with pytest.raises(EnsyncError, match="not the one"):
        resume(COMM, loaded, moved)


@pytest.mark.parametrize("batch", [1, 32])
def test_checkpoints_leave_the_bits_of_a_run_as_they_are(make_job, monkeypatch, batch):
    """Where a run is saved cuts no block of the kernel that takes a step for each sample."""
    monkeypatch.setattr(OneSampleRunner, "steps", 64)
    sections = {
        "network": {"hidden": [12, 9], "dropout": 0},
        "optimizer": {"name": "sgd", "learning_rate": 0.05},
        "training": {"batch": batch, "epochs": 1, "precision": "float32"},
    }
    plain = run(COMM, make_job("plain", **sections))
    saved = run(COMM, make_job("saved", **sections, checkpoint={"every_steps": 7, "keep": 99}))
    assert len(list((Path(saved.directory) / "checkpoints").iterdir())) > 1
    (one, first), (other, second) = gathered(plain), gathered(saved)
    assert all(np.array_equal(one[name], other[name]) for name in one) and [
        p["updates"] for p in first
    ] == [p["updates"] for p in second]
    assert [r["train_loss"] for r in plain.state.history] == [
        r["train_loss"] for r in saved.state.history
    ]
