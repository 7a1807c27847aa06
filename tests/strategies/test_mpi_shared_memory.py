"""Steps in which the ranks of a node have one copy of the parameters."""

import time

import numpy as np
import pytest
from training.test_training_features import make_trainee

from ensync.core.errors import EnsyncError
from ensync.mpi.world import alone, world
from ensync.strategies.reducers import choose
from ensync.training import lookahead

pytestmark = pytest.mark.mpi
COMM = world()
SECTIONS = {
    "optimizer": {"name": "adam", "learning_rate": 0.02},
    "training": {"epochs": 3},
    "lookahead": {"every_steps": 2, "share": 0.7},
}


def trainer_on(comm, **sections):
    trainer = make_trainee(**SECTIONS | sections)
    given = trainer.job.training, trainer.job.communication, comm, trainer.network
    trainer.reducer = choose(*given, trainer.optimizer, lambda: trainer.network)
    return trainer


@pytest.fixture
def shared():
    """A trainer whose ranks share the parameters."""
    trainer = trainer_on(COMM)
    if COMM.size == 1 or type(trainer.reducer).__name__ != "SharedMemoryReducer":
        pytest.skip("needs ranks that share a node")
    yield trainer
    trainer.reducer.close()


def test_ranks_share_parameters_within_steps_only(shared):
    """What one rank writes there all have; outside each has its own."""
    network, own = shared.network, shared.network.parameters
    with shared.reducer:
        assert np.array_equal(network.parameters, own)
        shared.reducer.meet()
        if COMM.rank == COMM.size - 1:
            network.parameters[:3] = 7, 8, 9
        shared.reducer.meet()
        assert list(network.parameters[:3]) == [7, 8, 9]
    assert network.parameters is own and list(own[:3]) == [7, 8, 9]
    own[0] = COMM.rank
    COMM.Barrier()
    assert own[0] == network.layers[0].weights[0, 0] == COMM.rank


def test_parameters_that_differ_are_refused_before_steps(shared):
    own = shared.network.parameters
    own[-1] = np.nan
    with shared.reducer:
        pass
    own[3] += COMM.rank == COMM.size - 1
    with pytest.raises(EnsyncError, match="differ between ranks"):
        shared.train()
    assert shared.network.parameters is own and shared.optimizer.steps == 0


def test_an_error_on_one_rank_leaves_the_steps_without_the_others(shared):
    own = shared.network.parameters
    before = own.copy()
    shared.reducer.__enter__()
    if COMM.rank == 0:
        shared.reducer.__exit__(ValueError, ValueError(), None)
        assert shared.network.parameters is own and np.array_equal(own, before)
    COMM.Barrier()


def test_lookahead_waits_for_ranks_that_still_read(shared, monkeypatch):
    """The last rank reads late; then all have what one rank has."""
    single, follow = trainer_on(alone()), lookahead.updates.follow
    single.train()

    def late(*given):
        time.sleep(0.01 * (COMM.rank == COMM.size - 1))
        follow(*given)

    monkeypatch.setattr(lookahead.updates, "follow", late)
    shared.train()
    for name, values in single.vectors.items():
        if "optimizer" not in name:
            np.testing.assert_allclose(shared.vectors[name], values, rtol=1e-9, atol=1e-12)
