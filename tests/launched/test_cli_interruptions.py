"""Runs that are killed, signalled or interrupted at any moment end soon, leave whole files, and
resume to the same bits.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from launched import launch
from launched.processes import in_terminal, kill_all, rank_processes, shown, wait_until

from ensync.storage.checkpoint import load_checkpoint, newest_valid

pytestmark = [
    pytest.mark.mpi_skip,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds ranks in /proc"),
]

# Long enough to be hit in the middle: 210 steps and 90 checkpoints in about a second.
LONG = [
    "--set",
    "training.epochs=30",
    "--set",
    "checkpoint.every_steps=3",
    "--set",
    "network.dropout=0.1",
]
TIMES = {"seconds", "samples_per_second", "elapsed"}


def state(place, run):
    """All vectors of the newest checkpoint, the members' positions and the history, without
    times.
    """
    found, rejected = newest_valid(place / run / "checkpoints")
    assert not rejected
    attributes, arrays = load_checkpoint(found)
    positions = [{k: v for k, v in p.items() if k not in TIMES} for p in attributes["positions"]]
    return (
        arrays,
        positions,
        [{k: v for k, v in r.items() if k not in TIMES} for r in place.history(run)],
    )


def assert_same(place, run, other):
    one, two = state(place, run), state(place, other)
    assert one[1:] == two[1:] and set(one[0]) == set(two[0])
    for name, values in one[0].items():
        assert np.array_equal(values, two[0][name]), name
    names = [*place.checkpoints(run), *(p.name for p in (place / run).iterdir())]
    assert not [name for name in names if name.startswith(".")], names
    assert place.result(run)["test"] == place.result(other)["test"]


@pytest.fixture(scope="module")
def whole(shared_place):
    """The run that nobody interrupts, on two ranks."""
    shared_place.done(2, "train", "job.toml", *LONG, "--set", "output.directory=runs/whole")
    return shared_place


def steps_of(place, run):
    """The newest checkpoint's step so far, 0 before the first."""
    directory = place / run / "checkpoints"
    names = [p.name for p in directory.glob("checkpoint-*")] if directory.exists() else []
    return max((int(name.partition("-s")[2].removesuffix(".h5")) for name in names), default=0)


def begin(place, run, ranks=2, verb="train", after=20, settings=(), **options):
    """Start a run or its continuation and wait until it has made some steps."""
    before = steps_of(place, run)
    words = (
        ["train", "job.toml", *LONG, *settings, "--set", f"output.directory={run}"]
        if verb == "train"
        else ["resume", run]
    )
    process = place.start(ranks, *words, **options)
    wait_until(lambda: steps_of(place, run) >= before + after or process.poll() is not None)
    return process


def starting(process, ranks=2):
    """Return the ranks' process numbers as soon as all of them have run the program's first
    line, which notes signals.
    """

    def noting():
        found = rank_processes(process.pid)
        return found if len(found) == ranks and all(map(catches_usr1, found.values())) else {}

    return wait_until(noting)


def catches_usr1(pid):
    """Whether a process catches SIGUSR1, by proc_pid_status(5)."""
    try:
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return False
    return caught is not None and bool(int(caught[1], 16) >> signal.SIGUSR1 - 1 & 1)


def ended(process, limit=10):
    """Return exit code, output and errors of a process that must end within `limit` seconds."""
    try:
        out, err = process.communicate(timeout=limit)
    finally:
        kill_all(process.pid)
    return process.returncode, out, err


# The rank that is killed, and how ranks meet. Those that wait for nobody must end, too. The bits of
# the others that go on are compared in tests/runs/test_mpi_communication.py.
KILLED = {
    "synchronous": (0, ()),
    "local": (1, ("--set", "communication.every=7")),
    "gossip": (0, ("--set", "communication.partners=ring")),
    "server": (
        0,
        ("--set", "communication.server=seeded", "--set", "communication.max_staleness=2"),
    ),
    "compressed": (1, ("--set", "communication.compression=powersgd")),
}


@pytest.mark.parametrize("meetings", KILLED)
def test_one_killed_rank_ends_the_job_and_the_run_resumes_to_the_same_bits(whole, meetings):
    (rank, settings), run = KILLED[meetings], f"runs/killed_{meetings}"
    process = begin(whole, run, settings=settings)
    os.kill(rank_processes(process.pid)[rank], signal.SIGKILL)
    code, _, err = ended(process)
    assert code != 0 and "Traceback" not in err
    assert steps_of(whole, run) < 210, "the run was over before it could be killed"
    whole.done(2, "resume", run)
    if settings:
        assert steps_of(whole, run) == 210
    else:
        assert_same(whole, run, "runs/whole")


