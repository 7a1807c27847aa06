"""The lock of a run directory, tried by real processes.

One holder at a time, dead ones followed, living ones left alone.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from ensync.core.errors import EnsyncError
from ensync.runs.state import find_newest
from ensync.storage import lock
from ensync.storage.atomic import start_time
from ensync.storage.holder import this_process

FORK = multiprocessing.get_context("fork")
SLEEPER = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]


def contend(directory, rounds, meet, counted):
    """In each round try to take the lock with all others at the same moment; hold it until all have
    tried.
    """
    for _ in range(rounds):
        meet.wait()
        held = None
        try:
            held = lock.take(directory, this_process("train"))
        except EnsyncError as error:
            assert "is in use by `ensync train`, process " in str(error)
        meet.wait()
        if held:
            with counted:
                counted.value += 1
            held.confirm()
            held.release()
        meet.wait()


def winners(directory, rounds, before, count=8):
    """Yield how many of several contenders got the lock, for each round, before which `before` is
    called. They are forked once: to fork a process that has run many tests takes long.
    """
    meet, counted = FORK.Barrier(count + 1, timeout=60), FORK.Value("i", 0)
    contenders = [
        FORK.Process(target=contend, args=(directory, rounds, meet, counted), daemon=True)
        for _ in range(count)
    ]
    for contender in contenders:
        contender.start()
    for _ in range(rounds):
        counted.value = 0
        before()
        for _ in range(3):
            meet.wait()
        yield counted.value
    for contender in contenders:
        contender.join(60)
    assert [contender.exitcode for contender in contenders] == [0] * count


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_one_of_many_contenders_gets_a_free_lock_and_a_dead_ones(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(
            os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no hard links"))
        )
    for won in winners(tmp_path, 5, lambda: None):
        assert won == 1 and not list(tmp_path.iterdir())
    for won in winners(tmp_path, 15, lambda: forge(tmp_path, process=dead_process())):
        assert won == 1 and not list(tmp_path.iterdir())


def dead_process():
    """Return the number of a process that was."""
    with subprocess.Popen(["true"]) as process:
        return process.pid


def forge(directory, age=0.0, **values):
    """Write a lock file that names another holder and was renewed `age` seconds ago."""
    path = directory / lock.NAME
    path.write_text(
        json.dumps(asdict(replace(this_process("train"), started="1", token="forged", **values)))
    )
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_a_killed_holder_is_followed_at_once_and_a_living_one_is_not(tmp_path):
    with subprocess.Popen(SLEEPER, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        path = forge(tmp_path, process=other.pid)
        values = json.loads(path.read_text()) | {
            "started": start_time(other.pid),
            "job": "SLURM_JOB_ID=7",
        }
        path.write_text(json.dumps(values))
        with pytest.raises(
            EnsyncError,
            match=rf"in use by `ensync train`, process {other.pid} on .*, SLURM_JOB_ID=7, "
            "since 20.*wait for its end, stop it, or give",
        ):
            lock.take(tmp_path, this_process("train"))
        assert lock.describe_holder(tmp_path).endswith("last sign of life 0 s ago")
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert lock.describe_holder(tmp_path).startswith("no more: ")
    lock.take(tmp_path, this_process("train")).release()
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_left_while_they_took_the_lock_is_removed(tmp_path):
    def leave(name, age=0.0, **values):
        return forge(tmp_path, age, **values).rename(tmp_path / f".{lock.NAME}.{name}")

    with subprocess.Popen(SLEEPER, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        dead, living = leave("1", process=dead_process()), leave("2", process=other.pid)
        values = json.loads(living.read_text()) | {"started": start_time(other.pid)}
        living.write_text(json.dumps(values))
        cut, old = leave("3"), leave("4", age=2 * lock.STALE)
        cut.write_text("{")
        old.write_text("{")
        os.utime(old, (time.time() - 2 * lock.STALE,) * 2)
        held = lock.take(tmp_path, this_process("train"))
        other.kill()
    assert not dead.exists() and not old.exists() and living.exists() and cut.exists()
    held.release()


def test_a_number_that_another_process_has_got_since_is_no_living_holder(tmp_path):
    forge(tmp_path, process=os.getpid())  # with another start time
    lock.take(tmp_path, this_process("train")).release()


def test_the_own_earlier_start_of_a_batch_job_is_followed_at_once(tmp_path):
    own = this_process("train", {"SLURM_JOB_ID": "42", "SLURM_RESTART_COUNT": "1"})
    forge(tmp_path, machine="elsewhere", job="SLURM_JOB_ID=42", restarts=0)
    held = lock.take(tmp_path, own, waiting=pytest.fail)
    assert json.loads((tmp_path / lock.NAME).read_text()) == asdict(own)
    held.release()


def test_the_lock_of_another_host_is_judged_by_its_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "STALE", 0.6)
    told = []
    forge(tmp_path, age=100, machine="elsewhere", host="node7")
    lock.take(tmp_path, this_process("train"), told.append).release()
    path = forge(tmp_path, machine="elsewhere", host="node7")  # silent from now on
    lock.take(tmp_path, this_process("train"), told.append).release()
    assert len(told) == 2 and "is held by `ensync train`" in told[1] and "on node7" in told[1]
    path = forge(tmp_path, machine="elsewhere", host="node7")
    with subprocess.Popen(
        ["sh", "-c", "while sleep 0.05; do touch -c $0; done", str(path)]
    ) as living:
        with pytest.raises(EnsyncError, match="is in use by .* on node7"):
            lock.take(tmp_path, this_process("train"))
        living.kill()


def test_a_file_that_is_no_lock_counts_when_it_is_fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "STALE", 0.3)
    (tmp_path / lock.NAME).write_bytes(b"\xff[")
    lock.take(tmp_path, this_process("train")).release()
    (tmp_path / lock.NAME).symlink_to("nowhere")
    with pytest.raises(EnsyncError, match="in use by .* on an unknown host"):
        lock.take(tmp_path, this_process("train"))


def test_a_holder_whose_lock_was_taken_over_notices_and_writes_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    run, lost = tmp_path / "runs" / "a", []
    try:
        lock.hold([run], "train", print, lambda: lost.append(1))
        first = (run / lock.NAME).stat().st_mtime_ns
        while (run / lock.NAME).stat().st_mtime_ns == first:
            time.sleep(0.01)
        lock.confirm(run)
        os.replace(forge(tmp_path, machine="elsewhere", host="node7"), run / lock.NAME)
        while not lost:
            time.sleep(0.01)
        with pytest.raises(EnsyncError, match="has been taken over by .* on node7"):
            lock.confirm(run)
    finally:
        lock.let_go()
    assert json.loads((run / lock.NAME).read_text())["host"] == "node7", "the other's lock stays"


def test_directories_made_for_a_lock_and_left_empty_are_removed(tmp_path):
    lock.hold([tmp_path / "runs" / "a", tmp_path / "runs" / "b"], "compare", print, print)
    (tmp_path / "runs" / "b" / "file").touch()
    lock.let_go()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "runs",
        "runs/b",
        "runs/b/file",
    ]


def test_a_run_without_a_checkpoint_yet_says_who_trains_it(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    lock.hold([tmp_path], "train", print, lambda: None)
    try:
        with pytest.raises(EnsyncError, match="in use by `ensync train`.* wait for its first"):
            find_newest(tmp_path)
    finally:
        lock.let_go()
    with pytest.raises(EnsyncError, match="train again"):
        find_newest(tmp_path)


def test_one_of_several_directories_is_given_back_without_being_missed(tmp_path):
    """The thread that gives signs of life may look at it once more."""
    both = [tmp_path / "study", tmp_path / "study" / "cell"]
    lock.hold(both, "compare", pytest.fail, pytest.fail)
    released = lock._locks[both[1].resolve()]
    lock.let_go_of(both[1])
    released.beat()
    assert released.lost == "" and not (both[1] / lock.NAME).exists()
    lock.confirm(both[0])
    assert (both[0] / lock.NAME).exists() and both[1].is_dir()
    lock.let_go_of(tmp_path)  # held by nobody
    lock.let_go()
    assert not both[0].exists()
