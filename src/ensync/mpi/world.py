"""Ranks and nodes: the communicator of the whole job, who sits where, and decisions that all
ranks take together.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from mpi4py import MPI

from ensync.core.activity import Doing, doing
from ensync.core.errors import sentence
from ensync.core.signals import StoppedEarly

Comm = MPI.Intracomm
T = TypeVar("T")


def world() -> Comm:
    """Return the communicator of all ranks of this job."""
    return MPI.COMM_WORLD


def mpi_description() -> str:
    """Return the name and version of the MPI library, such as "MPICH 5.0.2"."""
    name, version = MPI.get_vendor()
    return f"{name} {'.'.join(map(str, version))}"


@dataclass(frozen=True)
class Topology:
    """Where the ranks sit: `nodes` machines named in order of their first rank, `ranks_on_node`
    of them here, `local_rank` among these.
    """

    size: int
    rank: int
    nodes: int
    node_names: list[str]
    ranks_on_node: int
    local_rank: int


def topology(comm: Comm) -> Topology:
    """Return where the ranks of `comm` sit. Collective."""
    node = node_of(comm)
    try:
        first = MPI.Get_processor_name() if node.rank == 0 else None
        names = [name for name in comm.allgather(first) if name is not None]
        return Topology(comm.size, comm.rank, len(names), names, node.size, node.rank)
    finally:
        node.Free()


def on_root(comm: Comm, function: Callable[[], T]) -> T:
    """Call `function` on rank 0 while the others sleep, and return its (picklable) result on every
    rank. Collective.

    An EnsyncError, and what becomes one (errors.sentence), is raised on all ranks alike, and a
    StoppedEarly; of any other exception the others hear as a RuntimeError.
    """
    outcome: tuple[T | None, BaseException | None] = None, None
    bug: BaseException | None = None
    if comm.rank == 0:
        try:
            outcome = function(), None
        except StoppedEarly as error:
            outcome = None, error
        except BaseException as error:
            if known := sentence(error):
                outcome = None, known
            else:
                bug, outcome = error, (None, RuntimeError(f"rank 0 failed: {error!r}"))
    with doing(Doing.ROOT):
        _sleep_until_all_come(comm)
        result, failure = comm.bcast(outcome)
    if bug or failure:
        raise bug or failure
    return cast(T, result)


def agree_any(comm: Comm, flag: bool) -> bool:
    """Return on every rank whether any rank passed a true flag. Collective."""
    found = np.array([flag], np.int8)
    with doing(Doing.AGREEMENT):
        comm.Allreduce(
            MPI.IN_PLACE, found, op=MPI.MAX
        )  # not mpi4py's allreduce of objects, which lets no other thread run while it waits
    return bool(found[0])


def share(comm: Comm, item: T) -> list[T]:
    """Return on every rank the (picklable) items of all ranks, in order of rank. Collective."""
    with doing(Doing.AGREEMENT):
        return comm.allgather(item)


def patient_barrier(
    comm: Comm, longest_sleep: float = 0.02, meanwhile: Callable[[], object] = lambda: None
) -> None:
    """Wait for all ranks, asleep between looks: a barrier's spinning would take the cores of the
    ranks that still work. Collective.

    meanwhile: called after each look.
    """
    with doing(Doing.MEETING):
        _sleep_until_all_come(comm, longest_sleep, meanwhile)


def _sleep_until_all_come(
    comm: Comm, longest_sleep: float = 0.02, meanwhile: Callable[[], object] = lambda: None
) -> None:
    request, pause = comm.Ibarrier(), 1e-5
    while not request.Test():
        meanwhile()
        time.sleep(pause)
        pause = min(2 * pause, longest_sleep)


def node_of(comm: Comm) -> Comm:
    """Return the communicator of the ranks of this node, which share its memory. Collective."""
    return cast(Comm, comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank))


def split(comm: Comm, color: int, key: int = 0) -> Comm:
    """Return the communicator of the ranks with the same colour, ordered by key, then rank.
    Collective.
    """
    return cast(Comm, comm.Split(color, key))


def alone() -> Comm:
    """Return the communicator of this rank only, for work that one rank does by itself."""
    return MPI.COMM_SELF
