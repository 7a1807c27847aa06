"""Convolutional networks on any number of ranks: batch normalisation over ranks and local, resume to the bit, averages, the job files."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

from ensync.job import job_from_dict
from ensync.kernels.threads import get_threads, set_threads
from ensync.mpi.world import alone, on_root
from ensync.report.console import make_console
from ensync.signals import StopWish
from ensync.storage.sources import read_digits
from ensync.storage.writing import write_dataset
from ensync.strategies import results, session, state
from ensync.strategies.data import open_feeds
from ensync.strategies.launch import take_directory

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(300)]   # the first test may compile
COMM = MPI.COMM_WORLD
SILENT = make_console(1)
JOBS = Path(__file__).parents[2] / "jobs"
LAYERS = [
    {"kind": "convolution", "filters": 4}, {"kind": "batch_normalization", "activation": "relu", "momentum": 0.9},
    {"kind": "residual", "activation": "relu", "layers": [{"kind": "separable", "filters": 4}, {"kind": "batch_normalization", "unbiased": True}]},
    {"kind": "max_pooling"}, {"kind": "dropout", "rate": 0.1}, {"kind": "flatten"}, {"kind": "dense"},
]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """More ranks than cores must not bring their threads as well."""
    before = get_threads()
    set_threads(1)
    yield
    set_threads(before)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The first 150 digits: about 108 for training."""
    path = COMM.bcast(str(tmp_path_factory.mktemp("data") / "digits.h5") if COMM.rank == 0 else None)

    def write():
        source = read_digits()
        source.images["train"], source.labels["train"] = source.images["train"][:150], source.labels["train"][:150]
        write_dataset(path, source, validation=0.1, seed=1)

    on_root(COMM, write)
    return path


@pytest.fixture
def make_job(dataset, tmp_path):
    directory = COMM.bcast(str(tmp_path))

    def make(name="run", **sections):
        tables = {"data": {"path": dataset}, "output": {"directory": f"{directory}/{name}"}, "network": {"layers": LAYERS},
                  "training": {"precision": "float64", "epochs": 1, "batch": 25}, "optimizer": {"name": "momentum", "learning_rate": 0.02}}
        for section, values in sections.items():
            tables[section] = tables.get(section, {}) | values
        return job_from_dict(tables)

    return make


def begin(comm, job, wish=None):
    take_directory(comm, job)
    return session.start(comm, job, open_feeds(comm, job), SILENT, wish or StopWish())


def run(comm, job, wish=None):
    return session.train(begin(comm, job, wish))


def gathered(trained):
    arrays, positions = state.gather_members(trained.comm, trained.plan, trained.trainees)
    return trained.comm.bcast({k: v.copy() for k, v in arrays.items()}), trained.comm.bcast(positions)


@pytest.mark.parametrize("training", [{"batch": 25}, {"batch": 3}, {"batch": "full", "epochs": 3, "slice": 50}], ids=lambda t: str(t["batch"]))
def test_ranks_equal_one_rank_with_synchronised_normalisation(make_job, training):
    """Batches that 2, 3 and 4 ranks do not divide; of 3 rows, which leave a fourth rank empty; added up in slices."""
    together = run(COMM, make_job("together", training=training))
    single, _ = gathered(run(alone(), make_job(f"alone{COMM.rank}", training=training)))
    for name, values in gathered(together)[0].items():
        np.testing.assert_allclose(values, single[name], rtol=1e-6, atol=1e-9)


def test_local_normalisation_leaves_equal_replicas(make_job):
    """Each rank normalises its own rows; parameters and moving statistics are one for all after each step."""
    trained = run(COMM, make_job("local", network={"layers": LAYERS, "batch_norm": "local"}))
    statistics = trained.trainees[0].network.statistics
    assert np.array_equal(COMM.bcast(statistics.copy()), statistics)
    single, _ = gathered(run(alone(), make_job(f"alone{COMM.rank}")))
    alike = np.allclose(single["members/0000/parameters"], trained.trainees[0].network.parameters, rtol=1e-9, atol=1e-12)
    assert alike == (COMM.size == 1)


