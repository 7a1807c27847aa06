"""Groups of parameters in whole runs: on any number of ranks, interrupted, deterministic."""

from pathlib import Path

import numpy as np
import pytest
from runs.helpers import COMM, StopAt, common_digits, gathered, job_maker, resume, run

from ensync.core.errors import EnsyncError
from ensync.mpi.world import alone
from ensync.runs import session, state

pytestmark = pytest.mark.mpi
OPTIMIZER = {
    "name": "nesterov",
    "learning_rate": 0.05,
    "weight_decay": 1e-3,
    "decoupled": True,
    "groups": [
        {"parameters": "*.bias", "factor": 4.0, "weight_decay": 0.0},
        {"parameters": "0.weights", "name": "adam", "learning_rate": 0.002, "epochs": 1.3},
    ],
}
SECTIONS = {
    "network": {"hidden": [12]},
    "optimizer": OPTIMIZER,
    "plateau": {"patience": 1, "threshold": 0.05},
    "growth": {"every_epochs": 1, "largest_batch": 128},
    "schedule": {"name": "cosine", "warmup_epochs": 0.4},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, 407)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(dataset, tmp_path, **SECTIONS)


def test_ranks_equal_one_rank_and_a_group_ends(make_job):
    training = {"precision": "float64", "epochs": 2, "batch": 50}
    trained = run(COMM, make_job("ranks", training=training))
    (trainer,) = trained.trainers.values()
    expected = "SerialReducer" if COMM.size == 1 else "SharedMemoryReducer"
    assert type(trainer.reducer).__name__ == expected
    ranks = gathered(trained)[0]
    single = gathered(run(alone(), make_job(f"one{COMM.rank}", training=training)))[0]
    assert {name for name in single if "optimizer" in name} == {
        f"members/0000/optimizer/{slot}" for slot in ("velocity", "first", "second")
    }
    for name, values in single.items():
        np.testing.assert_allclose(ranks[name], values, rtol=1e-7, atol=1e-10)


def test_a_group_stands_still_once_its_epochs_are_over(make_job):
    job = make_job(f"still{COMM.rank}", training={"epochs": 2, "batch": 32})
    trainer = run(alone(), job).trainers[0]
    weights = trainer.network.parameters[: 64 * 12]
    before, (rest, bias, ended) = weights.copy(), trainer._rate.factors(trainer.position)
    trainer.position.epoch, trainer.position.step = 1, 3
    assert ended is None and rest == bias
    trainer.train(1)
    assert np.array_equal(weights, before)


@pytest.mark.parametrize("deterministic", [False, True])
def test_resumed_equals_uninterrupted_to_the_bit(make_job, deterministic):
    training = {"epochs": 2, "batch": 32, "deterministic": deterministic}
    whole, _ = gathered(run(COMM, make_job("whole", training=training)))
    job = make_job("parts", training=training)
    with pytest.raises(session.Stopped):
        run(COMM, job, StopAt(14, rank=COMM.size - 1))
    loaded = state.load_newest(COMM, Path(job.output.directory))
    found, _ = gathered(resume(COMM, loaded, job))
    assert set(found) == set(whole)
    if deterministic:
        whole, _ = gathered(run(alone(), make_job(f"one{COMM.rank}", training=training)))
    for name, values in whole.items():
        assert np.array_equal(found[name], values), name


def test_a_pattern_without_a_parameter_is_refused_on_all_ranks(make_job):
    groups = [{"parameters": "7.*", "factor": 2.0}]
    with pytest.raises(EnsyncError, match="matches no parameter"):
        run(COMM, make_job("none", optimizer={"groups": groups}))
