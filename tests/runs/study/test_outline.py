"""What `ensync describe` says of a study; and that those of the project can be planned."""

from pathlib import Path

import pytest

from ensync.core.config.job import load_job
from ensync.runs.study.cells import Facts, Known
from ensync.runs.study.outline import outline
from ensync.runs.study.planning import plan
from ensync.strategies import strategy_of

STUDIES = sorted((Path(__file__).parents[3] / "jobs" / "studies").glob("*.toml"))
SHAPES = {
    "digits": (8, 8, 1),
    "fashion_mnist": (28, 28, 1),
    "fashion_mnist_cut": (28, 28, 1),
    "cifar_10": (32, 32, 3),
}


def facts_of(job):
    return Facts(54_000, 6_000, 10_000, SHAPES[Path(job.data.path).stem], 10)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_studies_of_the_project_train_what_they_list(path):
    job = load_job(path)
    launched = max(job.study.ranks or [2])
    found = plan(job, launched, facts_of(job), Known())
    assert found.cells and {name for name, _ in found.jobs} == set(job.study.names)
    assert all(line.split(" on ")[1].startswith("1 rank") for line in found.left_out)
    text = path.read_text()
    if job.study.ranks:
        assert f"mpirun -n {launched} ensync compare jobs/studies/{path.name}" in text


def test_a_study_is_described():
    overrides = ["study.ranks=[1,3]", "study.trials=2", "study.seeds=4", "training.epochs=9"]
    job = load_job(STUDIES[0].parent / "quickstart.toml", overrides)
    lines = outline(job, job.study, facts_of(job))
    counts = [
        strategy_of(each).members(ranks)
        for (_, ranks), each in plan(job, 3, facts_of(job), Known()).jobs.items()
    ]
    assert counts == [1, 1, 3, 3]
    assert lines[1].startswith("study of 24 runs: 4 seeds of each contestant on 1, 3 ranks, 2")
    assert "E = 9 epochs and D = 54,000" in lines[2]
    found = [" ".join(line.split()) for line in lines[4:]]
    assert found[:4] == [
        "synchronous 1 1 9 epochs 6,570",
        "synchronous 3 1 9 epochs 6,570",
        "ensemble on shards 3 3 9 epochs 6,570",
        "ensemble on all data 3 3 3 epochs 6,570",
    ]
    assert found[4] == "left out: ensemble_shards on 1 rank: one network is no ensemble"


def test_lengths_are_said_in_steps_or_left_to_the_pace():
    job = load_job(STUDIES[0].parent / "quickstart.toml", ["training.epochs=9"])
    # half of 9 epochs each: 4 of 1,688 steps, and 844
    assert "7,596 steps" in "\n".join(outline(job, job.study, facts_of(job)))
    timed = ["study.budget=wall_clock", "study.amount=5"]
    job = load_job(STUDIES[0].parent / "quickstart.toml", timed)
    lines = outline(job, job.study, facts_of(job))
    assert sum("as its pace allows" in line for line in lines) == 3 and "amount = 5" in lines[2]
