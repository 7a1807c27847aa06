"""The plan of a study: its cells in order, their lengths, what is left out, what is refused."""

from dataclasses import replace

import numpy as np
import pytest

from ensync.core.config.communication import Communication
from ensync.core.config.job import dump_job, job_from_dict, load_job
from ensync.core.config.study import BUDGETS, CONTESTANTS
from ensync.core.errors import EnsyncError
from ensync.core.sharding import steps_per_epoch
from ensync.runs.options import StudyOptions
from ensync.runs.study.cells import Facts, Known, Pace
from ensync.runs.study.planning import FACTORS, plan
from ensync.runs.study.widths import parameters
from ensync.strategies import strategy_of

FACTS = Facts(1437, 180, 180, (8, 8, 1), 10)
ALL = list(CONTESTANTS)


def job_of(study, **sections):
    tables = {
        "data": {"path": "d.h5"},
        "output": {"directory": "runs/x"},
        "network": {"hidden": [24, 16]},
        **sections,
    }
    return job_from_dict({**tables, "study": study})


def planned(study, launched=4, known=None, facts=FACTS, **sections):
    return plan(job_of(study, **sections), launched, facts, known or Known())


def samples_of(job, ranks, facts):
    """Return the samples that each network trains on, and those that they share, by walking
    through all steps.
    """
    strategy, labels = strategy_of(job), np.arange(facts.train) % facts.classes
    members, batch, training = strategy.members(ranks), job.training.batch, job.training
    before, common = (0, 0), 0  # steps and samples before members part, and epochs
    if training.strategy == "ensemble" and job.ensemble.start == "synchronous":
        common = job.ensemble.synchronous_epochs
        before = (common * steps_per_epoch(facts.train, batch), common * facts.train)
    found = []
    for member in range(members):
        rows = len(strategy.rows(labels, members, member))
        size = min(batch, rows)
        per_epoch = steps_per_epoch(rows, size)
        steps = (training.epochs - common) * per_epoch
        if training.max_steps:
            steps = training.max_steps - before[0]
        found.append(steps // per_epoch * rows + min(rows, steps % per_epoch * size))
    return found, before[1]


@pytest.mark.parametrize("budget", ["samples", "samples_per_network", "target", "inference"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("batch,epochs", [(32, 3), (100, 8), (1, 2), (13, 5)])
def test_samples_are_those_of_the_budget(budget, ranks, batch, epochs):
    """For rank counts that divide neither rows nor epochs, to within a step of each network."""
    own = {"start": {"base": "shared_start", "set": ["ensemble.data=full"]}}
    study = {"budget": budget, "contestants": ALL, "own": own}
    study["amount"] = 0.9 if budget == "target" else 0.0
    found = planned({**study, "seeds": 1}, ranks, training={"batch": batch, "epochs": epochs})
    wanted = epochs * FACTS.train
    assert len({cell.contestant for cell in found.cells}) >= (1 if ranks == 1 else 6)
    for cell in found.cells:
        each, common = samples_of(cell.job, cell.ranks, FACTS)
        step = min(cell.job.training.batch, max(each))
        if budget == "samples_per_network":
            # shards differ by a row, in each of their epochs
            near = step + epochs * ranks
            assert all(abs(own + common - wanted) <= near for own in each), cell
        else:
            assert abs(sum(each) + common - wanted) <= step * len(each), cell


@pytest.mark.parametrize("ranks", [2, 3, 7])
@pytest.mark.parametrize("epochs", [5, 11])
def test_growing_batches_count_as_they_grow(ranks, epochs):
    """Of members on all rows, step by step: 32 rows, from the third epoch 64, then 128."""
    growth = {"every_epochs": 2, "batch": 2, "largest_batch": 128}
    study = {"contestants": ["ensemble_full"], "seeds": 1}
    found = planned(study, ranks, growth=growth, training={"batch": 32, "epochs": epochs})
    steps, samples, epoch = found.cells[0].job.training.max_steps, 0, 0
    while steps:
        batch = 32 * 2 ** min(epoch // 2, 2)
        done = min(steps, steps_per_epoch(FACTS.train, batch))
        samples += min(FACTS.train, done * batch)
        steps, epoch = steps - done, epoch + 1
    assert abs(ranks * samples - epochs * FACTS.train) <= ranks * 128 / 2


def test_whole_epochs_are_exact():
    found = planned({"contestants": ALL, "seeds": 1}, training={"epochs": 8})
    lengths = {c.contestant: (c.job.training.epochs, c.job.training.max_steps) for c in found.cells}
    assert lengths == {name: (8, 0) for name in ALL} | {
        "ensemble_full": (2, 0),
        "ensemble_bootstrap": (2, 0),
    }
    shared = next(c.job for c in found.cells if c.contestant == "shared_start")
    assert shared.ensemble.synchronous_epochs == 2 and shared.fusion.method == "weight_averaging"


def test_cells_come_seed_by_seed_each_in_a_directory_of_its_own():
    study = {"seeds": 2, "ranks": [1, 2], "contestants": ["one_rank", "ensemble_full"]}
    found = planned(study, training={"seed": 7})
    assert [cell.name for cell in found.cells] == [
        "one_rank/ranks_1/seed_7",
        "ensemble_full/ranks_2/seed_7",
        "one_rank/ranks_1/seed_8",
        "ensemble_full/ranks_2/seed_8",
    ]
    for cell in found.cells:
        assert str(cell.directory) == f"runs/x/cells/{cell.name}"
        assert cell.job.training.seed == cell.seed and cell.job.study is None
        assert "study" not in dump_job(cell.job)
    more = planned({**study, "seeds": 3}, training={"seed": 7})
    assert more.cells[:4] == found.cells


def test_each_seed_may_have_its_own_validation_images():
    study = {"seeds": 2, "contestants": ["one_rank", "ensemble_full"], "redraw_validation": True}
    found = planned(study, training={"seed": 7})
    assert [cell.job.data.validation_seed for cell in found.cells] == [7, 7, 8, 8]
    plain = planned({**study, "redraw_validation": False})
    assert {cell.job.data.validation_seed for cell in plain.cells} == {0}


def test_what_is_the_same_or_cannot_work_is_named():
    found = planned({"ranks": [1], "contestants": ALL})
    assert found.left_out == [
        "synchronous on 1 rank: the same as one_rank",
        "synchronous_grown on 1 rank: the same as one_rank",
        "ensemble_shards on 1 rank: one network is no ensemble",
        "ensemble_full on 1 rank: one network is no ensemble",
        "ensemble_bootstrap on 1 rank: one network is no ensemble",
        "shared_start on 1 rank: one network is no ensemble",
        "larger_network on 1 rank: the same as one_rank",
        "local_sgd on 1 rank: the same as one_rank",
        "parameter_server on 1 rank: a server of parameters serves other ranks",
    ]
    own = {"many": {"base": "one_rank", "set": ["training.strategy=ensemble"]}}
    found = planned({"ranks": [2, 4], "contestants": ["one_rank"], "own": own})
    assert found.left_out == ["many on 1 rank: one network is no ensemble"]
    only = {"ranks": [1], "contestants": ["synchronous", "synchronous_grown"]}
    assert {cell.contestant for cell in planned(only).cells} == {"synchronous"}


def test_only_those_that_say_so_are_trained_apart():
    """Whatever the job says, which is for local_sgd."""
    own = {"local_64": {"base": "synchronous", "set": ["communication.every=64"]}}
    study = {"contestants": ALL, "own": own, "seeds": 1, "ranks": [3]}
    for given, every in (({}, 16), ({"every": 5, "start": 7}, 5)):
        jobs = {c.contestant: c.job for c in planned(study, communication=given).cells}
        assert jobs.keys() == {*ALL, "local_64"}
        apart = {name: job.communication.every for name, job in jobs.items()}
        assert {k: v for k, v in apart.items() if v != 1} == {"local_sgd": every, "local_64": 64}
        assert jobs["local_sgd"].communication.start == given.get("start", 0)
        assert jobs["local_64"].communication.start == 0


@pytest.mark.parametrize(
    "given",
    [
        {"every": 4, "growth": 0.02},
        {"every": "never", "start_accuracy": 0.9},
        {"partners": "butterfly"},
        {"partners": "ring", "every": 2, "start": 10},
    ],
    ids=str,
)
def test_each_way_to_meet_is_a_contestant_of_ones_own(given):
    """With these settings and no others of the job's, or with those of the job as local_sgd."""
    settings = [f"communication.{name}={value}" for name, value in given.items()]
    study = {
        "contestants": ["synchronous", "local_sgd"],
        "own": {"other": {"base": "synchronous", "set": settings}},
        "seeds": 1,
        "ranks": [3],
    }
    found = {c.contestant: c.job for c in planned(study, communication={"every": 9}).cells}
    assert found["other"].communication == Communication(**given)
    found = {c.contestant: c.job for c in planned(study, communication=given).cells}
    assert found["local_sgd"].communication == found["other"].communication
    assert not found["synchronous"].communication.is_local


@pytest.mark.parametrize(
    "name,sections,words",
    [
        ("local_sgd", {"training": {"deterministic": True}}, "training.deterministic = true with"),
        ("synchronous_grown", {"training": {"batch": "full"}}, "'full' cannot grow"),
        ("synchronous_grown", {"training": {"batch": 400}}, "400 x 4 is more than the 1,437"),
        ("shared_start", {"training": {"epochs": 1}}, "leaves nothing"),
        ("ensemble_shards", {"ensemble": {"members": 1438}}, "cannot share 1,437"),
        ("larger_network", {"network": {"name": "resnet"}}, "'resnet' has no setting"),
        (
            "synchronous",
            {"training": {"deterministic": True, "virtual_shards": 2}},
            "4 ranks for one network are more than the 2",
        ),
    ],
)
def test_a_contestant_that_cannot_work_is_left_out(name, sections, words):
    found = planned({"contestants": ["one_rank", name]}, **sections)
    assert {cell.contestant for cell in found.cells} == {"one_rank"}
    assert len(found.left_out) == 1 and words in found.left_out[0]


def test_the_grown_batch_has_grown_rates():
    groups = [{"parameters": "*weights", "learning_rate": 0.5}, {"parameters": "x", "factor": 2}]
    optimizer = {"name": "sgd", "learning_rate": 0.1, "groups": groups}
    found = planned(
        {"contestants": ["synchronous_grown"]}, optimizer=optimizer, training={"batch": 10}
    )
    job = found.cells[0].job
    assert (job.training.batch, job.optimizer.learning_rate) == (40, 0.4)
    assert [g.learning_rate for g in job.optimizer.groups] == [2.0, None]


def test_members_need_not_be_as_many_as_ranks():
    found = planned({"contestants": ["ensemble_full"]}, 1, ensemble={"members": 5})
    assert strategy_of(found.cells[0].job).members(1) == 5


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_sizes_are_those_of_the_budget(ranks):
    """As many parameters as an ensemble has, or ensembles of as many as one network."""
    network = {"hidden": [60, 40]}
    for budget in ("samples", "inference"):
        study = {"contestants": ALL, "budget": budget, "seeds": 1}
        found = planned(study, ranks, network=network)
        sizes = {cell.contestant: parameters(cell.job, FACTS) for cell in found.cells}
        one = sizes["one_rank"]
        if budget == "samples":
            assert sizes.pop("larger_network") == pytest.approx(ranks * one, rel=0.02)
            assert set(sizes.values()) == {one}
            continue
        assert "larger_network" not in sizes and "excludes" in found.left_out[-1]
        for name in ("ensemble_shards", "ensemble_full", "ensemble_bootstrap", "shared_start"):
            assert ranks * sizes.pop(name) == pytest.approx(one, rel=0.05)
        assert set(sizes.values()) == {one}


def test_an_ensemble_that_cannot_be_smaller_is_left_out():
    found = planned({"budget": "inference"}, network={"name": "resnet"})
    assert {cell.contestant for cell in found.cells} == {
        *("one_rank", "synchronous", "synchronous_grown")
    }
    assert sum("'resnet' has no setting" in line for line in found.left_out) == 3


def test_own_contestants_differ_as_they_say():
    own = {
        "wide": {"base": "ensemble_full", "set": ["network.hidden=[512]", "training.batch=16"]},
        "few": {"base": "one_rank", "set": ["network.hidden=[4]"], "label": "a small one"},
    }
    found = planned({"contestants": ["ensemble_full"], "own": own, "seeds": 1})
    plain, wide, few = found.cells
    assert (wide.job.network.hidden, wide.job.training.batch) == ([512], 16)
    assert wide.job.training.max_steps == pytest.approx(4 * plain.job.training.max_steps, abs=4)
    assert (few.ranks, few.label, few.job.network.hidden) == (1, "a small one", [4])


def test_values_of_a_setting_differ_in_it_alone():
    """All else is as in the job, also what other contestants leave out."""
    meetings = {"outer_learning_rate": 0.7, "average_optimizer": True}
    study = {"over": "communication.every=4,64", "seeds": 1}
    found = planned(study, communication={"every": 2, **meetings})
    assert [(c.name, c.job.communication.every) for c in found.cells] == [
        ("every_4/ranks_4/seed_1", 4),
        ("every_64/ranks_4/seed_1", 64),
    ]
    for cell in found.cells:
        plain = job_of(study, communication={"every": cell.job.communication.every, **meetings})
        assert cell.job.communication == plain.communication and cell.label.startswith("every = ")
        assert cell.job.training == plain.training and cell.job.optimizer == plain.optimizer


def test_values_on_the_command_line_take_the_place_of_contestants(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('data.path = "d.h5"\noutput.directory = "r"\nstudy.contestants = ["one_rank"]')
    values = ["every_1", "every_never"]
    for given, names in (({}, []), ({"contestants": "synchronous"}, ["synchronous"])):
        wanted = StudyOptions(over="communication.every=1,never", **given)
        assert load_job(path, wanted.overrides).study.names == [*names, *values]
    assert load_job(path, StudyOptions().overrides).study.names == ["one_rank"]


def test_values_without_effect_on_so_many_ranks_are_one():
    """A rank alone meets nobody, unless a meeting does more than to take the mean."""
    study = {"over": "communication.every=1,4,never", "seeds": 1, "ranks": [1, 2]}
    found = planned(study)
    assert [cell.name.rpartition("/")[0] for cell in found.cells] == [
        *("every_1/ranks_1", "every_1/ranks_2", "every_4/ranks_2", "every_never/ranks_2")
    ]
    assert found.left_out == [
        "every_4 on 1 rank: the same as every_1",
        "every_never on 1 rank: the same as every_1",
    ]
    apart = planned({**study, "ranks": [2]}, training={"strategy": "ensemble"})
    assert [cell.contestant for cell in apart.cells] == ["every_1"]
    outer = {"over": "communication.every=1,4", "seeds": 1, "ranks": [1]}
    assert len(planned(outer, communication={"outer_learning_rate": 0.7}).cells) == 2
    same = planned({"over": "optimizer.learning_rate=1,1.0", "seeds": 1})
    assert [cell.contestant for cell in same.cells] == ["learning_rate_1"]


REFUSED = [
    ({"over": "communication.evry=1,4"}, {}, ["study.over", "'every'", "correct study.over"]),
    ({"over": "communication.every=1,0"}, {}, ["communication.every = 0", "correct study.over"]),
    ({"over": "optimizer.momentum=0.5,0.9"}, {}, ["in study.over, where it has no effect"]),
    ({"over": "training.seed=1,2"}, {}, ["training.seed in study.over", "study gives"]),
    ({"ranks": [1, 8]}, {}, ["[1, 8] with 4 ranks launched", "mpirun -n 8"]),
    ({"contestants": ["one_rank"], "own": {"a": {"set": ["training.seed=3"]}}}, {}, ["seed"]),
    ({"own": {"a": {"set": ["training.epoch=3"]}}}, {}, ["study.own.a", "'epochs'"]),
    ({"own": {"a": {"set": ["output.directory=x"]}}}, {}, ["output.directory", "study gives"]),
    ({"own": {"a": {"set": ["nonsense"]}}}, {}, ["nonsense", "'set' of study.own.a"]),
    ({"own": {"a": {"set": ["optimizer.momentum=0.5"]}}}, {}, ["study.own.a", "no effect"]),
    (
        {"contestants": ["ensemble_full"]},
        {"training": {"batch": "full", "epochs": 1}},
        ["ensemble_full on 4 ranks", "less than half a step"],
    ),
    ({"contestants": ["larger_network"]}, {"network": {"name": "vgg"}}, ["nothing is left"]),
    ({}, {"training": {"max_steps": 9}}, ["training.max_steps = 9", "training.epochs"]),
    (
        {"budget": "wall_clock", "amount": 9},
        {"growth": {"every_epochs": 1}},
        ["growth.every_epochs = 1", "cost alike"],
    ),
]


@pytest.mark.parametrize("study,sections,words", REFUSED, ids=lambda x: str(x)[:40])
def test_it_is_refused_before_anything_is_trained(study, sections, words):
    for own in study.get("own", {}).values():
        own.setdefault("base", "synchronous")
    with pytest.raises(EnsyncError) as caught:
        planned(study, **sections)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "study,facts",
    [
        ({}, replace(FACTS, test=0)),
        ({"trials": 2}, replace(FACTS, validation=0)),
        ({"budget": "target", "amount": 0.9}, replace(FACTS, validation=0)),
    ],
)
def test_splits_must_be_there(study, facts):
    with pytest.raises(EnsyncError, match=r"without (test|validation) images"):
        planned(study, facts=facts)


def test_trials_come_first_and_decide_the_rates():
    study = {"trials": 3, "seeds": 2, "contestants": ["one_rank", "ensemble_shards"]}
    found = planned(study)
    assert [(c.contestant, c.trial) for c in found.cells] == [
        (name, k) for name in study["contestants"] for k in range(3)
    ]
    assert [c.job.optimizer.learning_rate for c in found.cells[:3]] == [
        1e-3 * factor for factor in FACTORS[:3]
    ]
    assert {cell.seed for cell in found.cells} == {1} and len(found.pending) == 4
    assert found.cells[1].name == "one_rank/ranks_1/trial_1"
    later = planned(study, known=Known(learning_rate_factor={("one_rank", 1): 2.0}))
    assert later.cells[:6] == found.cells
    assert [(c.name, c.job.optimizer.learning_rate) for c in later.cells[6:]] == [
        (f"one_rank/ranks_1/seed_{seed}", 2e-3) for seed in (1, 2)
    ]
    assert later.pending == [f"ensemble_shards/ranks_4/seed_{seed}" for seed in (1, 2)]


def paces(**step):
    return {
        (name, 1 if name == "one_rank" else 4): Pace(seconds, 0.5, 2)
        for name, seconds in step.items()
    }


def test_timed_budgets_wait_for_the_paces_and_then_fill_the_time():
    names = ["one_rank", "synchronous", "ensemble_shards", "ensemble_full", "shared_start"]
    study = {"budget": "wall_clock", "amount": 60.0, "contestants": names, "seeds": 1}
    found = planned(study)
    assert all(cell.calibration and cell.job.training.max_steps for cell in found.cells)
    assert [cell.contestant for cell in found.cells] == names[:4]
    assert found.cells[0].name == "one_rank/ranks_1/calibration"
    assert len(found.pending) == 5
    known = Known(paces(one_rank=0.08, synchronous=0.03, ensemble_shards=0.07, ensemble_full=0.11))
    later = planned(study, known=known)
    assert later.cells[:4] == found.cells and not later.pending
    for cell in later.cells[4:]:
        seconds, allowed = _seconds(cell, known)
        assert allowed < seconds <= 60.0, cell.contestant
    shared = later.cells[-1].job
    assert shared.ensemble.synchronous_epochs == round(15 / (23 * 0.03 + 0.5))


def _seconds(cell, known):
    """Return the seconds that a cell takes at the known paces, and those with a step and an end
    of an epoch less.
    """
    steps, rows = cell.job.training.max_steps, 1437
    if cell.contestant == "shared_start":
        first, pace = known.pace["synchronous", 4], known.pace["ensemble_shards", 4]
        epochs = cell.job.ensemble.synchronous_epochs
        spent = epochs * (23 * first.step + first.epoch_end)
        steps, rows = steps - epochs * 23, 360
    else:
        pace, spent = known.pace[cell.place], 0.0
        rows = 360 if cell.contestant == "ensemble_shards" else rows
    per_epoch = -(-rows // 64)
    spent += steps * pace.step + -(-steps // per_epoch) * pace.epoch_end
    return spent, 60 - 1.01 * (pace.step + pace.epoch_end)


def test_core_seconds_are_divided_by_the_cores():
    study = {"budget": "core_seconds", "amount": 60.0, "seeds": 1}
    study["contestants"] = ["one_rank", "synchronous"]
    known = Known(paces(one_rank=0.08, synchronous=0.04))
    alone, together = planned(study, known=known).cells[2:]
    # 2 threads a rank: 30 seconds for one rank, 7.5 for four
    assert alone.job.training.max_steps == 12 * 23 + int((30 - 12 * (23 * 0.08 + 0.5) - 0.5) / 0.08)
    assert together.job.training.max_steps == 5 * 23  # and no time for another validation


def test_too_little_time_is_refused():
    study = {"budget": "wall_clock", "amount": 0.1, "contestants": ["one_rank"]}
    with pytest.raises(EnsyncError, match="one_rank on 1 rank.*takes 0.2.*larger study.amount"):
        planned(study, known=Known(paces(one_rank=0.2)))


def test_every_budget_is_planned():
    assert set(BUDGETS) == {
        *("samples", "samples_per_network", "core_seconds", "wall_clock", "target", "inference")
    }
