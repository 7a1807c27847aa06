"""Of several processes that prepare one file, one does it and the others end as it ended; a
signal leaves nothing half-done.
"""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from launched import launch
from samples import prepare, write_csv

from ensync.cli.main import main
from ensync.core.errors import EnsyncError
from ensync.core.signals import Ended, ending_tidily
from ensync.storage.turns import in_turn


def together(tasks, work, path):
    """Start in_turn in a thread for each task; return what each said or raised."""
    ended = [None] * len(tasks)

    def one(place, task):
        try:
            ended[place] = in_turn(path, task, lambda: work(place))
        except EnsyncError as error:
            ended[place] = str(error)

    threads = [threading.Thread(target=one, args=each) for each in enumerate(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return ended


@pytest.mark.parametrize("fails", [False, True])
def test_one_does_the_task_and_those_that_wait_end_alike(tmp_path, fails):
    done = []

    def work(place):
        done.append(place)
        time.sleep(0.3)
        if fails:
            raise EnsyncError("a", "b", "c")
        return "said"

    assert (
        together(["same"] * 4, work, tmp_path / "below" / "x.h5")
        == ["a; expected b; c." if fails else "said"] * 4
    )
    assert len(done) == 1 and os.listdir(tmp_path) == []


def test_another_task_is_done_after_it(tmp_path):
    busy = threading.Lock()

    def work(place):
        assert busy.acquire(blocking=False), "two at a time"
        time.sleep(0.05)
        busy.release()
        return str(place)

    assert (
        together(["a", "b", "c"], work, tmp_path / "x.h5") == ["0", "1", "2"]
        and os.listdir(tmp_path) == []
    )


def test_what_a_killed_process_left_stops_nobody(tmp_path):
    (tmp_path / ".x.h5.turn").write_text("{")
    assert (
        in_turn(tmp_path / "x.h5", "task", lambda: "said") == "said" and os.listdir(tmp_path) == []
    )
    assert in_turn(tmp_path / ("x" * 300), "task", lambda: "said") == "said"


@pytest.mark.parametrize(
    "variables",
    [{"SLURM_PROCID": "1"}, {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, {"PMI_RANK": "3"}],
)
def test_variables_of_a_launcher_do_not_keep_anybody_from_preparing(
    tmp_path, monkeypatch, variables
):
    for name in (
        "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS",
        "PMI_RANK",
        "PMI_SIZE",
        "OMPI_COMM_WORLD_SIZE",
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    write_csv(tmp_path / "t.csv")
    assert (
        main(
            [
                "data",
                "prepare",
                "csv",
                "--from",
                str(tmp_path / "t.csv"),
                "--to",
                str(tmp_path / "t.h5"),
            ]
        )
        == 0
    )
    assert (tmp_path / "t.h5").exists()
    assert (
        main(
            [
                "data",
                "prepare",
                "csv",
                "--from",
                str(tmp_path / "none.csv"),
                "--to",
                str(tmp_path / "n.h5"),
            ]
        )
        == 2
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_file_is_written_leaves_the_old_one_and_no_other(tmp_path, number):
    write_csv(tmp_path / "t.csv", 60)
    prepare("csv", tmp_path / "t.h5", tmp_path / "t.csv")
    before = (tmp_path / "t.h5").read_bytes()
    seen = []

    def progress(what, done, total):
        if what.startswith("writing"):
            seen.append(len(os.listdir(tmp_path)))
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # an impatient second one

    with pytest.raises(Ended) as caught, ending_tidily():
        prepare("csv", tmp_path / "t.h5", tmp_path / "t.csv", seed=2, progress=progress)
    assert caught.value.code == 128 + number and seen == [3]
    assert (tmp_path / "t.h5").read_bytes() == before and sorted(os.listdir(tmp_path)) == [
        "t.csv",
        "t.h5",
    ]


def test_a_signal_costs_one_sentence(tmp_path):
    row = b"," + b",".join([b"7"] * 784) + b"\n"
    (tmp_path / "t.csv").write_bytes(
        b"".join(b"%d" % (place % 10) + row for place in range(20_000))
    )
    command = [
        sys.executable,
        "-m",
        "ensync",
        "data",
        "prepare",
        "csv",
        "--from",
        "t.csv",
        "--to",
        "t.h5",
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=launch.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    limit = time.monotonic() + 20
    while (
        not (tmp_path / ".t.h5.turn").exists()
        and process.poll() is None
        and time.monotonic() < limit
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (
        (process.returncode, out) == (143, "")
        and err.startswith("interrupted by SIGTERM; nothing was written")
        and err.count("\n") == 1
    )
    assert os.listdir(tmp_path) == ["t.csv"]


@pytest.mark.parametrize("what", ["target", "source", "directory"])
def test_names_that_are_too_long_have_their_sentence(tmp_path, what):
    write_csv(tmp_path / "t.csv")
    long = "x" * 300
    target = tmp_path / {"target": f"{long}.h5", "directory": f"{long}/t.h5"}.get(what, "t.h5")
    source = tmp_path / (long if what == "source" else "t.csv")
    with pytest.raises(EnsyncError, match="too long"):
        prepare("csv", target, source)
    assert os.listdir(tmp_path) == ["t.csv"]


def test_a_name_that_just_fits_is_written(tmp_path):
    write_csv(tmp_path / "t.csv")
    assert prepare("csv", tmp_path / ("é" * 125 + ".h5"), tmp_path / "t.csv").changed
    assert np.count_nonzero([name.startswith(".") for name in os.listdir(tmp_path)]) == 0
