"""Studies on ranks: cells are the runs that they describe, kept, added to, packed and refused."""

import json

import numpy as np
import pytest
from runs.helpers import COMM, common_digits
from runs.study.helpers import cells, gather, outputs, run, study_maker, times, whole

from ensync.core.errors import EnsyncError
from ensync.mpi.world import alone, on_root
from ensync.runs import results, state
from ensync.runs.planned import PlannedRun
from ensync.runs.stopped import Stopped
from ensync.runs.study import calibration, origin, stage
from ensync.runs.study.analysis import analyse
from ensync.runs.study.answers import greedy_soup
from ensync.training.evaluation import evaluate_block

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.timeout(300),
]
ALL = ["one_rank", "synchronous", "ensemble_shards", "ensemble_full", "shared_start"]
COUNTS = sorted({1, min(2, COMM.size), COMM.size})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, 300)


@pytest.fixture
def make(dataset, tmp_path):
    return study_maker(dataset, tmp_path)


def plain_run(directory, name):
    """Return the evaluator of a cell's checkpoint, on this rank alone, as `ensync evaluate` has
    it. Each rank computes the same.
    """
    loaded = state.load_newest(alone(), directory / "cells" / name)
    job = loaded.state.job
    loaders = PlannedRun(job, alone()).open(alone())
    return results.evaluator_of_files(alone(), loaded, job, loaders), loaders


@pytest.fixture(scope="module")
def apart(dataset, tmp_path_factory):
    """A study of all kinds of contestants, one cell after the other."""
    make = study_maker(dataset, tmp_path_factory.mktemp("apart"))
    return run(make(contestants=ALL, ranks=COUNTS))


def test_cells_are_the_runs_that_they_describe(apart):
    directory = apart
    found = cells(directory)
    assert len(found) == 2 * (1 + (len(COUNTS) - 1) * 4)
    for name, cell in found.items():
        evaluator, loaders = plain_run(directory, name)
        told = outputs(directory, name)
        assert np.array_equal(told.test.labels, loaders.test.labels)
        assert np.array_equal(told.validation.labels, loaders.validation.labels)
        assert list(told.members) == list(range(cell["members"]))
        for split, scores in (("test", evaluator.test), ("validation", evaluator.validation)):
            expected = scores.gathered(alone())
            assert np.allclose(told.split(split).probabilities, expected, atol=1e-6)
        fused = evaluator.fuse(cell["fusion"])
        answers = told.test.probabilities.mean(axis=0)
        if cell["fusion"] == "weight_averaging":
            answers = told.test.averaged
        assert np.mean(answers.argmax(axis=1) == told.test.labels) == fused.accuracy
        assert cell["steps"] == max(p["updates"] for p in _positions(directory, name))
        asked, batches = 3 * len(loaders.train), 20 * cell["members"]  # all contestants alike
        assert abs(cell["samples"] - asked) <= batches, (name, cell["samples"])
        loaders.close()


def _positions(directory, name):
    return state.load_newest(alone(), directory / "cells" / name).attributes["positions"]


@pytest.mark.mpi(min_size=2)
def test_averaged_networks_and_soups_are_those_of_the_mean_parameters(make):
    """Beside means in plain numpy, and every soup tried by hand."""
    directory = run(make(contestants=["shared_start"], seeds=1, ranks=[COMM.size]))
    name = f"shared_start/ranks_{COMM.size}/seed_1"
    told = outputs(directory, name)
    evaluator, loaders = plain_run(directory, name)
    vectors = {m: (p.copy(), s.copy()) for m, p, s in evaluator.vectors}

    def answers(members, loader):
        network = evaluator.network
        network.parameters[:] = np.mean([vectors[m][0] for m in members], axis=0, dtype=np.float64)
        return evaluate_block(network, loader, 1, 0, False).scores.copy()

    def right(members):
        scores = answers(members, loaders.validation)
        return np.count_nonzero(scores.argmax(axis=1) == loaders.validation.labels)

    every = list(vectors)
    assert np.allclose(told.test.averaged, answers(every, loaders.test), atol=1e-5)
    assert np.allclose(told.validation.averaged, answers(every, loaders.validation), atol=1e-5)
    soup = []
    for member in sorted(every, key=lambda m: (-right([m]), m)):
        if not soup or right([*soup, member]) >= right(soup):
            soup.append(member)
    assert list(told.soup_members) == soup == greedy_soup(evaluator)
    assert np.allclose(told.test.greedy_soup, answers(soup, loaders.test), atol=1e-5)
    loaders.close()