def test_runs_killed_again_and_again_resume_to_the_same_bits(whole):
    choose, run = random.Random(1), "runs/again"
    for verb in ("train", "resume", "resume"):
        process = begin(whole, run, verb=verb, after=2)
        time.sleep(choose.uniform(0, 0.2))
        kill_all(process.pid)
        ended(process)
        assert (whole / run / "lock.json").exists(), (
            "which a killed run cannot remove, and the next one takes over"
        )
    assert 0 < steps_of(whole, run) < 210
    (whole / run / "history.jsonl").write_bytes(b"garbage\n")
    out = whole.done(2, "resume", run)
    assert (
        out.count(
            f"warning: {run}/history.jsonl was rebuilt from the checkpoint: records restored "
        )
        == 1
    )
    assert_same(whole, run, "runs/whole")


def test_signals_stop_with_a_checkpoint_and_code_75(whole):
    """One rank gets SIGUSR1, as from a batch system; then all ranks get SIGTERM."""
    run = "runs/signalled"
    process = begin(whole, run)
    os.kill(rank_processes(process.pid)[1], signal.SIGUSR1)
    code, _, err = ended(process)
    assert (code, err.count("stopped by SIGUSR1 after ")) == (
        75,
        1,
    ) and f"`ensync resume {run}` continues." in err, err
    process = begin(whole, run, verb="resume")
    ranks = rank_processes(process.pid)
    os.killpg(process.pid, signal.SIGSTOP)
    for pid in ranks.values():  # so that they do not reach their end meanwhile
        os.kill(pid, signal.SIGSTOP)
    second = whole.all_of(1, {verb: [verb, run] for verb in ("resume", "fuse", "describe")})
    holder = f"`ensync resume`, process {ranks[0]} on {socket.gethostname()}, since 20"
    for verb in ("resume", "fuse"):
        assert (
            second[verb][0]["code"] == 2
            and f"'{run}' is in use by {holder}" in second[verb][0]["err"]
        ), second
    assert (
        f"in use by   {holder}" in second["describe"][0]["out"]
        and "last sign of life" in second["describe"][0]["out"]
    )
    for pid in ranks.values():
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
    os.killpg(process.pid, signal.SIGCONT)
    code, _, err = ended(process)
    assert (code, err.count("stopped by SIGTERM after ")) == (75, 1), err
    assert 0 < steps_of(whole, run) < 210
    again = whole.done(2, "train", "job.toml", "--resume", "--set", f"output.directory={run}")
    assert f"continuing from {run}/checkpoints/checkpoint-e" in again
    assert_same(whole, run, "runs/whole")


@pytest.mark.parametrize("ranks", [1, 2])
def test_control_c_leaves_a_valid_checkpoint(whole, ranks):
    run = f"runs/interrupted{ranks}"
    program = [
        sys.executable,
        "-m",
        "ensync",
        "train",
        "job.toml",
        *LONG,
        "--set",
        f"output.directory={run}",
    ]
    process, terminal = in_terminal(
        whole, *([*launch.mpirun(), "-n", str(ranks)] if ranks > 1 else []), *program
    )
    text = ""
    try:
        wait_until(lambda: steps_of(whole, run) >= 20)
        os.write(terminal, b"\x03")
        begin_ = time.monotonic()
        while process.poll() is None and time.monotonic() < begin_ + 10:
            text += shown(terminal)
            time.sleep(0.01)
        text += shown(terminal)
    finally:
        kill_all(process.pid)
    assert process.wait() not in (0, None) and "Traceback" not in text, text
    if ranks == 1 or launch.library() == "MPICH":  # Open MPI's mpirun sends SIGTERM instead
        assert process.returncode == 130 and text.count("stopped by SIGINT after ") == 1, text
    os.close(terminal)
    found, rejected = newest_valid(whole / run / "checkpoints")
    assert found and not rejected and steps_of(whole, run) < 210
    if ranks == 2:
        whole.done(2, "resume", run)
        assert_same(whole, run, "runs/whole")


def test_a_comparison_that_is_stopped_says_what_can_go_on(place):
    """In its first part, which rank 0 trains alone while the other waits."""
    process = place.start(2, "compare", "job.toml", "--set", "training.epochs=100000")
    wait_until(lambda: steps_of(place, "runs/job/one_rank") > 0, 60)
    for pid in rank_processes(process.pid).values():
        os.kill(pid, signal.SIGTERM)
    code, _, err = ended(process)
    assert code == 75 and err.count("stopped by SIGTERM after ") == 1 and "[rank" not in err, err
    assert (
        "in the part 'one rank' of the comparison; `ensync resume runs/job/one_rank` continues "
        "that alone, `ensync compare --resume` all of it." in err
    )


