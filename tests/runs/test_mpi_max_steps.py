"""Runs that end after so many steps: beside runs of epochs, other rank counts, resumed ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from runs.helpers import COMM, StopAt, begin, common_digits, gathered, job_maker, resume, run

from ensync.core.errors import EnsyncError
from ensync.mpi.world import alone
from ensync.runs import evaluate as evaluating
from ensync.runs import lifecycle, results, state
from ensync.runs import train as training
from ensync.runs.describe import describe
from ensync.runs.planned import with_epochs
from ensync.runs.stopped import Stopped
from ensync.strategies import settled

pytestmark = pytest.mark.mpi
ROWS = 407  # of the digits: 293 for training, 6 steps of 50 an epoch


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, ROWS)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset,
        tmp_path,
        network={"hidden": [12], "dropout": 0.2},
        training={"precision": "float64", "batch": 50},
        schedule={"name": "cosine", "warmup_epochs": 0.5},
        checkpoint={"every_epochs": 0},
    )


def same(one, other, exact=True):
    """Compare all vectors of all members of two runs."""
    (first, _), (second, _) = gathered(one), gathered(other)
    assert first.keys() == second.keys()
    for name, values in first.items():
        if exact:
            np.testing.assert_array_equal(values, second[name], name)
        else:
            np.testing.assert_allclose(values, second[name], rtol=1e-7, atol=1e-10)


WHOLE = {  # settings of a run of two epochs, and their steps
    "mini-batches": ({}, 12),
    "all rows": ({"training": {"batch": "full"}}, 2),
    "a sample each": (
        {
            "training": {"batch": 1, "epochs": 1},
            "optimizer": {"name": "sgd"},
            "schedule": {"name": "constant", "warmup_epochs": 0},
            "network": {"dropout": 0},
        },
        293,
    ),
    "growing batches": ({"growth": {"every_epochs": 1, "largest_batch": 100}}, 9),
    "lookahead, best and mean weights": (
        {
            "lookahead": {"every_steps": 4, "power": 3},
            "training": {"best_weights": True, "weight_average": 0.9},
        },
        12,
    ),
    "deterministic": ({"training": {"deterministic": True, "virtual_shards": 4}}, 12),
    "ensemble": ({"training": {"strategy": "ensemble"}, "ensemble": {"members": 3}}, 4),
    "ensemble with a synchronous start": (
        {
            "training": {"strategy": "ensemble"},
            "ensemble": {"start": "synchronous", "members": 3},
        },
        6 + 2,
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_epochs_have_the_bits_of_epochs(make_job, name):
    sections, steps = WHOLE[name]
    epochs = run(COMM, make_job("epochs", **{"training": {"epochs": 2}, **_with(sections, 2)}))
    by_steps = run(COMM, make_job("steps", **_with(sections, 10, max_steps=steps)))
    same(epochs, by_steps)
    assert [p["updates"] for p in gathered(by_steps)[1]] == [steps] * by_steps.mesh.members
    assert set(by_steps.ended().values()) == {f"all {steps} steps"}
    records = [_lines(trained) for trained in (epochs, by_steps)]
    assert records[0] == records[1]


def _with(sections, epochs, **training):
    own = sections.get("training", {})
    return {**sections, "training": {"epochs": epochs, **own, **training}}


def _lines(trained):
    """Return the history but for times and the words of its end, on every rank."""
    lines = (Path(trained.directory) / "history.jsonl").read_text().splitlines()
    left_out = {"seconds", "samples_per_second", "elapsed", "ended"}
    return [{k: v for k, v in json.loads(line).items() if k not in left_out} for line in lines]


PARTS = {  # settings, and a number of steps that ends within an epoch
    "mini-batches": ({}, 9),
    "less than an epoch": ({}, 2),
    "growing batches": ({"growth": {"every_epochs": 1, "largest_batch": 100}}, 8),
    "ensemble": ({"training": {"strategy": "ensemble"}, "ensemble": {"members": 3}}, 5),
    "ensemble with a synchronous start": (
        {
            "training": {"strategy": "ensemble"},
            "ensemble": {"start": "synchronous", "members": 3},
        },
        9,
    ),
    "early stopping": ({"training": {"early_stopping": 1, "best_weights": True}}, 20),
}


@pytest.mark.parametrize("name", PARTS)
def test_ranks_equal_one_rank_within_an_epoch(make_job, name):
    sections, steps = PARTS[name]
    given = _with(sections, 10, max_steps=steps)
    together, single = (
        run(COMM, make_job("together", **given)),
        run(alone(), make_job(f"alone{COMM.rank}", **given)),
    )
    same(together, single, exact=False)
    if name != "early stopping":
        assert {p["updates"] for p in gathered(single)[1]} == {steps}
        assert set(together.ended().values()) == {f"all {steps} steps"}
    last = _lines(together)[-1]
    assert last["step"] == gathered(single)[1][-1]["updates"] and last["validation_loss"]


SYNCHRONOUS_START = "ensemble with a synchronous start"


@pytest.mark.parametrize(
    "name,looks",
    [
        ("mini-batches", 7),
        ("ensemble", 2),
        *[(SYNCHRONOUS_START, looks) for looks in (3, 8)],
    ],
)
def test_resumed_runs_equal_uninterrupted_ones(make_job, name, looks):
    sections, steps = PARTS[name]
    given = _with(sections, 10, max_steps=steps)
    whole = run(COMM, make_job("whole", **given))
    job = make_job("cut", **given)
    with pytest.raises(Stopped):
        lifecycle.train(begin(COMM, job, StopAt(looks)))
    again = resume(COMM, state.load_newest(COMM, Path(job.output.directory)), job)
    same(whole, again)
    assert [(r["epoch"], r["step"]) for r in whole.state.history] == [
        (r["epoch"], r["step"]) for r in again.state.history
    ]


@pytest.mark.parametrize("more", [{"max_steps": 13}, {"epochs": 3}])
def test_a_run_that_ended_within_an_epoch_goes_on_there(make_job, more):
    """With a rate that does not depend on the end, as one that was never ended."""
    constant = {"schedule": {"name": "constant", "warmup_epochs": 0}}
    job = make_job("run", **constant, training={"max_steps": 9})
    run(COMM, job)
    longer = make_job("run", **constant, training=more)
    again = resume(COMM, state.load_newest(COMM, Path(job.output.directory)), longer)
    whole = run(COMM, make_job("whole", **constant, training=more))
    first, second = gathered(whole)[0], gathered(again)[0]
    np.testing.assert_array_equal(
        first["members/0000/parameters"], second["members/0000/parameters"]
    )
    assert [(r["epoch"], r["step"]) for r in _lines(again)] == [
        (r["epoch"], r["step"]) for r in _lines(whole)
    ]


def test_members_of_other_rows_do_as_many_steps(make_job):
    """98, 98 and 97 rows in batches of 97: two steps an epoch, but for the last member."""
    ensemble = {"strategy": "ensemble", "batch": 97}
    trained = run(COMM, make_job(training={**ensemble, "max_steps": 3}, ensemble={"members": 3}))
    positions = gathered(trained)[1]
    assert [(p["updates"], p["epoch"]) for p in positions] == [(3, 2), (3, 2), (3, 3)]
    assert trained.job.training.epochs == 3
    evaluator = results.evaluator_of_session(trained)
    assert set(evaluator.ended.values()) == {"all 3 steps"}


def test_the_batch_of_a_run_of_steps_stays(make_job):
    job = make_job(training={"max_steps": 6})
    run(COMM, job)
    loaded = state.load_newest(COMM, Path(job.output.directory))
    with pytest.raises(EnsyncError, match=r"training.batch = 25 for a run"):
        resume(COMM, loaded, make_job(training={"max_steps": 12, "batch": 25}))
    plain = make_job("plain", training={"epochs": 1})
    run(COMM, plain)
    loaded = state.load_newest(COMM, Path(plain.output.directory))
    halved = make_job("plain", training={"epochs": 2, "batch": 25})
    resume(COMM, loaded, halved)
    loaded = state.load_newest(COMM, Path(plain.output.directory))
    with pytest.raises(EnsyncError, match="whose batch was changed"):
        resume(COMM, loaded, make_job("plain", training={"max_steps": 30, "batch": 25}))


def test_what_does_not_go_together_is_refused(make_job):
    start = {"start": "synchronous", "synchronous_epochs": 2, "members": 3}
    labels = np.arange(293) % 10
    job = make_job(training={"max_steps": 12, "strategy": "ensemble"}, ensemble=start)
    with pytest.raises(EnsyncError, match="max_steps = 12 with .*synchronous_epochs = 2.* 12 st"):
        with_epochs(settled(job, 3), 3, labels)
    job = make_job(training={"max_steps": 10**7, "batch": "full"})
    with pytest.raises(EnsyncError, match="10,000,000 epochs; expected at most 1,000,000"):
        with_epochs(settled(job, 3), 3, labels)


def test_verbs_speak_of_steps(make_job, capfd):
    """Trained, evaluated before its end, continued, given a later end, then one that is behind."""
    job = make_job(training={"max_steps": 9})
    with pytest.raises(Stopped):
        lifecycle.train(begin(COMM, job, StopAt(4)))
    directory = job.output.directory
    evaluating.evaluate(COMM, directory, (), ())
    _said(capfd, "this is the state after 4 of 9 steps")
    training.resume(COMM, directory, (), False)
    _said(capfd, "9 steps (1.5 epochs)", "training ended: all 9 steps", "  2/2 ")
    training.resume(COMM, directory, (), False)
    _said(capfd, "nothing is left to train (all 9 steps)", "max_steps=N (more than 9)")
    training.resume(COMM, directory, ("training.max_steps=13",), False)
    _said(capfd, "13 steps (2.167 epochs)", "max_steps = 13 (was 9)", "cosine over 13 steps")
    with pytest.raises(EnsyncError, match="max_steps = 5 for a run that has 13 steps behind it"):
        training.resume(COMM, directory, ("training.max_steps=5",), False)
    with pytest.raises(EnsyncError, match=r"training.epochs = 4 with training.max_steps = 13"):
        training.resume(COMM, directory, ("training.epochs=4",), False)
    lines = "\n".join(describe(directory))
    assert "epoch 3 of 3, step 0, 13 of 13 updates" in lines


def _said(capfd, *words):
    """Look for words in what rank 0 has written."""
    written = "".join(COMM.allgather("".join(capfd.readouterr())))
    for word in words:
        assert word in written, (word, written)