class StopAt(StopWish):
    """Ask to stop after so many looks, on the last rank only."""

    def __init__(self, looks):
        self.left = looks

    def __call__(self):
        self.left -= 1
        if self.left == 0 and COMM.rank == COMM.size - 1:
            self.number = 10
        return super().__call__()


FEATURES = {
    "training": {"precision": "float32", "epochs": 3, "weight_average": 0.8, "best_weights": True, "slice": 20, "batch": 15},
    "optimizer": {"name": "adam", "preset": "keras", "clip_norm": 0.5}, "plateau": {"patience": 1, "threshold": 0.05},
    "growth": {"every_epochs": 1, "largest_batch": 30, "learning_rate": 1.4}, "schedule": {"name": "cosine", "warmup_epochs": 0.4}, "augmentation": {"flip": True, "rotation": 20, "crop": 1, "cutout": 2},
}


@pytest.mark.parametrize("strategy,norm", [("synchronous", "synchronised"), ("synchronous", "local"), ("ensemble", "synchronised")])
def test_resumed_equals_uninterrupted_to_the_bit(make_job, strategy, norm):
    sections = FEATURES | {"training": FEATURES["training"] | {"strategy": strategy}, "network": {"layers": LAYERS, "batch_norm": norm}, "ensemble": {"members": 2}}
    whole, positions = gathered(run(COMM, make_job("whole", **sections)))
    job = make_job("parts", **sections)
    with pytest.raises(session.Stopped):
        run(COMM, job, StopAt(6))
    loaded = state.load_newest(COMM, Path(job.output.directory))
    resumed = session.train(session.resume(COMM, loaded, job, open_feeds(COMM, job), SILENT, StopWish()))
    found, reached = gathered(resumed)
    assert set(found) == set(whole) and any(name.endswith("average") for name in found)
    for name, values in whole.items():
        assert np.array_equal(found[name], values), name
    for one, other in zip(reached, positions, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}


def test_a_mean_of_weights_has_statistics_of_its_own(make_job):
    """The mean of the members' moving statistics is not that of the mean network; the training rows tell."""
    job = make_job(training={"strategy": "ensemble", "epochs": 2}, ensemble={"members": 2, "start": "shared"})
    trained = run(COMM, job)
    jury = results.jury_of_session(trained)
    jury.fuse("weight_averaging")
    network, feed = jury.network, trained.feeds.train
    values = (feed.images[: len(feed)].astype(float) - feed.mean) * feed.inverse_std
    first = network.layers[0]
    framed = np.pad(values.reshape(-1, 8, 8, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (3, 3), axis=(1, 2))
    outputs = np.einsum("nyxchw,hwck->nyxk", windows, first.weights) + first.bias
    np.testing.assert_allclose(network.layers[1].moving_mean, outputs.mean((0, 1, 2)), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(network.layers[1].moving_variance, outputs.var((0, 1, 2)), rtol=1e-2)


@pytest.mark.parametrize("file", ["fashion_mnist/parashar_cnn", "cifar10/minixception", "cifar10/minixception_plain"])
@pytest.mark.parametrize("strategy", ["synchronous", "ensemble"])
def test_job_files_run(make_job, file, strategy):
    """One epoch of each job on a cut of small images."""
    tables = tomllib.loads((JOBS / f"{file}_{strategy}.toml").read_text())
    small = {"data": tables["data"] | {"path": make_job().data.path}, "training": tables["training"] | {"epochs": 1}, "output": {"directory": make_job().output.directory}}
    trained = run(COMM, job_from_dict(tables | small))
    found = results.jury_of_session(trained).fuse("soft_voting")
    assert COMM.rank or (0 <= found["accuracy"] <= 1 and np.isfinite(found["loss"]) and sum(map(sum, found["confusion"])) == len(trained.feeds.test))
