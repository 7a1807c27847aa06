"""Who says what, where: pipes and terminals, silent ranks and verbose ones; and that a seed
decides every bit.
"""

import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from launched import launch
from launched.processes import in_terminal, kill_all, shown
from PIL import Image

from ensync.storage.checkpoint import load_checkpoint, newest_valid, save_checkpoint

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(400)]


def train(to, *settings):
    return [
        "train",
        "job.toml",
        "--set",
        f"output.directory=runs/{to}",
        "--set",
        "network.dropout=0.1",
        *(word for s in settings for word in ("--set", s)),
    ]


ENSEMBLE = ["training.strategy=ensemble", "ensemble.members=3", "ensemble.start=own"]
TWO_THREADS = "training.threads=2"
BITS = {
    "one": train("one"),
    "again": train("again"),
    "other": train("other", "training.seed=2"),
    "members": train("members", *ENSEMBLE),
    "members again": train("members_again", *ENSEMBLE),
}
# With two threads and a batch that gives both something to do: the number of threads must not show.
LARGE = ["training.batch=full", "network.hidden=[300,200]", "training.epochs=4"]
THREADS = {
    "one thread": train("one_thread", *LARGE, "training.threads=1"),
    "two threads": train("two_threads", *LARGE, TWO_THREADS),
    "online": train(
        "online",
        "training.batch=1",
        "optimizer.name=sgd",
        "network.dropout=0",
        "training.threads=1",
    ),
    "online two": train(
        "online_two", "training.batch=1", "optimizer.name=sgd", "network.dropout=0", TWO_THREADS
    ),
}


