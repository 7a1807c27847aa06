"""The system's memory for sharing, /dev/shm.

Whether MPI finds room there before it starts, and what killed runs have left.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ensync.core.errors import EnsyncError

SHARED_DIRECTORY = "/dev/shm"
# MPICH with UCX takes these bytes for each rank of the node, measured with MPICH 5.0.2 on 1 to 8
# ranks. Where less than _FAST is free UCX goes without, and the second number is enough.
_EACH, _EACH_WITHOUT_UCX, _FAST, _REST = 5300 << 10, 1100 << 10, 15 << 20, 2 << 20
_ABANDONED = 600.0  # seconds after which a name that nobody uses counts as left by a killed run
_SEGMENT = re.compile(r"mpich_shm_[0-9a-f]+_\d+|(sm|vader)_segment\..+")


def check_room(environment: Mapping[str, str], library: str) -> None:
    """Refuse to start MPICH where its shared memory does not fit.

    Writing past the end kills a rank with SIGBUS and no reason.

    The first rank of the node tells; the others leave after it.
    """
    if library != "MPICH" or not os.path.isdir(SHARED_DIRECTORY):
        return
    ranks, free = _ranks_on_node(environment), shutil.disk_usage(SHARED_DIRECTORY).free
    if fits(ranks, free):
        return
    place = next(
        (environment[name] for name in ("MPI_LOCALRANKID", "SLURM_LOCALID") if name in environment),
        "0",
    )
    if place != "0":
        time.sleep(1)
        raise SystemExit(EnsyncError.exit_code)
    need = max(_FAST, ranks * _EACH) + _REST
    error = EnsyncError(
        f"{SHARED_DIRECTORY} on {os.uname().nodename} has {free / 1e6:.1f} MB free for the "
        f"{library} of {ranks} rank{'s' * (ranks > 1)}",
        f"{need / 1e6:.0f} MB",
        "give it more (docker run --shm-size=1g; mount -o remount,size=1g /dev/shm), remove "
        "what lies there, or start fewer ranks on the node",
    )
    if (
        environment.get("PMI_RANK", "0") != "0"
    ):  # the job's rank 0, on another node, may have nothing to say
        sys.stderr.write(f"{error}\n")
        raise SystemExit(EnsyncError.exit_code)
    raise error


def fits(ranks: int, free: int) -> bool:
    """Return whether MPICH's start finds what it touches."""
    if free < _FAST:
        return free >= ranks * _EACH_WITHOUT_UCX + (_EACH_WITHOUT_UCX >> 1)
    return free >= max(_FAST, ranks * _EACH) + _REST


def _ranks_on_node(environment: Mapping[str, str]) -> int:
    """Return how many ranks the launcher starts on this node.

    Of srun's list of nodes, "4(x2),3", the most.
    """
    for name in ("MPI_LOCALNRANKS", "SLURM_STEP_TASKS_PER_NODE"):
        numbers = [
            int(number) for number in re.findall(r"(?:^|,)(\d{1,6})", environment.get(name, ""))
        ]
        if numbers:
            return max(numbers)
    return 1


def forget_segments(prefix: str = "") -> None:
    """Take the names off the memory that MPI shares on this node.

    Nobody can open it any more, and a killed job leaves nothing of it.
    """
    with suppress(OSError), open("/proc/self/maps") as lines:
        for name in {
            line.split(maxsplit=5)[5].rstrip()
            for line in lines
            if f" {SHARED_DIRECTORY}/{prefix}" in line
        }:
            with suppress(OSError):
                os.unlink(name)


def forget_start() -> None:
    """Take the name off the memory in which MPICH's ranks met in MPI_Init, which all have left.

    MPICH keeps that one name to the end, so that each killed run would leave megabytes. Open MPI's
    are still needed.
    """
    forget_segments("mpich_shm_")


def remove_abandoned() -> int:
    """Remove what killed runs of this user have left in the shared memory of this node.

    Return how many bytes that were.

    Only names of MPI's that are old and that no process of this user has mapped. Should one be in
    use elsewhere all the same, by a container that cannot be seen, it is of no harm: all its ranks
    have opened it long ago.
    """
    now, found = time.time(), {}
    with suppress(OSError):
        for entry in os.scandir(SHARED_DIRECTORY):
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if (
                    _SEGMENT.fullmatch(entry.name)
                    and status.st_uid == os.geteuid()
                    and now - status.st_mtime > _ABANDONED
                ):
                    found[entry.path] = status.st_size
    if found:
        used = _mapped()
        found = {path: size for path, size in found.items() if path not in used}
    for path in found:
        with suppress(OSError):
            os.unlink(path)
    return sum(found.values())


def _mapped() -> set[str]:
    """Return the paths in shared memory that any process that can be asked has mapped."""
    paths = set()
    for process in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            paths |= {
                line.split(maxsplit=5)[5]
                for line in process.read_text(errors="replace").splitlines()
                if f" {SHARED_DIRECTORY}/" in line
            }
    return paths
