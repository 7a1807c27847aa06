"""The variables without which Open MPI refuses, warns or waits on a machine of few cores, without
a fast network, or as root. The Makefile sets the same.
"""

from collections.abc import Mapping
from typing import NamedTuple

FEW_CORES = 4  # examples start as many ranks


class Machine(NamedTuple):
    """What decides whether a variable is needed: the user is root, cores are few, there is no fast
    network.
    """

    root: bool
    few_cores: bool
    no_fabric: bool


class Variable(NamedTuple):
    """A variable of the environment: its name, the value that helps, the field of Machine that
    asks for it, and what happens without it.
    """

    name: str
    value: str
    when: str
    without: str


VARIABLES = [
    Variable(*row)
    for row in (
        ("OMPI_ALLOW_RUN_AS_ROOT", "1", "root", "mpirun refuses to start for root"),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", "root", "mpirun refuses to start for root"),
        (
            "PRTE_MCA_rmaps_default_mapping_policy",
            ":oversubscribe",
            "few_cores",
            "mpirun refuses more ranks than cores",
        ),
        (
            "PRTE_MCA_hwloc_default_binding_policy",
            "none",
            "few_cores",
            "mpirun binds the threads of each rank to one core",
        ),
        (
            "OMPI_MCA_mpi_yield_when_idle",
            "1",
            "few_cores",
            "a rank that waits keeps its core from the ranks that work",
        ),
        (
            "OMPI_MCA_btl",
            "^ofi",
            "no_fabric",
            "each start looks for a fast network for a second",
        ),
        ("OMPI_MCA_osc", "^ucx", "no_fabric", "each start prints an error of ucx"),
        ("PMIX_MCA_psec", "native", "no_fabric", "each start may warn of munge"),
    )
]


def missing(environment: Mapping[str, str], machine: Machine) -> list[Variable]:
    """Return the variables that are needed on this machine, and that nobody has set."""
    return [
        each for each in VARIABLES if getattr(machine, each.when) and each.name not in environment
    ]
