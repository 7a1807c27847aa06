"""What the watchdog knows of a rank, and the sentence that it makes of all ranks."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ensync.core.activity import PHRASES, Doing
from ensync.core.errors import EnsyncError

GONE, SILENT = "", "?"  # states of processes beside those of Linux
_STATES = {
    GONE: " is gone and",
    "T": " is stopped by a signal and",
    "t": " is stopped by a debugger and",
    "D": " hangs in a disk or file system and",
}


@dataclass(frozen=True)
class Note:
    """What a rank does for `age` seconds after `step` steps, and the state of its process: a
    letter of proc_pid_stat(5), GONE or SILENT.
    """

    rank: int
    node: str
    process: int
    operation: int
    step: int
    age: float
    state: str

    @property
    def waits(self) -> bool:
        """Whether it waits for other ranks, as far as one can know."""
        return self.operation <= Doing.SHARED and self.state not in (*_STATES, SILENT)

    @property
    def compiles(self) -> bool:
        """Whether it compiles kernels, which may take longer than anything else and can tell
        nothing meanwhile.
        """
        return self.operation == Doing.COMPILING and self.state == "R"

    @property
    def dead(self) -> bool:
        """Whether its process has ended without leaving in order."""
        return self.state == GONE and self.operation != Doing.LEFT

    @property
    def where(self) -> str:
        """In which operation, and of which step where there are steps."""
        return PHRASES[self.operation] + (
            f" of step {self.step + 1}"
            if self.operation in (Doing.GRADIENT, Doing.STATISTICS, Doing.VALUES, Doing.TRAINING)
            else ""
        )


def standstill(notes: Iterable[Note], limit: float, directory: str) -> EnsyncError:
    """Return the report that nobody gets on, or that a rank is dead: the waiting ranks by
    operation, then each that others may wait for.
    """
    notes, now = sorted(notes, key=lambda note: note.rank), time.time()
    waiting: dict[str, list[Note]] = {}
    for note in notes:
        if note.waits:
            waiting.setdefault(note.where, []).append(note)
    told = [_waiting(where, group, now) for where, group in waiting.items()]
    told += [_other(note, now) for note in notes if not note.waits]
    if any(note.dead for note in notes):
        return EnsyncError(
            "; ".join(told),
            "all ranks of the job",
            "look for the reason in the log of its node, then continue with `ensync resume "
            f"{directory}`",
        )
    return EnsyncError(
        "; ".join(told),
        f"some rank to get on within training.watchdog = {limit:g} s",
        f"look at what is named last, then continue with `ensync resume {directory}`, or raise "
        "training.watchdog",
    )


def _waiting(where: str, notes: list[Note], now: float) -> str:
    several = len(notes) > 1
    return (
        f"rank{'s' * several} {_numbers([n.rank for n in notes])} wait{'s' * (not several)} "
        f"in {where} {_since(max(n.age for n in notes), now)}"
    )


def _other(note: Note, now: float) -> str:
    who = f"rank {note.rank} on {note.node} (process {note.process})"
    if note.state == SILENT:
        return f"{who} does not answer any more"
    return f"{who}{_STATES.get(note.state, '')} was last in {note.where} {_since(note.age, now)}"


def _since(age: float, now: float) -> str:
    return f"since {time.strftime('%H:%M:%S', time.localtime(now - age))} ({age:.0f} s)"


def _numbers(ranks: list[int]) -> str:
    """Return "0-3, 5" for 0, 1, 2, 3, 5."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    return ", ".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


def identity() -> tuple[int, str]:
    """Return this process's number and start time, which tells a later process with the same
    number apart.
    """
    return os.getpid(), _stat(os.getpid())[1]


def state(process: int, started: str) -> str:
    """Return the state of a process on this node, GONE when it has ended."""
    letter, since = _stat(process)
    return letter if since == started and letter not in "ZX" else GONE


def _stat(process: int) -> tuple[str, str]:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return fields[0], fields[19]  # fields 3 and 22 of proc_pid_stat(5)
    except OSError:
        return GONE, ""
