import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ensync.report.terminal import Output, find_terminal

PROBE = (
    "import sys; from ensync.report.terminal import find_terminal; "
    "sys.stderr.write(repr(find_terminal(sys.stdout)))"
)
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc")


@pytest.fixture
def terminal(monkeypatch):
    """Yield both ends of a pseudo-terminal of 132 columns."""
    termios = pytest.importorskip("termios")
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, 132))
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def launched(tmp_path: Path, command: str, stdout: int) -> str:
    """Run a shell command below a process named mpirun whose output is `stdout`; return what the
    probe found.
    """
    launcher = tmp_path / "mpirun"
    launcher.symlink_to("/bin/sh")
    probe = f"{sys.executable} -c '{PROBE}'"
    return subprocess.run(
        [launcher, "-c", command.format(probe=probe)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    ).stderr


@linux
def test_a_launcher_that_reads_through_a_pipe_hides_no_terminal(terminal, tmp_path):
    assert launched(tmp_path, "{probe} | cat; true", terminal[1]) == "Terminal(columns=132)"


@linux
def test_a_launcher_that_makes_a_pseudo_terminal_makes_no_terminal_of_a_log(terminal, tmp_path):
    assert (
        launched(tmp_path, "({probe} > " + os.ttyname(terminal[1]) + "); true", subprocess.PIPE)
        == "None"
    )


def test_without_a_launcher_the_stream_knows(terminal, monkeypatch):
    monkeypatch.setattr("ensync.report.terminal._launcher", lambda: None)
    with open(terminal[1], "w", closefd=False) as stream:
        assert find_terminal(stream).columns == 132
        monkeypatch.setenv("TERM", "dumb")
        assert find_terminal(stream) is None


def test_files_and_buffers_are_no_terminals(tmp_path):
    assert find_terminal(io.StringIO()) is None
    with (tmp_path / "log").open("w") as log:
        assert find_terminal(log) is None


def test_a_write_is_one_call(tmp_path, monkeypatch):
    calls = []
    write = os.write
    monkeypatch.setattr(
        "os.write", lambda descriptor, data: calls.append(data) or write(descriptor, data)
    )
    with (tmp_path / "log").open("w", encoding="ascii") as log:
        Output(log).write("line\n" * 10_000 + "é\n")
    assert len(calls) == 1 and (tmp_path / "log").read_bytes() == b"line\n" * 10_000 + b"?\n"


def test_training_goes_on_when_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    stream = open(writer, "w")
    output = Output(stream)
    output.write("lost\n")
    output.write("not tried\n")
    assert not output.open
    stream.close()
