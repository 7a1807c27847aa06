"""Optimisers that are not elementwise, in whole runs on any number of ranks."""

from pathlib import Path

import numpy as np
import pytest
from runs.helpers import COMM, StopAt, common_digits, gathered, job_maker, resume, run

from ensync.mpi.world import alone
from ensync.runs import session, state
from ensync.training.reducers import SerialReducer

pytestmark = pytest.mark.mpi
BIASES = {"parameters": "*.bias", "name": "nesterov", "learning_rate": 0.05, "momentum": 0.8}
OPTIMIZERS = {
    "lars": {"name": "lars", "learning_rate": 5.0, "weight_decay": 1e-4},
    "muon": {"name": "muon", "learning_rate": 0.05, "momentum": 0.6, "groups": [BIASES]},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, 407)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(dataset, tmp_path, network={"hidden": [12]})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ranks_equal_one_rank(make_job, name):
    """Every rank updates its whole replica, since a layer's norm needs all of its gradient."""
    training = {"precision": "float64", "epochs": 2, "batch": 50}
    sections = {"training": training, "optimizer": OPTIMIZERS[name]}
    trained = run(COMM, make_job("ranks", **sections))
    (trainer,) = trained.trainers.values()
    expected = "SerialReducer" if COMM.size == 1 else "AllreduceReducer"
    assert type(trainer.reducer).__name__ == expected
    ranks, single = (
        gathered(trained)[0],
        run(alone(), make_job(f"one{COMM.rank}", **sections)),
    )
    assert isinstance(single.trainers[0].reducer, SerialReducer)
    for name, values in gathered(single)[0].items():
        np.testing.assert_allclose(ranks[name], values, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name,deterministic", [("lars", False), ("muon", True)])
def test_resumed_equals_uninterrupted_to_the_bit(make_job, name, deterministic):
    """Of a deterministic run, also equal to the one on one rank."""
    training = {"epochs": 2, "batch": 32, "deterministic": deterministic}
    sections = {"training": training, "optimizer": OPTIMIZERS[name]}
    whole, _ = gathered(run(COMM, make_job("whole", **sections)))
    assert whole["members/0000/optimizer/velocity"].any()
    job = make_job("parts", **sections)
    with pytest.raises(session.Stopped):
        run(COMM, job, StopAt(6, rank=COMM.size - 1))
    loaded = state.load_newest(COMM, Path(job.output.directory))
    found, _ = gathered(resume(COMM, loaded, job))
    assert set(found) == set(whole)
    if deterministic:
        whole, _ = gathered(run(alone(), make_job(f"one{COMM.rank}", **sections)))
    for name, values in whole.items():
        assert np.array_equal(found[name], values), name
