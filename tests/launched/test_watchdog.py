"""A job in which nobody gets on is ended within seconds of the limit, with one report of who
waits for whom; one that gets on is not.
"""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from launched import launch
from launched.processes import kill_all, rank_processes, wait_until

from ensync.mpi.watchdog import EXIT_CODE

pytestmark = [
    pytest.mark.mpi_skip,
    pytest.mark.timeout(150),
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="states of processes are in /proc"),
]

PROGRAM = str(Path(__file__).parent / "standstills.py")
LIMIT = 2
CLOCK = r"since \d\d:\d\d:\d\d \(\d+ s\)"


def run(case, ranks, *more):
    ended = launch.run(ranks, PROGRAM, case, str(LIMIT), *more, limit=40)
    assert not ended.timed_out and "Traceback" not in ended.err, ended
    return ended


def report(ended):
    """The one report of a job that the watchdog ended."""
    assert ended.code == EXIT_CODE and ended.seconds < LIMIT + 15, ended
    assert ended.err.count("expected some rank to get on within training.watchdog = 2 s; ") == 1, (
        ended.err
    )
    assert "`ensync resume runs/x`" in ended.err
    return ended.err


@pytest.mark.parametrize(
    ("case", "waits", "state"),
    [
        ("stopped", "the gradient sum of step 11", " is stopped by a signal and"),
        (
            "stopped, others in MPI",
            "a sum for batch normalisation of step 11",
            " is stopped by a signal and",
        ),
        ("loops", "the gradient sum of step 11", ""),
    ],
)
@pytest.mark.parametrize("ranks", [2, 4])
def test_a_rank_that_does_not_come_is_named_with_what_it_did(case, waits, state, ranks):
    others = "rank 0 waits" if ranks == 2 else "ranks 0, 2, 3 wait"
    told = report(run(case, ranks))
    assert re.search(
        rf"{others} in {waits} {CLOCK}; rank 1 on \S+ \(process \d+\){state} was last in reading "
        rf"the data {CLOCK}; expected",
        told,
    ), told


def test_rank_0_and_ranks_that_have_left_are_named_too():
    assert re.search(
        rf"ranks 1, 2 wait in what rank 0 does for all {CLOCK}; rank 0 on \S+ \(process \d+\) is "
        r"stopped by a signal",
        report(run("root stopped", 3)),
    )
    assert re.search(
        rf"rank 1 on \S+ \(process \d+\) was last in leaving {CLOCK}", report(run("others left", 3))
    )


def test_a_rank_that_leaves_with_0_ends_the_job():
    ended = run("leaves with 0", 3)
    assert ended.seconds < 10
    if (
        launch.library() == "Open MPI"
    ):  # MPICH's mpirun ends the others at once, and calls that a success
        assert ended.code != 0


def test_a_dead_rank_that_the_launcher_puts_up_with_is_seen_long_before_the_limit():
    if launch.library() == "Open MPI":
        pytest.skip("the launcher of Open MPI always ends the others")
    # Where MPICH's launcher sees a signal's death itself, it at times ends the others after all; a
    # shell around each rank hides it.
    ended = launch.run(
        3,
        PROGRAM,
        "killed",
        "60",
        limit=30,
        flags=["-disable-auto-cleanup"],
        through=["sh", "-c", '"$0" "$@"; exit $?'],
    )
    assert ended.code != 0 and ended.seconds < 15, ended
    # having told the same themselves
    others = (
        r"(; rank \d on \S+ \(process \d+\) is gone and was last in the gradient sum of "
        rf"step 11 {CLOCK})*"
    )
    assert re.search(
        r"rank 1 on \S+ \(process \d+\) is gone and was last in reading the data "
        rf"{CLOCK}{others}; expected all ranks",
        ended.err,
    ), ended


