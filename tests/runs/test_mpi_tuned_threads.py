"""Runs that choose their number of threads by the time of steps."""

import itertools

import numba
import numpy as np
import pytest
from runs.helpers import COMM, common_digits, gathered, job_maker, run

from ensync.kernels import thread_tuner, threads

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one CPU"),
]
CONVOLUTIONAL = {
    "name": "layers",
    "layers": [
        {"kind": "convolution", "filters": 16},
        {"kind": "batch_normalization", "activation": "relu"},
        {"kind": "flatten"},
        {"kind": "dense", "units": 64, "activation": "relu"},
        {"kind": "dense"},
    ],
}


@pytest.fixture
def make_job(tmp_path, tmp_path_factory):
    before = threads.thread_limit()
    yield job_maker(
        common_digits(tmp_path_factory, 600), tmp_path, training={"epochs": 2, "batch": 100}
    )
    threads.set_threads(before)


@pytest.mark.parametrize("deterministic", [False, True])
def test_changes_of_threads_within_a_run_change_no_bit(make_job, monkeypatch, deterministic):
    threads.set_threads(2)
    fixed = gathered(
        run(
            COMM,
            make_job(
                "fixed",
                network=CONVOLUTIONAL,
                training={"threads": 2, "deterministic": deterministic},
            ),
        )
    )
    used, wanted = set(), itertools.cycle((1, 2, 2, 1))

    def change(tuner, seconds):
        used.add(threads.get_threads())
        threads.use_threads(next(wanted))

    monkeypatch.setattr(thread_tuner.ThreadTuner, "note", change)
    tuned = gathered(
        run(
            COMM,
            make_job("tuned", network=CONVOLUTIONAL, training={"deterministic": deterministic}),
        )
    )
    assert used == {1, 2} and threads.get_threads() == 2
    assert all(np.array_equal(fixed[0][name], tuned[0][name]) for name in fixed[0])


def test_a_number_that_the_job_gives_stays(make_job, monkeypatch):
    threads.set_threads(2)
    monkeypatch.setattr(
        thread_tuner.ThreadTuner, "note", lambda tuner, seconds: pytest.fail("tuned")
    )
    run(COMM, make_job("given", training={"threads": 2}))