@pytest.fixture(scope="module")
def trained(shared_place):
    """The records of all runs above, by name and rank."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    records = shared_place.all_of(
        2, BITS | {"verbose": [*train("verbose", *ENSEMBLE), "--verbose"]}
    )
    records |= shared_place.all_of(
        1,
        {
            name: command
            for name, command in THREADS.items()
            if cores > 1 or TWO_THREADS not in command
        },
    )
    assert all(
        record["code"] == 0 and record["err"] == ""
        for ranks in records.values()
        for record in ranks
    ), records
    return records


def vectors(place, run):
    return load_checkpoint(newest_valid(place / "runs" / run / "checkpoints")[0])[1]


def equal(place, run, other):
    one, two = vectors(place, run), vectors(place, other)
    assert set(one) == set(two)
    return all(np.array_equal(one[name], two[name]) for name in one)


def test_a_seed_decides_every_bit(shared_place, trained):
    assert equal(shared_place, "one", "again") and equal(shared_place, "members", "members_again")
    assert not equal(shared_place, "one", "other")
    assert (shared_place / "runs/one/job.toml").read_text() == (
        shared_place / "runs/again/job.toml"
    ).read_text().replace("runs/again", "runs/one")


@pytest.mark.parametrize("run", ["one_thread", "online"])
def test_the_number_of_threads_does_not_show(shared_place, trained, run):
    other = {"one_thread": "two_threads", "online": "online_two"}[run]
    if not (shared_place / "runs" / other).exists():
        pytest.skip("one core")
    assert equal(shared_place, run, other)
    assert (
        shared_place.result(f"runs/{run}")["test"] == shared_place.result(f"runs/{other}")["test"]
    )


def test_a_pipe_gets_plain_lines_of_one_rank(trained):
    root, other = trained["one"]
    assert (
        "\x1b" not in root["out"]
        and "\r" not in root["out"]
        and other == {"code": 0, "out": "", "err": ""}
    )
    assert all(len(line) <= 140 and line == line.rstrip() for line in root["out"].splitlines())
    assert len(re.findall(r"^ *\d/3 ", root["out"], re.M)) == 3


def test_every_rank_speaks_when_asked(trained):
    root, other = trained["verbose"]
    assert "[rank " not in root["out"] and other["out"].count("\n") > 3
    assert all(
        line.startswith("[rank 1] ") or line == "[rank 1]" for line in other["out"].splitlines()
    )


def test_a_terminal_gets_a_bar_that_goes_away(shared_place):
    """A run of some seconds shows its progress; at the end the bar is gone."""
    command = [
        *launch.mpirun(),
        "-n",
        "1",
        sys.executable,
        "-m",
        "ensync",
        *train("shown", "training.epochs=200", "training.threads=1"),
    ]
    process, terminal = in_terminal(shared_place, *command)
    text, end = "", time.monotonic() + 100
    try:
        while process.poll() is None and time.monotonic() < end:
            text += shown(terminal)
            time.sleep(0.01)
        text += shown(terminal)
    finally:
        kill_all(process.pid)
        os.close(terminal)
    assert process.wait() == 0, text[-2000:]
    if launch.library() == "MPICH":  # Open MPI's mpirun gives ranks no terminal of this size
        assert "epoch 1" in text and "steps/s" in text and "left" in text and "\x1b[2K" in text
    tail = text[text.rindex("Test, one network") :]
    assert "steps/s" not in tail and "\x1b[?25l" not in text, "the cursor stays"


@pytest.mark.parametrize(
    "command",
    [
        ["settings"],
        ["describe", "digits.h5"],
        ["train", "job.toml", "--set", "output.directory=runs/headed"],
    ],
)
def test_a_reader_that_leaves_early_costs_no_traceback(shared_place, command):
    """`ensync settings | head -1`."""
    program = subprocess.Popen(
        [sys.executable, "-m", "ensync", *command],
        cwd=shared_place.directory,
        env=launch.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    program.stdout.read(1)
    program.stdout.close()
    err = program.stderr.read().decode()
    program.wait(timeout=60)
    assert "Traceback" not in err and "BrokenPipe" not in err, err


TRAIN = "train job.toml --overwrite --set training.epochs=1 --set output.directory=runs/streams"


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        (f"{TRAIN} >&- 2>&-", 0, ""),
        (f"{TRAIN} <&-", 0, ""),
        (f"{TRAIN} > /dev/full", 0, "warning: standard output cannot be written"),
        (
            "describe digits.h5 > /dev/full",
            2,
            "standard output cannot be written because no space is left",
        ),
        ("describe digits.h5 >&-", 0, ""),
        ("nonsense 2>&-", 2, ""),
        ("settings | head -1 > /dev/null; exit ${PIPESTATUS[0]}", 0, ""),
    ],
)
def test_streams_may_be_closed_full_or_gone(shared_place, command, code, told):
    program = ["bash", "-c", f"{sys.executable} -m ensync {command}"]
    ended = subprocess.run(
        program,
        cwd=shared_place.directory,
        env=launch.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    assert (
        ended.returncode == code
        and ended.stderr.startswith(told)
        and ended.stderr.count("\n") == bool(told)
    ), ended
    if command.startswith("train"):
        assert shared_place.result("runs/streams")["format"] == "ensync-result"


@pytest.mark.parametrize(
    ("limits", "command", "told"),
    [
        ("ulimit -n 32", TRAIN, "32 files open (ulimit -n)"),
        ("mkdir gone; cd gone; rmdir ../gone", "doctor", "working directory"),
        ("export PYTHONIOENCODING=ascii", "describe digits.h5", ""),
        ("export HOME=/nowhere TMPDIR=/nowhere; unset XDG_CACHE_HOME", "settings", ""),
        (
            "export LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0",
            "describe 💩.toml",
            r"no file '\udcf0\udc9f",
        ),
    ],
)
def test_odd_surroundings_are_one_sentence_or_no_trouble(tmp_path, dataset, limits, command, told):
    (tmp_path / "digits.h5").symlink_to(dataset)
    (tmp_path / "job.toml").write_text((dataset.parent / "job.toml").read_text())
    ended = subprocess.run(
        ["bash", "-c", f"{limits}; {sys.executable} -m ensync {command}"],
        cwd=tmp_path,
        env=launch.environment(),
        capture_output=True,
        check=False,
        timeout=60,
    )
    err = ended.stderr.decode()
    assert (
        ended.returncode == (2 if told else 0) and told in err and err.count("\n") == bool(told)
    ), ended


STEERING = "a\x1b[2J\nzzz\u202e [red]"


def spoil(place, run, **attributes):
    """Copy a run under a name that steers a terminal, with such texts in its checkpoint; return
    its directory.
    """
    newest = newest_valid(place / "runs" / run / "checkpoints")[0]
    found, arrays = load_checkpoint(newest)
    directory = place / "runs" / STEERING.replace("/", "")
    (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
    save_checkpoint(directory / "checkpoints" / newest.name, {**found, **attributes}, arrays)
    return str(directory.relative_to(place.directory)), found


def test_names_and_checkpoints_cannot_steer_the_terminal(shared_place, trained):
    run, found = spoil(shared_place, "one")
    (shared_place / f"{STEERING}.png").write_text("no picture")
    Image.new("L", (8, 8)).save(shared_place / f"good {STEERING}.png")
    commands = {
        "describe": ["describe", run],
        "evaluate": ["evaluate", run],
        "predict": ["predict", run, f"good {STEERING}.png"],
        "no picture": ["predict", run, f"{STEERING}.png"],
        "missing": ["evaluate", f"{run}x"],
        "train": train(STEERING, "training.epochs=1"),
        "again": train(STEERING, "training.epochs=1"),
        "resume": ["resume", run, "--set", "training.epochs=4"],
        "sweep": ["sweep", "job.toml", "--over", f"network.activation={STEERING}"],
        "collect": ["collect", "--over", "training.seed", run],
    }
    records = shared_place.all_of(1, commands)
    positions = [{**position, "finished": STEERING} for position in found["positions"]]
    spoil(shared_place, "one", positions=positions, creator=STEERING)
    records |= shared_place.all_of(
        1, {"finished": ["describe", run], "evaluate finished": ["evaluate", run]}
    )
    for name, (record,) in records.items():
        text = record["out"] + record["err"]
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), (
            name,
            text,
        )
        assert not re.search(r"^zzz", text, re.MULTILINE), (
            name,
            text,
        )  # what follows the name's end of line
        assert "Traceback" not in text and text, (name, text)
    assert (
        r"a\x1b[2J\nzzz\u202e [red]" in records["predict"][0]["out"] + records["finished"][0]["out"]
    )