def test_the_other_nodes_are_asked():
    """Ranks 1 and 3 as if on another node; then that node falls silent altogether."""
    told = report(run("stopped", 4, "nodes"))
    assert re.search(
        rf"ranks 0, 2, 3 wait in the gradient sum of step 11 {CLOCK}; rank 1 on \S+ \(process "
        r"\d+\) is stopped by a signal and was last in reading the data",
        told,
    ), told
    told = report(run("stopped", 2, "nodes"))
    assert re.search(
        rf"rank 0 waits in the gradient sum of step 11 {CLOCK}; rank 1 on \S+ \(process \d+\) "
        r"does not answer any more; expected",
        told,
    ), told


@pytest.mark.parametrize("more", [[], ["nodes"]])
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_job_in_which_one_rank_gets_on_is_left_alone(ranks, more):
    ended = run("works", ranks, *more)
    assert (ended.code, ended.err) == (0, "") and ended.seconds > 3 * LIMIT


@pytest.mark.parametrize("more", [[], ["nodes"]])
def test_compiling_kernels_may_take_any_time(more):
    ended = run("compiles", 2, *more)
    assert (ended.code, ended.err) == (0, "") and ended.seconds > 3 * LIMIT


def test_a_job_that_was_suspended_goes_on():
    process = launch.start(2, PROGRAM, "suspended", str(LIMIT))
    try:
        assert process.stdout.readline() == "ready\n"
        ranks = rank_processes(process.pid).values()
        for number, seconds in ((signal.SIGSTOP, 1.5 * LIMIT), (signal.SIGCONT, 0)):
            for pid in ranks:
                os.kill(pid, number)
            time.sleep(seconds)
        _, err = process.communicate(timeout=40)
        assert (process.returncode, err) == (0, "")
    finally:
        kill_all(process.pid)
        launch.stop(process)


HUNG = """
import os, sys, time
from mpi4py import MPI
from ensync.__main__ import main
fsync, count = os.fsync, iter(range(100))
def hang(descriptor):
    if "checkpoint-" in os.readlink(f"/proc/self/fd/{descriptor}") and next(count) == 2:
        time.sleep(100)
    fsync(descriptor)
os.fsync = hang
main()
"""


def test_a_checkpoint_on_a_file_system_that_hangs_is_named_as_the_operation(place):
    end = launch.run(
        2,
        "-c",
        HUNG,
        "train",
        "job.toml",
        "--set",
        "training.watchdog=8",
        "--set",
        "training.epochs=5",
        limit=60,
        cwd=place.directory,
    )
    assert not end.timed_out and end.code == EXIT_CODE, end
    assert re.search(
        rf"rank 1 waits in what rank 0 does for all {CLOCK}; rank 0 on \S+ \(process \d+\) was "
        rf"last in writing a checkpoint {CLOCK}",
        end.err,
    ), end.err
    assert (
        "`ensync resume runs/job`" in end.err
        and len([n for n in place.checkpoints() if not n.startswith(".")]) == 2
    )


def test_a_stopped_rank_ends_a_run_that_then_resumes(place):
    process = place.start(
        3, "train", "job.toml", "--set", "training.watchdog=8", "--set", "training.epochs=4000"
    )
    try:
        wait_until(lambda: any((place / "runs/job/checkpoints").glob("checkpoint-*")), 60)
        os.kill(rank_processes(process.pid)[2], signal.SIGSTOP)
        begun = time.monotonic()
        _, err = process.communicate(timeout=40)
        assert process.returncode == EXIT_CODE and 7 < time.monotonic() - begun < 20, err
        assert re.search(
            r"rank 2 on \S+ \(process \d+\) is stopped by a signal and was last in ", err
        ), err
    finally:
        kill_all(process.pid)
        launch.stop(process)
    epochs = place.history()[-1]["epoch"]
    place.done(
        3,
        "resume",
        "runs/job",
        "--set",
        f"training.epochs={epochs + 1}",
        "--set",
        "training.watchdog=0",
    )