def test_resuming_by_an_edited_job_file_says_what_is_taken(place):
    place.done(2, "train", "job.toml", "--set", "training.epochs=1")
    edited = (place / "job.toml").read_text().replace("learning_rate = 0.02", "learning_rate = 0.3")
    (place / "job.toml").write_text(edited)
    out = place.done(2, "train", "job.toml", "--resume", "--set", "training.epochs=2")
    assert "taken from --set: training.epochs = 2 (was 1)\n" in out
    assert (
        out.count(
            "not taken: optimizer.learning_rate = 0.3 (the run: 0.02); to change one give --set"
        )
        == 1
        and out.count("warning: the job file") == 1
    )
    assert [r["learning_rate"] for r in place.history()] == [0.02, 0.02]
    out = place.done(2, "resume", "runs/job", "--set", "training.epochs=3")
    assert "taken from --set: training.epochs = 3 (was 2)" in out and "not taken" not in out


PATCHED = """
import sys
from ensync.training.runners import MiniBatchRunner
from ensync.__main__ import main
from mpi4py import MPI

run = MiniBatchRunner.run
def fail(runner, *step):
    if MPI.COMM_WORLD.rank == RANK and runner.replica.optimizer.steps == 11:
        raise ERROR
    return run(runner, *step)
MiniBatchRunner.run = fail
main()
"""


GONE = (
    "__import__('ensync.core.errors').core.errors.EnsyncError("
    "'the file is gone', 'a file', 'look for it')"
)


@pytest.mark.parametrize(
    ("rank", "error", "code", "reason"),
    [
        (
            1,
            "OSError(5, 'Input/output error')",
            2,
            "the device reports an input/output error; expected ",
        ),
        (2, GONE, 2, "the file is gone; expected a file; look for it."),
        (0, "MemoryError()", 2, "there is not enough memory; expected "),
        (1, "ZeroDivisionError('a bug')", 1, "ZeroDivisionError: a bug"),
    ],
)
def test_a_rank_that_fails_is_named_once_with_its_node_and_reason(place, rank, error, code, reason):
    program = PATCHED.replace("RANK", str(rank)).replace("ERROR", error)
    end = launch.run(3, "-c", program, "train", "job.toml", limit=20, cwd=place.directory)
    assert not end.timed_out and end.code == code
    assert (
        end.err.count(f"[rank {rank} of 3 on {socket.gethostname()}] ") == 1
        and end.err.count("[rank ") == 1
    ), end.err
    assert end.err.count(reason) == 1 and end.err.count("Traceback") == (code == 1), end.err


def test_ctrl_c_while_ranks_start_ends_them_all(whole):
    """At the worst moments one rank is still importing while another waits for it inside MPI."""
    command = [*launch.mpirun(), "-n", "2", sys.executable, "-m", "ensync", "resume", "runs/whole"]
    for delay in (0, 0.25, 0.5):
        process, terminal = in_terminal(whole, *command)
        starting(process)
        time.sleep(delay)
        os.write(terminal, b"\x03")
        try:
            assert process.wait(timeout=10) == (
                130 if launch.library() == "MPICH" else process.returncode or 1
            )
        finally:
            kill_all(process.pid)
            os.close(terminal)


@pytest.mark.parametrize(
    ("number", "delay", "ranks"),
    [
        (signal.SIGUSR1, 0, [0, 1]),
        (signal.SIGTERM, 0.3, [0]),
        (signal.SIGHUP, 0.6, [0, 1]),
        (signal.SIGUSR1, 0.9, [1]),
    ],
)
def test_a_signal_while_ranks_start_ends_them_to_be_started_again(place, number, delay, ranks):
    """While they import, inside MPI's start, which drops SIGUSR1 with MPICH, while kernels are
    loaded, and in the first steps.
    """
    process = place.start(
        2,
        "train",
        "job.toml",
        "--set",
        "training.epochs=1000000",
        "--set",
        "checkpoint.every_epochs=0",
    )
    pids = starting(process)
    time.sleep(delay)
    for rank in ranks:
        os.kill(pids[rank], number)
    code, _, err = ended(process, 20)
    assert code == 75 and err.count(f"stopped by {number.name} ") == 1, err
    assert (
        ranks == [1] or not (place / "runs/job/lock.json").exists()
    )  # rank 0, which holds it, was aborted by the other


def test_a_hangup_that_nohup_ignores_stays_ignored():
    program = (
        "from ensync.core.signals import stop_on_signals\nimport signal\nwith "
        "stop_on_signals(): print(signal.getsignal(signal.SIGHUP).name)"
    )
    run = subprocess.run(
        ["nohup", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    assert run.stdout == "SIG_IGN\n"
