"""What the watchdog's report says of ranks, and what it knows of processes."""

import os
import re
import subprocess

import pytest

from ensync.core.activity import PHRASES, WIDTH, Doing
from ensync.mpi.notes import GONE, SILENT, Note, identity, standstill, state

ON_LINUX = pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="states of processes are in /proc"
)


def note(rank, operation, age=600.0, letter="S", step=41):
    return Note(rank, f"node{rank // 4}", 1000 + rank, operation, step, age, letter)


def told(*notes):
    return re.sub(r"since \d\d:\d\d:\d\d", "since T", str(standstill(notes, 600, "runs/x")))


def test_every_operation_has_its_words():
    assert (
        len(PHRASES) == len(set(PHRASES)) == len(Doing)
        and PHRASES[Doing.SHARED].startswith("the making")
        and PHRASES[Doing.TRAINING] == "training"
        and WIDTH * 8 == 64
    )


def test_ranks_that_wait_for_the_same_are_told_together_and_the_longest_wait_counts():
    waiting = [note(rank, Doing.GRADIENT, 600 + rank) for rank in (0, 1, 2, 3, 5, 8, 9)]
    assert told(
        note(4, Doing.READING, 609.0), *waiting, note(6, Doing.ROOT), note(7, Doing.COUNTS)
    ) == (
        "ranks 0-3, 5, 8, 9 wait in the gradient sum of step 42 since T (609 s); rank 6 waits in "
        "what rank 0 does for all since T (600 s); "
        "rank 7 waits in a sum of counts since T (600 s); rank 4 on node1 (process 1004) was "
        "last in reading the data since T (609 s); "
        "expected some rank to get on within training.watchdog = 600 s; look at what is named "
        "last, then continue with `ensync resume runs/x`, or raise training.watchdog."
    )


@pytest.mark.parametrize(
    ("letter", "words"),
    [
        (GONE, "is gone and was last in the gradient sum of step 42 since T (600 s)"),
        ("T", "is stopped by a signal and was last in the gradient sum"),
        ("D", "hangs in a disk or file system and was last in"),
        (SILENT, "does not answer any more; expected"),
    ],
)
def test_a_rank_whose_process_cannot_go_on_is_no_waiting_rank(letter, words):
    said = told(note(0, Doing.GRADIENT), note(2, Doing.GRADIENT, letter=letter))
    assert f"rank 2 on node0 (process 1002) {words}" in said and (
        "expected all ranks of the job; look for" in said
    ) == (letter == GONE)


@ON_LINUX
def test_the_state_of_a_process():
    assert state(*identity()) == "R" and state(os.getpid(), "1") == GONE
    child = subprocess.Popen(["sleep", "60"])
    started = open(f"/proc/{child.pid}/stat").read().rpartition(")")[2].split()[19]
    assert state(child.pid, started) in ("S", "R", "D")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert state(child.pid, started) == GONE, "dead, though its parent has not asked yet"
    child.wait()
    assert state(child.pid, started) == GONE
