"""Start `mpirun -n N python ...` from a serial test, with a time limit and nothing left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensync.runs import open_mpi

# What launchers leave in the environment of their ranks: a run started from one of them must not
# inherit it.
_LAUNCHER_PREFIXES = (
    "PMI_",
    "PMIX_",
    "OMPI_",
    "PRTE_",
    "MPI_LOCAL",
    "HYDI_",
    "MPIR_CVAR",
    "SLURM_",
    "GFORTRAN_",
)

_OPENMPI = {each.name: each.value for each in open_mpi.VARIABLES}

# In the environment of all that a `start` starts: a launcher may give ranks groups of their own.
_MARK = "ENSYNC_TEST_RUN"
_marks: dict[int, bytes] = {}


@dataclass
class Run:
    """How a run ended: exit code, what it wrote, seconds it took, and whether the time limit
    ended it.
    """

    code: int
    out: str
    err: str
    seconds: float
    timed_out: bool


def mpirun() -> list[str]:
    """Return the command of the mpirun that belongs to this Python's environment, or else the
    first on PATH.
    """
    own = Path(sys.executable).parent / "mpirun"
    return [str(own) if own.exists() else "mpirun"]


def environment() -> dict[str, str]:
    """Return this environment without a launcher's traces, with what Open MPI needs where that
    is used (MPICH ignores it).
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_LAUNCHER_PREFIXES)
    }
    return kept | _OPENMPI


def start(
    ranks: int, *arguments: str, flags: Sequence[str] = (), through: Sequence[str] = (), **options
) -> subprocess.Popen:
    """Start `python arguments` on that many ranks in a process group of its own; the caller ends it
    with `stop`.

    flags: of mpirun; through: a command that starts Python.
    """
    mark = str(uuid.uuid4())
    options["env"] = options.get("env", environment()) | {_MARK: mark}
    process = subprocess.Popen(
        [*mpirun(), *flags, "-n", str(ranks), *through, sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    _marks[process.pid] = f"{_MARK}={mark}".encode()
    return process


def stop(process: subprocess.Popen) -> None:
    """Kill the process group of `start`, and ranks in groups of their own, if any are left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    mark = _marks.pop(process.pid, None)
    for environ in Path("/proc").glob("[0-9]*/environ") if mark else ():
        with contextlib.suppress(OSError):
            if mark in environ.read_bytes().split(b"\0"):
                os.kill(int(environ.parent.name), signal.SIGKILL)
    process.wait()


def run(ranks: int, *arguments: str, limit: float = 30, **options) -> Run:
    """Run `python arguments` on that many ranks for at most `limit` seconds."""
    begin, process, timed_out = time.monotonic(), start(ranks, *arguments, **options), False
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        timed_out = True
        stop(process)
        out, err = process.communicate()
    finally:
        stop(process)
    return Run(process.returncode, out, err, time.monotonic() - begin, timed_out)


def library() -> str:
    """Return the name of the MPI that mpirun belongs to: "Open MPI" or "MPICH"."""
    version = subprocess.run([*mpirun(), "--version"], capture_output=True, text=True, check=False)
    return "Open MPI" if "Open" in version.stdout else "MPICH"
