"""Which process of how many this is, as the launcher's variables say, before MPI is initialised."""

from collections.abc import Mapping
from typing import NamedTuple

# Variables in which launchers say how many ranks they started and which one this is: mpirun of Open
# MPI, of MPICH and its kin (and srun --mpi=pmi2), any srun. The first that is set decides: under
# mpirun inside a Slurm allocation the last describes mpirun's own daemons.
VARIABLES = [
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMI_SIZE", "PMI_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
]


class Started(NamedTuple):
    """How many ranks a launcher started, which of them this is, and the variable that says so
    ("" without a launcher).
    """

    size: int
    rank: int
    name: str


def started(environment: Mapping[str, str]) -> Started:
    """Return what the launcher says; a rank without a number of ranks, or beyond it, says
    nothing.
    """
    for size, rank in VARIABLES:
        if environment.get(size, "").isdigit():
            number = environment.get(rank, "")
            known = number.isdigit() and int(number) < int(environment[size])
            return Started(int(environment[size]), int(number) if known else 0, size)
    return Started(1, 0, "")
