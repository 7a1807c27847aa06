"""Why a run ends, and how it goes on from there: early stopping, divergence, more epochs; the
same on any number of ranks.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from runs.helpers import COMM, SILENT, begin, common_digits, gathered, job_maker, run

from ensync.core.config.job import dump_job
from ensync.core.errors import EnsyncError
from ensync.core.signals import StopRequest
from ensync.mpi.world import on_root
from ensync.report.history import read_history
from ensync.runs import lifecycle, results, start, state
from ensync.runs.compare import compare
from ensync.runs.options import RunOptions
from ensync.runs.planned import PlannedRun
from ensync.runs.train import resume, train

pytestmark = pytest.mark.mpi
MESSAGE = 4 * (64 * 8 + 8 + 8 * 10 + 10 + 4)  # bytes of a gradient and its metrics


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, 200)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        network={"hidden": [8]},
        training={"epochs": 4, "batch": 36, "threads": 1},
        optimizer={"name": "momentum", "learning_rate": 0.02},
    )


@pytest.fixture
def say(make_job, capsys):
    """A function from a verb's arguments to what it printed, on every rank; jobs are written
    where all ranks find them.
    """

    def do(verb, *arguments, refused=None):
        capsys.readouterr()
        if refused:
            with pytest.raises(EnsyncError, match=refused):
                verb(COMM, *arguments)
        else:
            verb(COMM, *arguments)
        return COMM.bcast(capsys.readouterr().out)

    return do


def write(job):
    path = f"{job.output.directory}.toml"
    on_root(COMM, lambda: Path(path).write_text(dump_job(job)))
    return path


def result(job):
    return json.loads((Path(job.output.directory) / "result.json").read_text())


def newest(job):
    """Return position and finite or not of the newest checkpoint, on every rank."""
    loaded = state.load_newest(COMM, Path(job.output.directory))
    finite = COMM.bcast(
        all(np.isfinite(values).all() for values in loaded.arrays.values())
        if COMM.rank == 0
        else None
    )
    return loaded.attributes["positions"], finite


def test_a_run_says_why_it_ended_and_trains_on(make_job, say):
    """All epochs; a resume with nothing to do; early stopping; a resume with less patience, and
    one with none.
    """
    job = make_job()
    said = say(train, write(job), RunOptions())
    directory = job.output.directory
    assert "training ended: all 4 epochs\n" in said and result(job)["ended"] == ["all 4 epochs"]
    machine = result(job)["machine"]
    assert machine["ranks"] == COMM.size and machine["threads_per_rank"] >= 1 and machine["cpu"]
    assert result(job)["created"] and "numba" in result(job)["versions"]
    steps = 4 * -(-len_train(job) // 36)
    passed = 2 * (COMM.size - 1) * MESSAGE // COMM.size  # by each rank in each step
    assert result(job)["bytes_sent"] == COMM.size * steps * passed
    assert ("sent in sums" in said) == (COMM.size > 1)
    assert "nothing is left to train (all 4 epochs)" in say(resume, directory, (), False)
    more = ("training.epochs=60", "training.early_stopping=2", "optimizer.learning_rate=0.3")
    said = say(resume, directory, more, False)
    assert (
        "the learning rate goes on at 0.3, after 0.02 in the last step" in said
        and "nothing is left" not in said
    )
    why = re.search(
        r"training ended: (early stopping at epoch (\d+) of 60: no better validation loss since "
        r"epoch (\d+))",
        said,
    )
    assert int(why[2]) == int(why[3]) + 2 and result(job)["ended"] == [why[1]]
    history = read_history(Path(directory) / "history.jsonl")
    assert [record["ended"] for record in history if "ended" in record] == [why[1]] and history[-1][
        "epoch"
    ] == int(why[2])
    assert f"nothing is left to train ({why[1]}" in say(resume, directory, (), False)
    said = say(
        resume,
        directory,
        (f"training.epochs={int(why[2]) + 3}", "training.early_stopping=0"),
        False,
    )
    assert f"training ended: all {int(why[2]) + 3} epochs" in said
    assert [record["epoch"] for record in read_history(Path(directory) / "history.jsonl")] == list(
        range(1, int(why[2]) + 4)
    )


@pytest.mark.parametrize("every", [0, 1])
@pytest.mark.parametrize("shape", [{"hidden": [8]}, {"name": "oregon-mlp", "hidden": [8, 8]}])
def test_what_diverged_trains_on_from_its_last_good_state(make_job, say, every, shape):
    """In the first epoch from the start, in the third from the second's end; the sentence gives
    the command that works.
    """
    job = make_job(
        network=shape,
        checkpoint={"every_epochs": every},
        optimizer={"learning_rate": 3e38, "name": "sgd"},
        training={"batch": 1 if "name" in shape else 36},
    )
    said = say(train, write(job), RunOptions(), refused="no usable network.*resume")
    assert "training ended: diverged in epoch 1" in said and result(job)["ended"][0].startswith(
        "diverged in epoch 1"
    )
    assert newest(job)[1] and newest(job)[0][0]["epoch"] == newest(job)[0][0]["updates"] == 0
    directory, rate = re.search(
        r"`ensync resume (\S+) --set optimizer.learning_rate=(\S+)`", said
    ).groups()
    assert (directory, float(rate)) == (job.output.directory, 3e37)
    healthy = ("optimizer.learning_rate=0.01", "training.epochs=2")
    assert "training ended: all 2 epochs" in say(resume, directory, healthy, False)
    straight = make_job(
        "straight",
        network=shape,
        training=job.training.model_dump(exclude={"epochs"}) | {"epochs": 2},
        optimizer={"learning_rate": 0.01, "name": "sgd"},
    )
    whole, found = (gathered_file(each) for each in (run_of(straight), job))
    assert all(np.array_equal(whole[name], found[name]) for name in whole), (
        "as if it had begun with that rate"
    )
    good = gathered_file(job)
    say(
        resume,
        directory,
        ("optimizer.learning_rate=3e38", "training.epochs=4"),
        False,
        refused="no usable network.*resume",
    )
    (position,), finite = newest(job)
    assert (
        finite and position["epoch"] == 2 and position["finished"].startswith("diverged in epoch 3")
    )
    assert all(np.array_equal(good[name], values) for name, values in gathered_file(job).items())
    records = read_history(Path(directory) / "history.jsonl")
    assert (
        [r["epoch"] for r in records] == [1, 2, 3]
        and records[-1]["train_loss"] is None
        and records[-1]["ended"] == position["finished"]
    )
    assert "training ended: all 4 epochs" in say(
        resume, directory, ("optimizer.learning_rate=0.01",), False
    )
    assert [r["epoch"] for r in read_history(Path(directory) / "history.jsonl")] == [1, 2, 3, 4]
    assert result(job)["ended"] == ["all 4 epochs"] and newest(job)[1]


def run_of(job):
    run(COMM, job)
    return job


def gathered_file(job):
    loaded = state.load_newest(COMM, Path(job.output.directory))
    return COMM.bcast(loaded.arrays)


@pytest.mark.parametrize("where", ["parameters", "validation"])
def test_a_member_that_diverges_is_kept_from_before(make_job, where, monkeypatch):
    """In its last update of an epoch, of which no loss of a step tells; by its validation loss."""
    job = make_job(
        training={"strategy": "ensemble", "epochs": 3},
        ensemble={"members": 3},
        checkpoint={"keep": 1},
    )
    trained = begin(COMM, job)
    original = (
        type(trained)._close_epoch
        if where == "validation"
        else type(next(iter(trained.trainers.values()))).train
    )

    def spoil(*given):
        trainer = given[0] if where == "parameters" else given[1]
        if trainer.member == 1 and trainer.position.epoch == 1:
            if where == "validation":
                trainer.network.parameters[-1] = np.float32(3e38)
                trainer.network.parameters[-2] = np.float32(-3e38)
            else:
                found = original(*given)
                trainer.network.parameters[0] = np.nan
                return found
        return original(*given)

    monkeypatch.setattr(
        type(trained) if where == "validation" else type(next(iter(trained.trainers.values()))),
        original.__name__,
        spoil,
    )
    trained = lifecycle.train(trained)
    evaluator = results.evaluator_of_session(trained)
    assert (
        list(evaluator.test.excluded) == [1]
        and evaluator.ended[1].startswith("diverged in epoch 2")
        and evaluator.ended[0] == "all 3 epochs"
    )
    positions, finite = newest(job)
    assert finite and [p["epoch"] for p in positions] == [3, 1, 3]
    monkeypatch.undo()
    resumed = start.resume(
        PlannedRun(job, COMM).context(trained.loaders, SILENT, StopRequest()),
        state.load_newest(COMM, Path(job.output.directory)),
    )
    arrays, reached = gathered(lifecycle.train(resumed))
    straight, _ = gathered(
        run(
            COMM,
            make_job(
                "straight",
                training=job.training.model_dump(exclude={"precision"}),
                ensemble={"members": 3},
            ),
        )
    )
    assert [p["epoch"] for p in reached] == [3, 3, 3] and all(
        np.array_equal(arrays[name], straight[name]) for name in straight
    )


def test_a_finished_cosine_says_how_the_rate_jumps(make_job, say):
    job = make_job(schedule={"name": "cosine"})
    say(train, write(job), RunOptions())
    said = say(resume, job.output.directory, ("training.epochs=8",), False)
    steps = 4 * (len_train(job) // 36)
    last, now = (0.02 * 0.5 * (1 + np.cos(np.pi * done)) for done in ((steps - 1) / steps, 0.5))
    assert (
        f"the learning rate goes on at {now:.3g}, after {last:.3g} in the last step: cosine over "
        "8 epochs, before over 4" in said
    )
    assert "learning rate goes on" not in say(resume, job.output.directory, (), False)


def len_train(job):
    from ensync.storage.dataset import open_dataset

    dataset = open_dataset(job.data.path)
    try:
        return dataset.sizes["train"]
    finally:
        dataset.close()


def test_a_comparison_without_test_images_is_refused(make_job, dataset):
    from ensync.storage.sources.digits import read_digits
    from ensync.storage.writing import write_dataset

    def cut():
        source = read_digits()
        write_dataset(path, source, validation=0.1, test=0.0, seed=1)

    path = dataset.replace("digits.h5", "untested.h5")
    on_root(COMM, cut)
    job = make_job("compared", data={"path": path}, training={"epochs": 1})
    with pytest.raises(EnsyncError, match="no test images"):
        compare(COMM, job, SILENT, StopRequest())
    assert not on_root(COMM, Path(job.output.directory).exists)
    evaluator = results.evaluator_of_session(run(COMM, job))
    assert evaluator.member_accuracies == [None] and (
        COMM.rank or "no test images" in evaluator.fuse("soft_voting").refused
    )