def test_packed_cells_have_the_same_numbers(make, apart):
    directory = run(make("packed", contestants=ALL, ranks=COUNTS), pack=True)
    assert whole(directory) == whole(apart)
    packed = on_root(
        COMM,
        lambda: [
            json.loads(path.read_bytes())["packed"]
            for path in directory.glob("cells/*/*/*/cell.json")
        ],
    )
    beside = [count for count in COUNTS if count < COMM.size]  # one_rank, and four others
    assert sum(packed) == sum(2 if count == 1 else 8 for count in beside)


def test_more_seeds_and_contestants_add_only_what_is_missing(make):
    directory = run(make(contestants=["one_rank"], seeds=1))
    before = times(directory)
    with pytest.raises(EnsyncError, match="earlier results are there already"):
        run(make(contestants=["one_rank"], seeds=2))
    run(make(contestants=["one_rank", "ensemble_full"], seeds=2), resume=True)
    after = times(directory)
    assert len(after) == (2 if COMM.size == 1 else 4)
    assert {path: after[path] for path in before} == before
    fresh = whole(run(make("fresh", contestants=["one_rank", "ensemble_full"], seeds=2)))
    assert whole(directory) == fresh
    run(make(contestants=["one_rank"], seeds=1), overwrite=True)
    assert len(times(directory)) == 1


def test_cells_that_rest_on_something_else_are_refused_before_training(
    make, dataset, tmp_path_factory, monkeypatch
):
    job = make(contestants=["one_rank"], seeds=1)
    directory = run(job)
    before = times(directory)
    more = {"contestants": ["one_rank"], "seeds": 3}

    def refused(changed, words):
        with pytest.raises(EnsyncError, match=words):
            run(changed, resume=True)
        assert times(directory) == before

    batch = job.training.model_copy(update={"batch": 10})
    refused(make(**more).model_copy(update={"training": batch}), "training.batch = 20, .* has 10")
    refused(make(**more, budget="samples_per_network"), "study.budget = 'samples'")
    other = common_digits(tmp_path_factory, 200)
    data = job.data.model_copy(update={"path": other})
    refused(make(**more).model_copy(update={"data": data}), "was started with another dataset")
    monkeypatch.setattr(origin, "code_sha256", lambda: "0" * 64)
    refused(make(**more), "with other sources of Ensync")


def test_a_contestant_that_diverges_is_done_and_says_so(make, capfd):
    own = {"wild": {"base": "one_rank", "set": ["optimizer.learning_rate=1e30"]}}
    directory = run(make(contestants=["one_rank"], own=own, seeds=1))
    told = " ".join(capfd.readouterr().out.split())
    if COMM.rank == 0:  # a cell that is trained on alone would be refused
        assert "left out here: lower optimizer.learning_rate for all that is compared" in told
        assert "ensync resume" not in told
    found = cells(directory)
    assert "diverged" in found["wild/ranks_1/seed_1"]["excluded"]["0"]
    assert found["one_rank/ranks_1/seed_1"]["validation_accuracy"] is not None
    assert not (directory / "cells/wild/ranks_1/seed_1/outputs.h5").exists()
    before = times(directory)
    job = make(contestants=["one_rank"], own=own, seeds=1)
    run(job, resume=True)
    gather(job)
    assert times(directory) == before
    assert "wild" in (directory / "study.html").read_text()


def test_values_of_a_setting_are_trained_as_contestants_of_ones_own(make):
    """The same bits, and the rarer ranks meet, the fewer bytes they send for a sample."""
    own = {"local_4": {"base": "synchronous", "set": ["communication.every=4"]}}
    directory = run(make(over="communication.every=1,4,never", own=own, seeds=1))
    found = on_root(COMM, lambda: analyse(directory))
    sent = {each.name: each.cost.bytes_per_sample.mean for each in found.contestants}
    if COMM.size == 1:
        assert sent == {"every_1": 0.0, "local_4": 0.0} and len(found.left_out) == 2
        return
    assert list(sent) == ["every_1", "every_4", "every_never", "local_4"]
    assert sent["every_1"] > 2 * sent["every_4"] and sent["every_4"] > sent["every_never"] > 0
    assert found.over.values == {"every_1": 1, "every_4": 4, "every_never": "never"}
    ours, theirs = (
        outputs(directory, f"{name}/ranks_{COMM.size}/seed_1") for name in ("every_4", "local_4")
    )
    assert np.array_equal(ours.test.probabilities, theirs.test.probabilities)


