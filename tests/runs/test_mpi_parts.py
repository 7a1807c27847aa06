"""Runs whose networks see parts of images, in changed colours, and are tested with ten views: the
same on any number of ranks, streamed, resumed and from files.
"""

from pathlib import Path

import numpy as np
import pytest
from runs.helpers import COMM, StopAt, gathered, job_maker, resume, run
from samples import pictures

import ensync
from ensync.core.errors import EnsyncError
from ensync.mpi.world import alone, on_root
from ensync.runs import results, state
from ensync.runs.describe import layer_table
from ensync.runs.stopped import Stopped
from ensync.runs.warm_up import try_step

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(300),
]  # the first test may compile
PAPER = {"random_crop": 6, "flip": True, "colour_noise": 0.3}
S, PARAMETERS = {"placement": "stream"}, "members/0000/parameters"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = COMM.bcast(str(tmp_path_factory.mktemp("data") / "colours.h5"))
    images, labels = pictures(120, 9, 8, 3), np.arange(120) % 3
    on_root(COMM, lambda: ensync.Dataset.write(path, images, labels, test=0.25).close())
    return path


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        augmentation=PAPER,
        evaluation={"augmentation": "ten_views"},
        network={"hidden": [9]},
        training={"precision": "float64", "epochs": 2, "batch": 20},
    )


def answers(comm, evaluator):
    found = evaluator.fuse("soft_voting")
    return comm.bcast(found and (round(found.loss, 9), found.confusion, found.top_k))


def test_all_ranks_and_one_train_and_test_alike(make_job):
    job = make_job()
    trained = run(COMM, job)
    found, _ = gathered(trained)
    tested = answers(COMM, results.evaluator_of_session(trained))
    other, streamed = run(alone(), make_job(f"alone_{COMM.rank}")), run(COMM, make_job("s", data=S))
    values, _ = gathered(other)
    np.testing.assert_allclose(values[PARAMETERS], found[PARAMETERS], rtol=1e-9, atol=1e-12)
    colours = [each.loaders.train.colours for each in (trained, other, streamed)]
    assert np.array_equal(colours[0], colours[1]) and np.array_equal(colours[0], colours[2])
    for comm in (COMM, alone()):
        loaded = state.load_newest(comm, Path(job.output.directory))
        evaluator = results.evaluator_of_files(comm, loaded, job, trained.loaders)
        assert answers(comm, evaluator) == tested
        assert evaluator.network.shape == (6, 6, 3)


def test_resumed_equals_uninterrupted_to_the_bit(make_job):
    whole, _ = gathered(run(COMM, make_job("whole")))
    job = make_job("parts")
    with pytest.raises(Stopped):
        run(COMM, job, StopAt(3, rank=COMM.size - 1))
    loaded = state.load_newest(COMM, Path(job.output.directory))
    found, _ = gathered(resume(COMM, loaded, job))
    for name, values in whole.items():
        assert np.array_equal(found[name], values), name


def test_what_comes_before_a_run_knows_the_part(make_job):
    job = make_job()
    lines = layer_table(job, (9, 8, 3), 3)
    assert lines[1].split()[:11] == "input, of 9 x 8 x 3 6 x 6 x".split()
    assert any(" 981" in line for line in lines), "6 x 6 x 3 x 9 + 9 parameters"
    trained = run(COMM, job)
    try_step(job, trained.loaders, 1)
    with pytest.raises(EnsyncError, match="random_crop = 9 with images of 9 x 8 x 3"):
        run(COMM, make_job("large", augmentation={"random_crop": 9}))
