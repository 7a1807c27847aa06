"""Ranks that average with one partner: beside plain numpy. What can happen to their runs is in
test_mpi_communication.py.
"""

import numpy as np
import pytest
from runs.helpers import COMM, begin, common_digits, gathered, job_maker, run
from runs.plain_replicas import OPTIMIZER, RATE, Softmax, gossip

from ensync.mpi.partner import Exchange
from ensync.mpi.wire import passed
from ensync.runs import lifecycle
from ensync.strategies.gossip import GossipReducer, partner

pytestmark = [pytest.mark.mpi, pytest.mark.usefixtures("one_thread")]
ROWS = 407  # of the digits: 293 for training
several = pytest.mark.skipif(COMM.size == 1, reason="one rank has no partner")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, ROWS)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        network={"hidden": []},
        training={"precision": "float64", "epochs": 2},
        optimizer=OPTIMIZER,
    )


@pytest.mark.parametrize("batch", [50, 73])
@pytest.mark.parametrize("pattern", ["butterfly", "ring"])
@pytest.mark.parametrize("every", [1, 3])
def test_steps_are_those_of_plain_numpy(make_job, pattern, every, batch):
    """No number of ranks but one divides the last batch, of which one rank alone has a row where
    the others are of 73.
    """
    settings = {"partners": pattern, "every": every}
    trained = begin(COMM, make_job(communication=settings, training={"batch": batch}))
    start = gathered(trained)[0]["members/0000/parameters"]

    def pairs(step):
        turn, left = divmod(step + 1, every)
        ranks = range(COMM.size)
        meets = COMM.size > 1 and not left
        return [partner(pattern, COMM.size, r, turn - 1) if meets else r for r in ranks]

    shape = (COMM.size, 2, batch)
    expected = gossip(Softmax(trained), start, pairs, shape, [RATE] * 12)
    found = gathered(lifecycle.train(trained))[0]["members/0000/parameters"]
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10)


@several
def test_each_step_passes_one_vector_to_one_partner(make_job, monkeypatch):
    """And looks at it after each layer, of which there is one."""
    looks, look = [], Exchange.look
    monkeypatch.setattr(Exchange, "look", lambda self: looks.append(look(self)))
    trained = run(COMM, make_job(communication={"partners": "ring"}, training={"batch": 50}))
    (trainer,) = trained.trainers.values()
    assert isinstance(trainer.reducer, GossipReducer)
    met = sum(partner("ring", COMM.size, COMM.rank, step) != COMM.rank for step in range(12))
    vector = trainer.network.parameters.nbytes
    means = 2 * passed(trainer.network.message.nbytes, COMM.size)  # at the ends of epochs
    state = 2 * passed(trainer.optimizer.slots["velocity"].nbytes, COMM.size)
    small = trainer.reducer.bytes - met * vector - means - state
    assert 0 < small <= 2 * passed(4 * 8, COMM.size) + 12 * passed(16, COMM.size)
    assert trainer.reducer.seconds > 0 and len(looks) == 12


def test_a_pair_gets_what_the_other_passes_and_one_alone_nothing():
    noted = []
    exchange = Exchange(COMM, np.zeros(5), lambda nbytes, seconds: noted.append(nbytes))
    for turn in range(3):
        other = partner("ring", COMM.size, COMM.rank, turn) if COMM.size > 1 else 0
        exchange.begin(np.full(5, 10.0 * COMM.rank + turn), other)
        found = exchange.finish()
        if other == COMM.rank:
            assert found is None
        else:
            assert np.array_equal(found, np.full(5, 10.0 * other + turn))
    assert set(noted) <= {40} and (noted or COMM.size == 1)
