"""A /dev/shm too small for MPI costs a sentence, and killed runs leave nothing there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launched import launch
from launched.processes import kill_all, rank_processes, wait_until

from ensync.mpi import room

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(120)]
MIB = 1 << 20


def private_works():
    """Whether a /dev/shm of one's own can be mounted here."""
    return (
        subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )


@pytest.mark.skipif(launch.library() != "MPICH", reason="only MPICH dies of it")
@pytest.mark.parametrize(
    ("ranks", "size", "code"),
    [(1, "64k", 2), (2, "1m", 2), (2, "16m", 2), (1, "2m", 0), (2, "64m", 0)],
)
def test_too_little_shared_memory_is_told_before_mpi_starts(tmp_path, ranks, size, code):
    if not private_works():
        pytest.skip("a /dev/shm of one's own needs root and mount namespaces")
    command = [
        *launch.mpirun(),
        "-n",
        str(ranks),
        sys.executable,
        "-m",
        "ensync",
        "evaluate",
        str(tmp_path / "none"),
    ]
    own = [
        "unshare",
        "-m",
        "sh",
        "-c",
        f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"',
        "sh",
    ]
    ended = subprocess.run(
        [*own, *command],
        env=launch.environment(),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended
    assert ("/dev/shm on " if code else "no run at ") in ended.stderr, ended


def test_what_fits_is_between_what_was_measured_to_work_and_to_die():
    for ranks, works, dies in [
        (1, 17, 16),
        (2, 26, 16),
        (4, 30, 16),
        (8, 46, 42),
        (8, 12, 8),
        (1, 2, 1),
    ]:
        assert room.fits(ranks, works * MIB) and not room.fits(ranks, dies * MIB)
    assert (
        room._ranks_on_node({"SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}) == 4
        and room._ranks_on_node({}) == 1
    )


def test_a_killed_run_leaves_no_name_in_shared_memory(place):
    process = place.start(2, "train", "job.toml", "--set", "training.epochs=1000000")
    wait_until(lambda: (place / "runs/job/history.jsonl").exists(), 60)
    ranks = rank_processes(process.pid).values()
    mapped = {
        line.split()[5]
        for pid in ranks
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines()
        if " /dev/shm/" in line
    }
    kill_all(process.pid)
    launch.stop(process)
    assert mapped and not [name for name in mapped if os.path.exists(name) and "mpich" in name]


def test_only_old_names_that_nobody_uses_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "SHARED_DIRECTORY", str(tmp_path))
    names = [
        "mpich_shm_1a2b_0",
        "mpich_shm_3c_1",
        "mpich_shm_4d_0",
        "mine.dat",
        "sm_segment.node.0.1.0",
    ]
    for name in names:
        (tmp_path / name).write_bytes(bytes(5000))
        os.utime(tmp_path / name, (0, time.time() - (5 if name == "mpich_shm_3c_1" else 5000)))
    user = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); "
            "print(flush=True); input()",
            tmp_path / "mpich_shm_4d_0",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    user.stdout.readline()
    try:
        assert room.remove_abandoned() == 10_000
    finally:
        user.send_signal(signal.SIGKILL)
        user.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["mpich_shm_3c_1", "mpich_shm_4d_0", "mine.dat"]
    )
