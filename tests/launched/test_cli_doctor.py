"""`ensync doctor` and `ensync collect` as a person types them."""

import json
import shutil

import pytest
from launched.commands import here

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(200)]


def done(place, *arguments):
    """What a command line printed in this process, as one rank; it must succeed in silence."""
    ended = here(place.directory, *arguments)
    assert (ended["code"], ended["err"]) == (0, ""), ended
    return ended["out"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_doctor_finds_all_that_a_job_needs(shared_place, ranks):
    words = ["doctor", "job.toml"]
    said = done(shared_place, *words) if ranks == 1 else shared_place.done(ranks, *words)
    lines = said.splitlines()
    assert [line.split()[1] for line in lines if line.split()[1] != "allreduce"] == [
        "MPI",
        "nodes",
        "cores",
        "kernels",
        "files",
        "memory",
    ]
    assert {line.split()[0] for line in lines} <= {"green", "yellow"} and all(
        line.endswith(".") for line in lines
    )
    assert f"{ranks} rank" in lines[0]


def test_the_doctor_says_what_is_wrong(shared_place):
    missing = shared_place.ensync(2, "doctor", "absent.toml")
    assert missing.code == 2 and missing.err.count("\n") == 1 and "absent.toml" in missing.err
    words = ["doctor", "job.toml", "--set", "output.directory=/proc/runs"]
    beside = here(shared_place.directory, *words)
    assert beside["code"] == 1 and "red     files" in beside["out"]


def test_runs_trained_apart_are_collected(shared_place):
    for ranks, rate in [(1, 0.01), (2, 0.02)]:
        directory = f"apart/learning_rate_{rate}"
        shared_place.done(
            ranks,
            "train",
            "job.toml",
            "--set",
            "training.epochs=2",
            "--set",
            f"optimizer.learning_rate={rate}",
            "--set",
            f"output.directory={directory}",
        )
        shutil.copytree(shared_place / directory, shared_place / f"apart/ranks_{ranks}")
    done(
        shared_place,
        "collect",
        "--over",
        "optimizer.learning_rate",
        "apart/learning_rate_0.01",
        "apart/learning_rate_0.02",
        "apart/learning_rate_lost",
    )
    assert [
        row["value"] for row in json.loads((shared_place / "apart/sweep.json").read_text())["rows"]
    ] == [0.01, 0.02]
    done(shared_place, "collect", "--over", "ranks", "apart/ranks_1", "apart/ranks_2")
    rows = json.loads((shared_place / "apart/scaling.json").read_text())["rows"]
    assert (
        [row["ranks"] for row in rows] == [1, 2]
        and rows[0]["speedup"] == 1
        and rows[1]["efficiency"] == pytest.approx(rows[1]["speedup"] / 2)
    )
    assert (shared_place / "apart/scaling.png").stat().st_size > 1000 and (
        shared_place / "apart/sweep.html"
    ).exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--over", "ranks", "nowhere"], "no result.json in nowhere"),
        (["--over", "optimizer.speed", "runs/one"], "--over optimizer.speed"),
        (["--over", "nonsense", "runs/one"], "--over nonsense"),
        (["--over", "ranks", "runs/one"], "ends in the number of ranks"),
        (["--over", "ranks", "runs/ranks_9"], "cannot be used"),
        (
            ["--over", "training.seed", "runs/one"],
            "runs/sweep.json is a sweep over 'training.batch'; expected none, or one over "
            "training.seed",
        ),
    ],
)
def test_what_cannot_be_collected(shared_place, arguments, sentence):
    if not (shared_place / "runs/one").exists():
        done(
            shared_place,
            "train",
            "job.toml",
            "--set",
            "training.epochs=1",
            "--set",
            "output.directory=runs/one",
        )
        (shared_place / "runs/ranks_9").mkdir()
        (shared_place / "runs/sweep.json").write_text('{"key": "training.batch"}')
        (shared_place / "runs/ranks_9/result.json").write_text(
            '{"format": "ensync-result", "version": 1, "seconds": null}'
        )
    refused = here(shared_place.directory, "collect", *arguments)
    assert refused["code"] == 2 and sentence in refused["err"]
    assert refused["err"].count("\n") == 1
