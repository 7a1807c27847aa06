"""A refused write costs the new checkpoint only: one sentence, the earlier ones intact, nothing
left behind.
"""

import contextlib
import errno
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ensync.core.errors import EnsyncError
from ensync.storage import atomic
from ensync.storage.checkpoint import (
    checkpoint_name,
    clean_temporaries,
    load_checkpoint,
    newest_valid,
    prune,
    save_checkpoint,
)

SMALL, LARGE = {"a": np.zeros(1000, np.float32)}, {"a": np.ones(1_000_000, np.float32)}
FIRST, SECOND = checkpoint_name(1, 10), checkpoint_name(2, 20)
NOT_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")


def refuse(directory, match, arrays=LARGE, name=SECOND):
    """Assert that a save is refused in one sentence and leaves the directory as it was."""
    before = sorted(os.listdir(directory)) if directory.is_dir() else []
    with pytest.raises(EnsyncError, match=match) as caught:
        save_checkpoint(directory / name, {}, arrays)
    assert "\n" not in str(caught.value) and str(directory) in str(caught.value)
    assert before == (sorted(os.listdir(directory)) if directory.is_dir() else [])


@contextlib.contextmanager
def mounted(directory, options):
    """A tmpfs of its own at `directory`."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@NOT_ROOT
def test_a_really_full_disk(tmp_path):
    with mounted(tmp_path, "size=1m"):
        save_checkpoint(tmp_path / FIRST, {"step": 10}, SMALL)
        refuse(tmp_path, "no space is left")
        refuse(tmp_path, "no space is left", name=FIRST)  # replacing a good one leaves the good one
        assert load_checkpoint(tmp_path / FIRST)[0] == {"step": 10}
        save_checkpoint(tmp_path / SECOND, {}, SMALL)
        assert newest_valid(tmp_path) == (tmp_path / SECOND, [])


@NOT_ROOT
def test_a_disk_without_room_for_one_more_name(tmp_path):
    with mounted(tmp_path, "size=1m,nr_inodes=2"):
        save_checkpoint(tmp_path / FIRST, {"step": 10}, SMALL)
        refuse(tmp_path, "no space is left", SMALL)


@NOT_ROOT
def test_a_read_only_file_system(tmp_path):
    with mounted(tmp_path, "size=1m"):
        for name in (FIRST, SECOND):
            save_checkpoint(tmp_path / name, {}, SMALL)
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        refuse(tmp_path, "the file system is read-only", name=checkpoint_name(3, 30))
        with pytest.raises(
            EnsyncError, match="cannot be removed because the file system is read-only"
        ):
            prune(tmp_path, keep=1)
        assert newest_valid(tmp_path) == (tmp_path / SECOND, [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission(tmp_path):
    save_checkpoint(tmp_path / FIRST, {}, SMALL)
    tmp_path.chmod(0o500)
    refuse(tmp_path, "permission is denied")
    tmp_path.chmod(0o700)


def test_a_limit_on_the_size_of_files(tmp_path):
    save_checkpoint(tmp_path / FIRST, {}, SMALL)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (100_000, hard)
    )  # Python ignores SIGXFSZ, so the write fails with EFBIG
    try:
        refuse(tmp_path, "refuses a file of this size")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert newest_valid(tmp_path) == (tmp_path / FIRST, [])


def test_a_directory_that_vanished_or_is_a_file(tmp_path):
    (tmp_path / "run").mkdir()
    shutil.rmtree(tmp_path / "run")
    refuse(tmp_path / "run", "does not exist")
    (tmp_path / "run").write_text("x")
    refuse(tmp_path / "run", "a part of the path is a file")
    (tmp_path / SECOND).mkdir()
    refuse(tmp_path, "a directory of that name is in the way")


@pytest.mark.parametrize("call", ["write", "fsync", "close", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE])
def test_each_system_call_may_fail(tmp_path, monkeypatch, call, code):
    save_checkpoint(tmp_path / SECOND, {"step": 20}, SMALL)
    real = getattr(os, call)

    def failing(*arguments):
        if call == "close":
            real(*arguments)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic.os, call, failing)
    refuse(tmp_path, "quota is used up" if code == errno.EDQUOT else "because")
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / SECOND)[0] == {"step": 20}


def test_an_interrupt_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / FIRST, {}, SMALL)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / SECOND, {}, SMALL)
    assert os.listdir(tmp_path) == [FIRST]


def test_a_file_system_that_cannot_sync_directories(tmp_path, monkeypatch):
    real = os.fsync

    def only_files(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", only_files)
    save_checkpoint(tmp_path / FIRST, {}, SMALL)
    assert newest_valid(tmp_path) == (tmp_path / FIRST, [])


def test_temporaries_of_the_dead_go_and_those_of_the_living_stay(tmp_path):
    here, me = socket.gethostname(), os.getpid()
    start = atomic.start_time(me)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    living = tmp_path / f".{FIRST}.{here}-{me}-{start}.01234567.tmp"
    gone = tmp_path / f".{FIRST}.{here}-{dead.pid}-{start}.01234567.tmp"
    number_used_again = tmp_path / f".{FIRST}.{here}-{me}-{int(start) - 1}.01234567.tmp"
    other_node_now = tmp_path / f".{FIRST}.elsewhere-{me}-{start}.01234567.tmp"
    other_node_long_ago = tmp_path / f".{FIRST}.elsewhere-{me}-7.01234567.tmp"
    foreign = tmp_path / ".editor.tmp"
    for path in [living, gone, number_used_again, other_node_now, other_node_long_ago, foreign]:
        path.write_bytes(b"x")
    os.utime(other_node_long_ago, (time.time() - 2 * atomic.FOREIGN_AGE,) * 2)
    assert set(clean_temporaries(tmp_path)) == {gone, number_used_again, other_node_long_ago}
    assert clean_temporaries(tmp_path / "absent") == []


def test_ten_kills_while_saving(tmp_path):
    script = Path(__file__).parents[1] / "soak" / "checkpoint_kills.py"
    done = subprocess.run(
        [sys.executable, script, "10", "--directory", tmp_path / "run"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kills, in_write = map(
        int,
        re.match(r"(\d+) kills survived \((\d+) in the middle of a write\)", done.stdout).groups(),
    )
    assert kills >= 10 and in_write >= 5, done.stdout
