"""Gathers what fitness.py judges: every rank's cores, threads, memory and clock, the wire between
the ranks, and the file system.
"""

import os
import platform
from pathlib import Path

from ensync.core.config.job import Job
from ensync.core.resources import cpu_quota, node_memory, number, process_memory
from ensync.kernels import facts as kernels
from ensync.kernels import threads
from ensync.kernels.simd.host import description
from ensync.mpi import facts as wire
from ensync.mpi.allreduce import gather_to_root
from ensync.mpi.world import Comm, mpi_description, on_root
from ensync.report.console import Console
from ensync.runs import launch
from ensync.runs.fitness import Finding, Rank, Site, exit_code
from ensync.runs.fitness import examine as judge
from ensync.runs.memory import need_of
from ensync.runs.open_mpi import FEW_CORES, Machine, Variable, missing
from ensync.storage import facts as disk
from ensync.storage.dataset import open_dataset

FABRICS = "/sys/class/infiniband"  # where Linux lists InfiniBand and its kin
STYLES = {"green": "green", "yellow": "yellow", "red": "bold red"}


def doctor(comm: Comm, job: Job | None, console: Console) -> int:
    """Examine machine, launcher and file system, and what a job needs of them; return the exit
    code. Collective.
    """
    found = findings(comm, job)
    for finding in found:
        console.line(
            f"{finding.level:<6}  {finding.subject:<9}  {finding.sentence}.", STYLES[finding.level]
        )
    console.check()
    code: int = comm.bcast(exit_code(found))
    return code


def findings(comm: Comm, job: Job | None) -> list[Finding]:
    """Return on rank 0 what is found, an empty list elsewhere. Collective."""
    count = launch.thread_count(comm, job.training.threads if job else 0)
    ranks = gather_to_root(comm, _rank(comm, count))
    right, size, seconds = wire.try_allreduce(comm)
    needed = on_root(comm, lambda: _needed(job, comm.size)) if job else {}
    if ranks is None:
        return []
    return judge(ranks, _site(job.output.directory if job else ".", (right, size, seconds), needed))


def _rank(comm: Comm, count: int) -> Rank:
    threads.set_threads(count)
    cache, trouble = kernels.kernel_cache()
    shared, own = node_memory(), process_memory()
    return Rank(
        rank=comm.rank,
        node=platform.node(),
        mpi=mpi_description(),
        launcher=_launcher(),
        cores=frozenset(launch.cores()),
        node_cores=os.cpu_count() or 1,
        threads=count,
        granted=number(os.environ.get("SLURM_CPUS_PER_TASK")),
        layer=kernels.threading_layer(),
        vectors=description(),
        cache=cache,
        cache_trouble=trouble,
        clock=wire.clock(comm),
        memory=shared.bytes,
        bound=shared.bound,
        own_memory=own.bytes,
        own_bound=own.bound,
        quota=cpu_quota(),
        unset=_unset(),
    )


def _unset() -> tuple[Variable, ...]:
    """Return the variables that Open MPI needs on this machine, and that nobody has set."""
    if not mpi_description().startswith("Open MPI") or _launcher() == "srun":
        return ()
    few, fabric = (os.cpu_count() or 1) < FEW_CORES, Path(FABRICS).is_dir()
    return tuple(missing(os.environ, Machine(os.geteuid() == 0, few, not fabric)))


def _launcher() -> str:
    """Return what started this rank. An mpirun inside a Slurm job is told by its own variables,
    since srun started its daemons.
    """
    if {"OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS"} & os.environ.keys():
        return "mpirun"
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        return "srun"
    return "mpirun" if "PMI_SIZE" in os.environ else ""


def _site(directory: str, summed: tuple[bool, int, float], needed: dict[str, int]) -> Site:
    there = disk.existing(directory)
    kind, free = disk.file_system(there)
    trouble = disk.write_trouble(there)
    lock = "" if trouble else disk.lock_trouble(there)
    return Site(*summed, str(there), kind, free, disk.hdf5_version(), trouble, lock, needed)


def _needed(job: Job, size: int) -> dict[str, int]:
    with open_dataset(job.data.path) as dataset:
        need = need_of(job, dataset, size)
    return {"dataset": need.images, "rank": need.rank}
