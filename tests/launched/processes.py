"""The processes of a started mpirun: who they are, and how to wait for what they do."""

import os
import signal
import time
from pathlib import Path

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
            variables = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        for name in _RANK:
            found |= {int(v.removeprefix(name)): process for v in variables if v.startswith(name)}
    return found


def kill_all(pid: int) -> None:
    """Send SIGKILL to mpirun, its helpers and all ranks, as the end of a batch job or of a node does."""
    for process in descendants(pid)[::-1]:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
