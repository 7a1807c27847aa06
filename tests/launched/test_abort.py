"""A rank that fails ends the job within seconds, with its number, node and reason once; each
case on real mpirun.
"""

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from launched import launch

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(90)]

PROGRAM = str(Path(__file__).parent / "failures.py")
SENTENCE = "training.epochs = -3; expected at least 1; change it in the job file."


def run(case, ranks=2):
    ended = launch.run(ranks, PROGRAM, case, limit=20)
    assert not ended.timed_out and ended.seconds < 10, ended
    return ended


def test_nothing_is_said_when_nothing_fails():
    ended = run("fine", 3)
    assert (ended.code, ended.out, ended.err) == (0, "", "")


@pytest.mark.parametrize(
    ("case", "ranks"),
    [
        ("bug on one rank", 2),
        ("bug on one rank", 4),
        ("bug on one rank, others in MPI", 2),
        ("bug on one rank, others asleep", 3),
        ("bug on one stage", 3),
    ],
)
def test_a_bug_on_one_rank_is_told_once_with_rank_node_and_traceback(case, ranks):
    ended = run(case, ranks)
    assert ended.code == 1
    assert ended.err.count(f"[rank 1 of {ranks} on {socket.gethostname()}] Traceback") == 1
    assert ended.err.count("Traceback") == ended.err.count("ValueError: boom") == 1
    assert "abort.py" not in ended.err.partition("ValueError")[0]


@pytest.mark.parametrize(
    "case",
    [
        "bug on all ranks",
        "bug on the root",
        "bug on one rank, others finished",
        "bug on all but the root",
    ],
)
def test_a_bug_on_several_ranks_is_told_once(case):
    ended = run(case, 3)
    assert ended.code == 1
    assert ended.err.count("ValueError: boom\n") == 1


def test_a_mistake_on_one_rank_is_a_sentence_with_its_rank():
    ended = run("mistake on one rank", 3)
    assert ended.code == 2
    assert (
        ended.err.count(f"[rank 1 of 3 on {socket.gethostname()}] {SENTENCE}") == 1
        and "Traceback" not in ended.err
    )


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize(
    "case", ["mistake on all ranks", "mistake on the root", "mistake of the filling rank"]
)
def test_a_mistake_of_the_whole_job_is_one_sentence_and_code_2(case, ranks):
    ended = run(case, ranks)
    assert ended.code == 2 and ended.out == ""
    assert ended.err.startswith(SENTENCE + "\n") and ended.err.count("training.epochs") == 1
    assert "abort" not in ended.err.lower() or launch.library() == "Open MPI"


@pytest.mark.parametrize("case", ["killed", "killed stage", "terminated", "leaves without a word"])
def test_a_rank_that_dies_ends_the_job(case):
    assert run(case, 3).code != 0


def test_an_interrupted_rank_says_so():
    ended = run("interrupted rank")
    assert (
        ended.code == 130
        and "[rank 1 of 2" in ended.err
        and "interrupted" in ended.err
        and "Traceback" not in ended.err
    )


def test_exit_codes_arrive():
    assert run("exit 0 on all ranks").code == 0
    assert run("exit 3 on all ranks").code == 3
    alone = run("exit 3 on one rank")
    assert (
        alone.code == 3
        and alone.err.count("[rank 1 of 2") == 1
        and "left with exit code 3" in alone.err
    )
    words = run("exit with words")
    assert words.code == 1 and words.err.startswith("enough\n") and words.err.count("enough") == 1


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="no /dev/shm")
def test_an_aborted_job_leaves_no_shared_memory():
    ended = run("bug on one rank, which tells its memory", 3)
    segments = ended.out.split()
    assert ended.code == 1 and segments and not [name for name in segments if os.path.exists(name)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_mpirun_ends_all_ranks(number):
    process = launch.start(2, PROGRAM, "wait")
    try:
        assert process.stdout.readline() == "ready\n"
        begin = time.monotonic()
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=20)
        assert time.monotonic() - begin < 10 and process.returncode != 0 and "Traceback" not in err
    finally:
        launch.stop(process)
