"""The processes of a started mpirun: who they are, and how to wait for what they do."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

from launched import launch

_RANK = ("OMPI_COMM_WORLD_RANK=", "PMI_RANK=")


def wait_until(condition, limit=20.0, pause=0.005):
    """Look until the condition is true and return what it returned; fail after `limit` seconds."""
    end = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {limit} s in vain"
        time.sleep(pause)
    return found


def descendants(pid: int) -> list[int]:
    """Return the process and all below it, the lowest first."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            child, rest = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
        except (OSError, IndexError):
            continue
        below.setdefault(int(rest[1]), []).append(child)
    found = [pid]
    for parent in found:
        found += below.get(parent, [])
    return found[::-1]


def rank_processes(pid: int) -> dict[int, int]:
    """Return the process number of each rank below a started mpirun."""
    found = {}
    for process in descendants(pid):
        try:
            variables = (
                Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
            )
        except OSError:
            continue
        for name in _RANK:
            found |= {int(v.removeprefix(name)): process for v in variables if v.startswith(name)}
    return found


def kill_all(pid: int) -> None:
    """Send SIGKILL to mpirun, its helpers and all ranks, as the end of a batch job or of a node
    does.
    """
    for process in descendants(pid)[::-1]:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass


def in_terminal(place, *command):
    """Start a command as the foreground of a terminal of its own; return its process and the
    terminal's other end.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "os.execvp(sys.argv[1], sys.argv[1:])",
            *command,
        ],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        cwd=place.directory,
        env=launch.environment() | {"TERM": "xterm"},
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    return process, ours


def shown(terminal):
    """What a terminal shows by now."""
    try:
        return os.read(terminal, 1 << 20).decode(errors="replace")
    except OSError:
        return ""
