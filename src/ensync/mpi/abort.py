"""One failing rank ends the job, with its number, its node and the reason, once."""

import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mpi4py import MPI

from ensync.core.errors import sentence
from ensync.core.signals import INTERRUPTED, STOPPED, StoppedEarly
from ensync.core.streams import flush, tell, wait_until_read
from ensync.mpi import survivors
from ensync.mpi.room import forget_segments, forget_start
from ensync.mpi.world import Comm, patient_barrier

# How long a failed rank waits for the others to fail as well, before it ends the job over their
# heads.
_GRACE = 1.0
# What the launcher has not read and passed on when a job is aborted may be lost. So many seconds it
# gets at most to read, and then to pass on.
_READ = 1.0
_HEARD = 0.1


@contextmanager
def guard(comm: Comm) -> Iterator[None]:
    """Run the whole program of every rank inside this. Collective: all ranks enter it together.

    A rank that fails waits a moment for the others. When all ranks leave, as with a mistake that
    each of them finds, the reason is told once and they exit with its code. When others are still
    at work, or wait for this one in a collective that would never end, the rank tells its number,
    node and reason and aborts the job. Exit codes: 2 a mistake told in a sentence; 1 a bug, with
    traceback; 130 interrupted; 75 stopped by a signal before training; or that of sys.exit.
    """
    exit_comm = comm.Dup()
    survivors.remember_nodes(comm)
    forget_start()
    try:
        yield
        code, reason = 0, ""
    except BaseException as error:
        code, reason = _outcome(error)
        if survivors.is_loss(error):
            time.sleep(_delay(comm))
            end_job(comm, code, reason)
    left = survivors.living()
    if left is not None:
        _leave_for_good(left, _together(comm, left, code, reason))
    code = _together(comm, exit_comm, code, reason)
    exit_comm.Free()
    if code:
        raise SystemExit(code)


def _together(comm: Comm, exit_comm: Comm, code: int, reason: str) -> int:
    """Wait for the others, or end the job where they do not come, tell the reasons and return
    the exit code of all.
    """
    if code == 0:
        patient_barrier(exit_comm)
    elif not _all_leave(exit_comm):
        end_job(comm, code, reason or f"left with exit code {code} while other ranks went on")
    outcomes: list[tuple[int, str]] = exit_comm.allgather((code, reason))
    if exit_comm.rank == 0:
        _tell(outcomes)
    return max(code for code, _ in outcomes)


def _leave_for_good(comm: Comm, code: int) -> None:
    """Leave the process without the end of MPI, which may wait for the dead."""
    flush()
    patient_barrier(comm)
    os._exit(code)


def _outcome(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an exception and what a person should read about it, "" when
    nothing.
    """
    if known := sentence(error):
        return known.exit_code, str(known)
    if survivors.is_loss(error):
        return (
            1,
            "another rank has died; expected all ranks of the job; look for its reason above or "
            "in its node's log, then continue with `ensync resume`.",
        )
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, StoppedEarly):
        return STOPPED, str(error)
    if isinstance(error, SystemExit):
        counts = isinstance(error.code, int | None)
        return (int(error.code or 0), "") if counts else (1, str(error.code))
    inside = error.__traceback__ and error.__traceback__.tb_next  # without the guard's own frame
    return 1, "".join(traceback.format_exception(type(error), error, inside)).rstrip()


def _all_leave(comm: Comm) -> bool:
    """Return whether all ranks leave the program now; a higher rank waits longer, so that of
    several the lowest speaks.
    """
    limit = time.monotonic() + _GRACE + _delay(comm)
    request = comm.Ibarrier()
    while not request.Test():
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


def _delay(comm: Comm) -> float:
    """Return the seconds by which this rank lets the lower ones speak first."""
    return min(3 * _HEARD * comm.rank, 3 * _GRACE)


def end_job(comm: Comm, code: int, reason: str) -> None:
    """Tell why and abort all ranks."""
    forget_segments()
    tell(f"[rank {comm.rank} of {comm.size} on {MPI.Get_processor_name()}] {reason}")
    wait_until_read(2, _READ)
    time.sleep(_HEARD)
    comm.Abort(code)


def _tell(outcomes: list[tuple[int, str]]) -> None:
    """Write each different reason once: plainly when all ranks have the same, otherwise with the
    first rank that has it.
    """
    reasons = [reason for _, reason in outcomes]
    for rank, reason in enumerate(reasons):
        if reason and reason not in reasons[:rank]:
            everywhere = reasons.count(reason) == len(reasons)
            tell(reason if everywhere else f"[rank {rank} of {len(reasons)}] {reason}")
