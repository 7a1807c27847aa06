"""A study that is killed or stopped at any moment ends, started again, with the same numbers."""

import os
import random
import signal
import time

import pytest
from launched.processes import kill_all, rank_processes, wait_until
from runs.study.files import results_in

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(400)]

STUDY = """
[study]
seeds = 2
contestants = ["one_rank", "ensemble_shards", "shared_start"]
"""
# long enough to be hit in the middle: some hundred steps, a checkpoint every three
LONG = ["--set", "training.epochs=12", "--set", "checkpoint.every_steps=3"]


@pytest.fixture(scope="module")
def place(shared_place):
    text = (shared_place / "job.toml").read_text()
    (shared_place / "study.toml").write_text(text + STUDY)
    shared_place.done(2, "compare", "study.toml", *LONG, *into("whole"), limit=120)
    return shared_place


def into(name):
    return ["--set", f"output.directory=runs/{name}"]


def began(directory):
    """Return how many cells have a checkpoint or a result."""
    return len(
        {
            path.parents[1 if path.suffix == ".h5" else 0]
            for path in directory.rglob("c*")
            if path.is_file()
        }
    )


def begin(place, name, *options, after=0):
    """Start a study or go on with it, and wait until another cell is at work."""
    before = began(place / f"runs/{name}")
    process = place.start(2, "compare", "study.toml", *LONG, *into(name), *options)
    wait_until(
        lambda: began(place / f"runs/{name}") > before + after or process.poll() is not None, 60
    )
    return process


def test_a_study_killed_again_and_again_ends_with_the_same_numbers(place):
    choose = random.Random(7)
    for start in range(3):
        process = begin(place, "killed", *["--resume"] * (start > 0))
        time.sleep(choose.uniform(0, 0.4))
        kill_all(process.pid)
        process.communicate()
    said = place.done(2, "compare", "study.toml", *LONG, *into("killed"), "--resume", limit=120)
    assert results_in(place / "runs/killed") == results_in(place / "runs/whole")
    assert "6/6" in said
    left = [path.name for path in (place / "runs/killed").rglob(".*") if path.suffix != ".tmp"]
    assert not left


@pytest.mark.parametrize("options", [[], ["--pack"]], ids=["in turn", "packed"])
def test_a_signal_to_one_rank_stops_all_with_a_sentence(place, options):
    name = f"stopped{len(options)}"
    process = begin(place, name, *options)
    os.kill(rank_processes(process.pid)[1], signal.SIGUSR1)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        kill_all(process.pid)
    assert process.returncode == 75, (out, err)
    assert "`ensync compare --resume`" in err and "stopped by SIGUSR1" in err
