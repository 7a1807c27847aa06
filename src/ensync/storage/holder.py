"""Who holds the lock of a run directory, and whether that process still lives."""

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ensync.storage.atomic import start_time

# Batch systems' numbers of a job. Slurm's comes with the count of its restarts: two incarnations
# never run at once.
_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "OAR_JOB_ID", "JOB_ID")


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    machine: the running kernel and the process numbers' namespace, "" where the system does not
    tell.
    """

    host: str = ""
    process: int = 0
    started: str = (
        ""  # start time of the process, which tells a later one with the same number apart
    )
    machine: str = ""
    job: str = ""  # "SLURM_JOB_ID=42", "" outside a batch system
    restarts: int = 0  # of that job
    since: str = ""  # local date and time
    verb: str = ""
    token: str = ""

    def __str__(self) -> str:
        job = (
            f", {self.job}" + f" (restart {self.restarts})" * bool(self.restarts)
            if self.job
            else ""
        )
        return (
            f"`ensync {self.verb}`, process {self.process} on {self.host}{job}, since {self.since}"
        )


UNKNOWN = Holder(
    verb="?", host="an unknown host", since="an unknown time"
)  # of a lock that cannot be read


def this_process(verb: str, environment: Mapping[str, str] = os.environ) -> Holder:
    """Return this process as a holder, with a token of its own."""
    job = next((f"{name}={environment[name]}" for name in _JOBS if environment.get(name)), "")
    restarts = environment.get("SLURM_RESTART_COUNT", "")
    return Holder(
        socket.gethostname(),
        os.getpid(),
        start_time(os.getpid()),
        _machine(),
        job,
        int(restarts) if restarts.isdigit() else 0,
        time.strftime("%Y-%m-%d %H:%M:%S"),
        verb,
        secrets.token_hex(8),
    )


def _machine() -> str:
    try:
        return (
            Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            + " "
            + os.readlink("/proc/self/ns/pid")
        )
    except OSError:
        return ""


def is_dead(holder: Holder, own: Holder) -> bool | None:
    """Return whether a holder has ended, as `own` can tell; None when only time can."""
    if holder.job and holder.job == own.job and holder.restarts < own.restarts:
        return True
    same = holder.machine == own.machine if own.machine else holder.host == own.host
    return start_time(holder.process) != holder.started if same and holder.process else None


def parsed(content: bytes) -> Holder:
    """Return the holder that the content of a lock file names, UNKNOWN when it names none."""
    try:
        values = json.loads(content)
        known = {name: type(default)(values[name]) for name, default in asdict(Holder()).items()}
    except (ValueError, TypeError, KeyError, RecursionError):
        return UNKNOWN
    return Holder(**known)