def test_the_best_learning_rate_by_validation_is_taken(make):
    directory = run(make(contestants=["one_rank"], seeds=2, trials=3))
    found = cells(directory)
    trials = {
        cell["learning_rate_factor"]: cell["validation_accuracy"]
        for cell in found.values()
        if cell["trial"] is not None
    }
    assert len(trials) == 3 and 1.0 in trials
    best = {cell["learning_rate_factor"] for cell in found.values() if cell["trial"] is None}
    assert len(best) == 1 and trials[best.pop()] == max(trials.values())


def test_a_target_is_reached_when_the_history_says_so(make):
    directory = run(make(contestants=["one_rank", "ensemble_full"], budget="target", amount=0.3))
    for path in sorted(directory.glob("cells/*/*/*")):
        lines = [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]
        reached = [r["elapsed"] for r in lines if r["fused_validation_accuracy"] >= 0.3]
        cell = json.loads((path / "cell.json").read_bytes())
        assert cell["seconds_to_target"] == (min(reached) if reached else None)
        assert lines[-1]["fused_validation_accuracy"] == cell["validation_accuracy"]
    assert any(
        json.loads(path.read_bytes())["seconds_to_target"]
        for path in directory.glob("cells/*/*/*/c*.json")
    )


def test_a_timed_budget_keeps_its_calibration(make, monkeypatch):
    monkeypatch.setattr(calibration, "SECONDS", 0.05)
    job = make(contestants=["one_rank", "synchronous"], budget="wall_clock", amount=0.05, seeds=1)
    directory = run(job)
    paces = on_root(
        COMM, lambda: {p: p.read_bytes() for p in directory.glob("cells/*/*/*/pace.json")}
    )
    assert len(paces) == min(2, COMM.size)
    run(
        make(contestants=["one_rank", "synchronous"], budget="wall_clock", amount=0.05), resume=True
    )
    assert {path: path.read_bytes() for path in paces} == paces
    steps = {
        (cell["contestant"], cell["job"]["training"]["max_steps"])
        for cell in cells(directory).values()
    }
    assert len(steps) == len(paces)


def test_each_seed_draws_its_own_validation_images(make, apart):
    job = make(contestants=["one_rank"], redraw_validation=True)
    directory = run(job)
    drawn = [outputs(directory, f"one_rank/ranks_1/seed_{seed}") for seed in (1, 2)]
    fixed = [outputs(apart, f"one_rank/ranks_1/seed_{seed}") for seed in (1, 2)]
    assert np.array_equal(drawn[0].test.labels, drawn[1].test.labels)
    assert np.array_equal(fixed[0].validation.labels, fixed[1].validation.labels)
    assert not np.array_equal(drawn[0].validation.labels, drawn[1].validation.labels)
    assert (
        whole(run(make("beside", contestants=["one_rank"], redraw_validation=True), pack=True))[1]
        == whole(directory)[1]
    )


def test_one_cell_is_run_beside_others(make):
    job = make(contestants=["one_rank"], seeds=3)
    directory = run(job, cell=1)
    run(job, cell=0)
    assert list(cells(directory)) == ["one_rank/ranks_1/seed_1", "one_rank/ranks_1/seed_2"]
    with pytest.raises(EnsyncError, match="earlier results"):
        run(job, cell=1)
    with pytest.raises(EnsyncError, match="--cell 3; expected a number from 0 to 2"):
        run(job, cell=3)
    run(job, resume=True)
    assert len(cells(directory)) == 3


def test_nothing_is_held_after_a_study(make):
    directory = run(make(contestants=["one_rank"], seeds=1))
    COMM.Barrier()
    assert not list(directory.rglob("*lock.json*"))


@pytest.mark.parametrize("pack", [True, False], ids=["packed", "in turn"])
def test_a_signal_to_one_rank_stops_the_cells_of_all(make, monkeypatch, pack):
    """Also those that sum nothing with it, and where it waits for others meanwhile."""
    begun, last = [], COMM.rank == COMM.size - 1

    def endless(cell, around):
        begun.append(cell.name)
        signal(around.study.stop_request)
        while not around.study.stop_request():
            pass
        raise Stopped("stopped", "", "go on", 75)

    def signal(stop_request):
        if last and not stop_request.number:
            stop_request.receive(15, None)

    def wait(self):
        signal(self.stop_request)
        self.stop_request()

    monkeypatch.setattr(stage, "run_cell", endless)
    monkeypatch.setattr(stage.Stage, "_wait", wait)
    with pytest.raises(Stopped):
        run(make("asked", contestants=["one_rank"], seeds=2 * COMM.size), pack=pack)
    assert len(begun) == (1 if pack or COMM.rank == 0 else 0)
