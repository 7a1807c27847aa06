"""What a run or a sweep of any length keeps in memory and on disk is bounded;
tests/soak/long_run.py watches it for an hour.
"""

import os
import threading
from collections import Counter
from contextlib import suppress

import pytest
from launched.processes import wait_until
from runs.helpers import COMM, SILENT, common_digits, job_maker, run
from runs.study.helpers import run as run_study

from ensync.core.signals import StopRequest
from ensync.mpi import shared_memory
from ensync.mpi.node_sum import NodeVector
from ensync.mpi.watchdog import watch
from ensync.mpi.world import on_root
from ensync.report.history import read_history
from ensync.runs import state
from ensync.runs.evaluate import evaluate
from ensync.runs.options import RunOptions
from ensync.runs.sweep import sweep
from ensync.runs.train import resume, train_job

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(
        not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc"
    ),
]


def opened_since(before=frozenset()):
    """Return the names of the open files beyond those before; a name may be open several times."""
    names = Counter()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            names[os.readlink(f"/proc/self/fd/{number}")] += 1
    return names - Counter(before)


@pytest.fixture
def make_job(tmp_path, tmp_path_factory):
    return job_maker(
        common_digits(tmp_path_factory, 100),
        tmp_path,
        network={"hidden": [4]},
        training={"epochs": 40, "batch": 50, "threads": 1},
    )


def test_older_epochs_are_thinned_out_in_memory_and_in_checkpoints(make_job, monkeypatch):
    monkeypatch.setattr(state, "LIMIT_EPOCHS", 8)
    job = make_job(training={"strategy": "ensemble"}, ensemble={"members": 2})
    trained = run(COMM, job)
    epochs = sorted({record["epoch"] for record in trained.state.history})
    assert (
        len(trained.state.history) == 2 * len(epochs) <= 2 * 8
        and epochs[0] == 1
        and epochs[-4:] == [37, 38, 39, 40]
    )
    loaded = state.load_newest(COMM, trained.directory)
    assert loaded.state.history == trained.state.history == COMM.bcast(trained.state.history)
    assert len(on_root(COMM, lambda: read_history(trained.directory / "history.jsonl"))) == 80


def test_a_sweep_gives_back_what_each_value_took(make_job):
    """Shared memory, open files and communicators: an MPI has some thousands of these."""

    def sweep_over(*seeds):
        return sweep(
            COMM,
            [
                (seed, make_job(f"seed_{seed}", training={"seed": seed, "epochs": 1}))
                for seed in seeds
            ],
            "training.seed",
            SILENT,
            StopRequest(),
        )

    sweep_over(1)
    # what tests before this one left may be closed meanwhile: files that were not open count
    files = opened_since()
    segments = len(shared_memory._open)
    sweep_over(*range(2, 12))
    wait_until(lambda: not opened_since(files))  # threads close theirs a moment after the run
    assert len(shared_memory._open) == segments


def test_verbs_give_back_their_images_and_sums(make_job, monkeypatch):
    """What is left shared, Open MPI frees at the end of the program in an order of each rank's own,
    and waits for ever where these differ.
    """
    sums = []
    monkeypatch.setattr(NodeVector, "__init__", counted(NodeVector.__init__, sums.append))
    monkeypatch.setattr(NodeVector, "free", counted(NodeVector.free, sums.remove))
    job = make_job(training={"epochs": 1})
    segments = dict(shared_memory._open)
    train_job(COMM, job, RunOptions(), SILENT)
    resume(COMM, job.output.directory, ("training.epochs=2",), False)
    evaluate(COMM, job.output.directory, (), ())
    study = {"contestants": ["synchronous"], "seeds": 1, "redraw_validation": True}
    run_study(make_job("study", training={"epochs": 1}, study=study))
    assert shared_memory._open == segments and sums == []


def counted(method, note):
    """The method, after which `note` is told of its object."""

    def after(self, *args):
        method(self, *args)
        note(self)

    return after


def test_the_watchdog_closes_its_file():
    files = opened_since()
    for _ in range(3):
        with watch(COMM, 60, "runs/x"):
            assert opened_since(files)
        wait_until(
            lambda: not [thread for thread in threading.enumerate() if thread.name == "watchdog"]
        )
        assert not opened_since(files)
