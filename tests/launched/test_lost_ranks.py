"""A rank that dies costs an ensemble its member, not the run: the others go on where the MPI
can, and the files serve in any case.
"""

import os
import signal
import sys

import pytest
from launched import launch
from launched.processes import kill_all, rank_processes, wait_until
from PIL import Image

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(200)]

ENSEMBLE = [
    "--set",
    "training.strategy=ensemble",
    "--set",
    "training.epochs=6",
    "--set",
    "ensemble.data=full",
]
MORTAL = f"""
import os, signal, sys
from mpi4py import MPI
from ensync.__main__ import main
from ensync.training.runners import MiniBatchRunner

sys.path[:0] = {sys.path!r}
run, deaths = MiniBatchRunner.run, dict(DEATHS)   # rank: its last step
def mortal(runner, *step):
    if deaths.get(MPI.COMM_WORLD.rank) == runner.replica.optimizer.steps:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(runner, *step)
MiniBatchRunner.run = mortal
main()
"""


@pytest.fixture
def mortal(place):
    """Train on four ranks under ULFM, some of which die; return how it ended."""
    if launch.library() != "Open MPI":
        pytest.skip(
            "MPICH's launcher ends all ranks when one dies: going on needs ULFM, as Open MPI has it"
        )

    def run(deaths, *arguments, verb="train", ranks=4):
        words = (
            ["train", "job.toml", *ENSEMBLE, *arguments] if verb == "train" else [verb, *arguments]
        )
        program = MORTAL.replace("DEATHS", repr(deaths))
        return launch.run(
            ranks, "-c", program, *words, flags=["--with-ft", "ulfm"], limit=60, cwd=place.directory
        )

    return run


def fused(place, name="result.json"):
    result = place.result(name=name)
    return result["excluded"], len([a for a in result["members"] if a is not None])


# Of 7 steps an epoch: a death before the first checkpoint, two at once, one after the other, one in
# the last epoch.
@pytest.mark.parametrize("deaths", [{2: 3}, {0: 20, 1: 20}, {3: 12, 0: 30}, {1: 40}])
def test_the_others_go_on_and_are_fused(place, mortal, deaths):
    ended = mortal(deaths)
    assert ended.code == 0 and "Traceback" not in ended.err, ended
    excluded, present = fused(place)
    assert sorted(excluded) == sorted(map(str, deaths)) and present == 4 - len(deaths)
    for rank in deaths:
        assert (
            excluded[str(rank)].startswith("lost with rank ")
            and f"rank {rank} on " in excluded[str(rank)]
        )
        assert ended.out.count(f"warning: member {rank} is left out: lost with ") == 1
    assert (
        ended.out.count(" died, and with that ") in range(1, len(deaths) + 1)
        and f"of {present} members: " in ended.out
    )
    epochs = [(r["epoch"], r["member"]) for r in place.history()]
    assert len(set(epochs)) == len(epochs) and {
        (e, m) for e in range(1, 7) for m in range(4) if m not in deaths
    } <= set(epochs)


def test_a_later_resume_trains_the_lost_members_to_the_end(place, mortal):
    """To the bits of a run in which nobody died, since no member of an ensemble knows of the
    others.
    """
    whole = place.done(4, "train", "job.toml", *ENSEMBLE, "--set", "output.directory=runs/whole")
    assert mortal({2: 20, 0: 30}).code == 0
    assert "is left out: lost with " in place.done(1, "fuse", "runs/job", "--method", "soft_voting")
    Image.new("L", (8, 8)).save(place.directory / "black.png")
    assert "is left out: lost with " in place.done(1, "predict", "runs/job", "black.png")
    place.done(3, "resume", "runs/job")
    assert (
        place.result()["test"] == place.result("runs/whole")["test"]
        and place.result()["members"] == place.result("runs/whole")["members"]
    )
    assert "soft voting of 4 members" in whole


@pytest.mark.parametrize(
    "settings",
    [
        ["training.strategy=synchronous"],
        ["ensemble.members=2"],
        ["ensemble.start=synchronous", "ensemble.synchronous_epochs=3"],
    ],
)
def test_where_ranks_train_a_network_together_the_job_ends(place, mortal, settings):
    ended = mortal({2: 20}, *(word for setting in settings for word in ("--set", setting)))
    assert (
        ended.code != 0
        and not ended.timed_out
        and ended.seconds < 20
        and "Traceback" not in ended.err
    ), ended
    place.done(4, "resume", "runs/job")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds ranks in /proc")
def test_without_help_of_the_mpi_the_files_are_fused(place):
    """The job ends; every member is in the newest checkpoint, at most an epoch old."""
    words = [
        "train",
        "job.toml",
        *ENSEMBLE[:2],
        "--set",
        "training.epochs=4000",
        "--set",
        "ensemble.data=full",
    ]
    process = place.start(3, *words)
    try:
        wait_until(lambda: any((place / "runs/job/checkpoints").glob("checkpoint-*")), 60)
        os.kill(rank_processes(process.pid)[1], signal.SIGKILL)
        process.communicate(timeout=10)
        assert process.returncode != 0
    finally:
        kill_all(process.pid)
        launch.stop(process)
    epochs = place.history()[-1]["epoch"]
    out = place.done(2, "fuse", "runs/job", "--method", "hard_voting")
    assert (
        "hard voting of 3 members" in out
        and "of 4,000 epochs; `ensync resume runs/job` goes on" in out
    )
    assert fused(place, "fusion.json") == ({}, 3) and int(
        out.split("this is the state after ")[1].split()[0]
    ) in (epochs, epochs - 1)
