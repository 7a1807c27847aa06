"""Convolutional networks on any number of ranks: batch normalisation over ranks and local,
resume to the bit, averages, the job files.
"""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from runs.helpers import COMM, StopAt, begin, common_digits, gathered, job_maker, resume, run

from ensync.core.config.job import job_from_dict
from ensync.mpi.world import alone
from ensync.runs import results, state
from ensync.runs.stopped import Stopped

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(300),
]  # the first test may compile
JOBS = Path(__file__).parents[2] / "jobs"
LAYERS = [
    {"kind": "convolution", "filters": 4},
    {"kind": "batch_normalization", "activation": "relu", "momentum": 0.9},
    {
        "kind": "residual",
        "activation": "relu",
        "layers": [
            {"kind": "separable", "filters": 4},
            {"kind": "batch_normalization", "unbiased": True},
        ],
    },
    {"kind": "max_pooling"},
    {"kind": "dropout", "rate": 0.1},
    {"kind": "flatten"},
    {"kind": "dense"},
]


WHITENED = {"name": "airbench", "filters": [6], "depth": 5}  # filters made of the images


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The first 150 digits: about 108 for training."""
    return common_digits(tmp_path_factory, 150)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        network={"layers": LAYERS},
        training={"precision": "float64", "epochs": 1, "batch": 25},
        optimizer={"name": "momentum", "learning_rate": 0.02},
    )


@pytest.mark.parametrize(
    "training",
    [{"batch": 25}, {"batch": 3}, {"batch": "full", "epochs": 3, "slice": 50}],
    ids=lambda t: str(t["batch"]),
)
def test_ranks_equal_one_rank_with_synchronised_normalisation(make_job, training):
    """Batches that 2, 3 and 4 ranks do not divide; of 3 rows, which leave a fourth rank empty;
    added up in slices.
    """
    together = run(COMM, make_job("together", training=training))
    single, _ = gathered(run(alone(), make_job(f"alone{COMM.rank}", training=training)))
    for name, values in gathered(together)[0].items():
        np.testing.assert_allclose(values, single[name], rtol=1e-6, atol=1e-9)


def test_ranks_equal_one_rank_with_whitening_filters(make_job):
    sections = {
        "network": {"layers": None, **WHITENED},
        "training": {"batch": 25, "slice": 15},
    }
    together = run(COMM, make_job("together", **sections))
    single, _ = gathered(run(alone(), make_job(f"alone{COMM.rank}", **sections)))
    for name, values in gathered(together)[0].items():
        np.testing.assert_allclose(values, single[name], rtol=1e-6, atol=1e-9)


def test_whitening_filters_are_the_same_for_all_members_in_memory_or_not(make_job):
    found = []
    for placement, strategy in (("memory", "synchronous"), ("stream", "ensemble")):
        job = make_job(
            placement,
            data={"placement": placement},
            network={"layers": None, **WHITENED},
            training={"strategy": strategy},
            ensemble={"members": 3, "data": "shards"},
        )
        trainers = begin(COMM, job).trainers.values()
        found += [trainer.network.layers[0].weights.copy() for trainer in trainers]
    first = COMM.bcast(found[0])
    assert first.any() and all(np.array_equal(filters, first) for filters in found)


def test_local_normalisation_leaves_equal_replicas(make_job):
    """Each rank normalises its own rows; parameters and moving statistics are one for all after
    each step.
    """
    trained = run(COMM, make_job("local", network={"layers": LAYERS, "batch_norm": "local"}))
    statistics = trained.trainers[0].network.statistics
    assert np.array_equal(COMM.bcast(statistics.copy()), statistics)
    single, _ = gathered(run(alone(), make_job(f"alone{COMM.rank}")))
    alike = np.allclose(
        single["members/0000/parameters"],
        trained.trainers[0].network.parameters,
        rtol=1e-9,
        atol=1e-12,
    )
    assert alike == (COMM.size == 1)


FEATURES = {
    "training": {
        "precision": "float32",
        "epochs": 3,
        "weight_average": 0.8,
        "best_weights": True,
        "slice": 20,
        "batch": 15,
    },
    "optimizer": {"name": "adam", "preset": "keras", "clip_norm": 0.5},
    "plateau": {"patience": 1, "threshold": 0.05},
    "lookahead": {"every_steps": 3, "share": 0.8, "power": 1.0},
    "growth": {"every_epochs": 1, "largest_batch": 30, "learning_rate": 1.4},
    "schedule": {"name": "cosine", "warmup_epochs": 0.4},
    "augmentation": {
        "flip": "alternating",
        "rotation": 20,
        "crop": 1,
        "crop_edge": "reflect",
        "cutout": 2,
        "mixup": 0.8,
        "cutmix": 1.0,
    },
}


@pytest.mark.parametrize(
    "strategy,norm,network",
    [
        ("synchronous", "synchronised", {"layers": LAYERS}),
        ("synchronous", "local", {"layers": LAYERS}),
        ("ensemble", "synchronised", {"layers": LAYERS}),
        ("ensemble", "synchronised", {"layers": None, **WHITENED}),
    ],
)
def test_resumed_equals_uninterrupted_to_the_bit(make_job, strategy, norm, network):
    sections = FEATURES | {
        "training": FEATURES["training"] | {"strategy": strategy},
        "network": {**network, "batch_norm": norm},
        "ensemble": {"members": 2},
    }
    whole, positions = gathered(run(COMM, make_job("whole", **sections)))
    job = make_job("parts", **sections)
    with pytest.raises(Stopped):
        run(COMM, job, StopAt(6, rank=COMM.size - 1))
    loaded = state.load_newest(COMM, Path(job.output.directory))
    found, reached = gathered(resume(COMM, loaded, job))
    assert set(found) == set(whole) and any("/average/" in name for name in found)
    for name, values in whole.items():
        assert np.array_equal(found[name], values), name
    for one, other in zip(reached, positions, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }


def test_a_mean_of_weights_has_statistics_of_its_own(make_job):
    """The mean of the members' moving statistics is not that of the mean network; the training
    rows tell.
    """
    job = make_job(
        training={"strategy": "ensemble", "epochs": 2}, ensemble={"members": 2, "start": "shared"}
    )
    trained = run(COMM, job)
    evaluator = results.evaluator_of_session(trained)
    evaluator.fuse("weight_averaging")
    network, loader = evaluator.network, trained.loaders.train
    values = (loader.images[: len(loader)].astype(float) - loader.mean) * loader.inverse_std
    first = network.layers[0]
    framed = np.pad(values.reshape(-1, 8, 8, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (3, 3), axis=(1, 2))
    outputs = np.einsum("nyxchw,hwck->nyxk", windows, first.weights) + first.bias
    np.testing.assert_allclose(
        network.layers[1].moving_mean, outputs.mean((0, 1, 2)), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(network.layers[1].moving_variance, outputs.var((0, 1, 2)), rtol=1e-2)


@pytest.mark.parametrize(
    "file", ["fashion_mnist/parashar_cnn", "cifar10/minixception", "cifar10/minixception_plain"]
)
@pytest.mark.parametrize("strategy", ["synchronous", "ensemble"])
def test_job_files_run(make_job, file, strategy):
    """One epoch of each job on a cut of small images."""
    tables = tomllib.loads((JOBS / f"{file}_{strategy}.toml").read_text())
    small = {
        "data": tables["data"] | {"path": make_job().data.path},
        "training": tables["training"] | {"epochs": 1},
        "output": {"directory": make_job().output.directory},
    }
    trained = run(COMM, job_from_dict(tables | small))
    found = results.evaluator_of_session(trained).fuse("soft_voting")
    assert COMM.rank or (
        0 <= found.accuracy <= 1
        and np.isfinite(found.loss)
        and sum(map(sum, found.confusion)) == len(trained.loaders.test)
    )
