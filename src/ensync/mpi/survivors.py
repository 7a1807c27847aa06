"""Going on without ranks that have died, where the MPI can: with ULFM, which Open MPI has under
`mpirun --with-ft ulfm`.
"""

import os
from dataclasses import dataclass
from typing import cast

from mpi4py import MPI

from ensync.mpi.world import Comm

_nodes: list[str] = []  # of the ranks of the whole job
_living: Comm | None = None  # once a rank has died


@dataclass(frozen=True)
class Loss:
    """What a death leaves: the communicator of the living, for each old rank its new one (-1:
    dead), and who died, in words.
    """

    comm: Comm
    moved: list[int]
    dead: str


def possible() -> bool:
    """Whether the launcher lets the others live when a rank dies, and the MPI library tells
    them.
    """
    return (
        os.environ.get("OMPI_MCA_mpi_ft_enable") == "1" and MPI.ERR_PROC_FAILED != MPI.ERR_REVOKED
    )


def remember_nodes(comm: Comm) -> None:
    """Note where all ranks are, as long as they can be asked. Collective."""
    if possible():
        _nodes[:] = comm.allgather(MPI.Get_processor_name())


def living() -> Comm | None:
    """Return the communicator of the ranks that are left, None while all are."""
    return _living


def is_loss(error: BaseException) -> bool:
    """Return whether an error of MPI's says that a rank has died."""
    return (
        possible()
        and isinstance(error, MPI.Exception)
        and error.Get_error_class()
        in (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED)
    )


def survivors(comm: Comm) -> Loss:
    """Return who is left of `comm`, on which nobody can do anything any more. Collective over
    the living.
    """
    global _living
    if not comm.Is_revoked():
        comm.Revoke()  # so that those who have not met the dead rank hear of it
    left = cast(Comm, comm.Shrink())
    moved = [
        -1 if rank == MPI.UNDEFINED else rank
        for rank in comm.group.Translate_ranks(list(range(comm.size)), left.group)
    ]
    world = MPI.COMM_WORLD.group
    dead = [
        rank
        for rank in comm.group.Translate_ranks(
            [old for old, new in enumerate(moved) if new < 0], world
        )
    ]
    _living = left
    return Loss(left, moved, ", ".join(f"rank {rank} on {_nodes[rank]}" for rank in dead))
