"""Runs whose ranks send fewer bytes, beside those that send all. What else can happen to them is in
test_mpi_communication.py.
"""

from pathlib import Path

import numpy as np
import pytest
from runs.helpers import COMM, StopAt, begin, common_digits, gathered, job_maker, resume, run

from ensync.core.config.communication import Communication
from ensync.mpi.wire import passed
from ensync.mpi.world import alone
from ensync.nn.step_metrics import METRICS
from ensync.runs import lifecycle, state
from ensync.runs.replicas import restore_replicas
from ensync.runs.stopped import Stopped
from ensync.strategies.compression import described

pytestmark = [pytest.mark.mpi, pytest.mark.usefixtures("one_thread")]
ROWS = 407  # of the digits: 293 for training, in batches of 50 that 3 and 4 ranks do not divide
WAYS = [
    {"compression": "bf16"},
    {"compression": "powersgd"},
    {"compression": "int8"},
    {"compression": "topk", "compression_share": 0.2},
]
several = pytest.mark.skipif(COMM.size == 1, reason="one rank sends nothing")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, ROWS)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        network={"hidden": [9]},
        training={"epochs": 2, "batch": 50},
        optimizer={"name": "momentum", "learning_rate": 0.05},
    )


@several
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_run_learns_what_one_that_sends_all_learns(make_job, way):
    """With other bits, and less sent."""
    whole, fewer = run(COMM, make_job("whole")), run(COMM, make_job("fewer", communication=way))
    found, wanted = (gathered(each)[0]["members/0000/parameters"] for each in (fewer, whole))
    assert not np.array_equal(found, wanted)
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)
    assert fewer.trainers[0].reducer.bytes < whole.trainers[0].reducer.bytes
    assert fewer.trainers[0].reducer.seconds > 0


def test_other_ranks_share_out_what_was_not_sent(make_job):
    """A checkpoint of three more ranks than there are."""
    trained = begin(COMM, make_job(communication=WAYS[0]))
    (trainer,) = trained.trainers.values()
    trainer.optimizer.steps = 1
    ranks, n = COMM.size + 3, len(trainer.network.parameters)
    errors = np.random.default_rng(0).normal(size=(ranks, n)).astype(np.float32)
    arrays = {f"members/0000/replicas/{k:04d}/error": each for k, each in enumerate(errors)}
    path = Path("checkpoint.h5")
    (said,) = restore_replicas(
        path, arrays if COMM.rank == 0 else {}, trained.mesh, trained.trainers
    )
    if COMM.size == 1:
        assert "left out: one rank sends nothing" in said and not trainer.reducer.replica
        return
    assert said.endswith(f"is shared out among {COMM.size}")
    total = COMM.size * trainer.reducer.replica["error"]
    np.testing.assert_allclose(total, errors.sum(axis=0), rtol=1e-4, atol=1e-4)


@several
def test_one_rank_goes_on_from_a_compressed_run(make_job):
    job = make_job(communication=WAYS[0])
    with pytest.raises(Stopped):
        run(COMM, job, StopAt(5))
    if COMM.rank == 0:
        mine = state.load_newest(alone(), Path(job.output.directory))
        again = resume(alone(), mine, job)
        assert again.trainers[0].optimizer.steps == 12 and again.trainers[0].reducer.bytes == 0
    COMM.Barrier()


@several
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_gradient_that_is_not_finite_on_one_rank_ends_all(make_job, way):
    trained = begin(COMM, make_job(communication=way))
    (trainer,) = trained.trainers.values()
    compute = trainer.reducer.reduce

    def spoil(gradient, stop_requested):
        def spoiled(network, part):
            rows = gradient(network, part)
            if trainer.optimizer.steps == 5 and COMM.rank == COMM.size - 1:
                network.gradient[3] = np.nan
            return rows

        return compute(spoiled, stop_requested)

    trainer.reducer.reduce = spoil
    ended = lifecycle.train(trained).ended()
    assert "diverged in epoch 1" in ended[0] and COMM.allgather(ended) == COMM.size * [ended]


@several
def test_bf16_words_are_half_of_a_gradient(make_job):
    trained = run(COMM, make_job(communication={"compression": "bf16"}))
    (trainer,) = trained.trainers.values()
    sent = COMM.allreduce(trainer.reducer.bytes)
    words = 2 * (COMM.size - 1) * 2 * len(trainer.network.parameters)
    assert sent == 12 * (words + COMM.size * passed(4 * METRICS, COMM.size))


def test_one_rank_is_told_that_it_sends_nothing(make_job):
    from ensync.runs.header import _compression

    told = _compression(begin(COMM, make_job(communication=WAYS[0])))
    assert ("one rank, which sends nothing" in told) == (COMM.size == 1) and "bf16" in told


def test_how_sums_are_compressed_is_said_in_words():
    said = {way["compression"]: described(Communication(**way)) for way in WAYS}
    assert said == {
        "bf16": "bf16",
        "powersgd": "powersgd of rank 2 after 0.1 of the steps",
        "int8": "int8 in blocks of 256",
        "topk": "topk of 0.2 of the numbers after 0.1 of the steps (more than 2 ranks would send "
        "less as bf16)",
    }
    assert "any ranks" in described(Communication(compression="topk", compression_share=0.5))
