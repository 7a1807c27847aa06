"""Gathers what doctor.py judges: every rank's cores, threads, memory and clock, the wire between the ranks, and the file system."""

import os
import platform
import resource
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from ensync.doctor import Finding, Place, Rank, exit_code
from ensync.doctor import examine as judge
from ensync.job import Job
from ensync.kernels import facts as kernels
from ensync.kernels import threads
from ensync.mpi import facts as wire
from ensync.mpi.allreduce import gather_to_root
from ensync.mpi.world import Comm, mpi_description, on_root
from ensync.nn.optimizers import Optimizer
from ensync.report.console import Console
from ensync.storage import facts as disk
from ensync.storage.dataset import open_dataset
from ensync.strategies import launch
from ensync.strategies.data import Feeds
from ensync.strategies.session import build_network
from ensync.virtual_shards import meets

STYLES = {"green": "green", "yellow": "yellow", "red": "bold red"}


def doctor(comm: Comm, job: Job | None, console: Console) -> int:
    """Examine machine, launcher and file system, and what a job needs of them; return the exit code. Collective."""
    found = findings(comm, job)
    for finding in found:
        console.line(f"{finding.level:<6}  {finding.subject:<9}  {finding.sentence}.", STYLES[finding.level])
    console.check()
    return comm.bcast(exit_code(found))


def findings(comm: Comm, job: Job | None) -> list[Finding]:
    """Return on rank 0 what is found, an empty list elsewhere. Collective."""
    count = launch.thread_count(comm, job.training.threads if job else 0)
    ranks = gather_to_root(comm, _rank(comm, count))
    right, size, seconds = wire.try_allreduce(comm)
    needed = on_root(comm, lambda: _needed(job, comm.size)) if job else {}
    if ranks is None:
        return []
    return judge(ranks, _place(job.output.directory if job else ".", (right, size, seconds), needed))


def _rank(comm: Comm, count: int) -> Rank:
    threads.set_threads(count)
    cache, trouble = kernels.kernel_cache()
    return Rank(
        rank=comm.rank, node=platform.node(), mpi=mpi_description(), launcher=_launcher(), cores=frozenset(launch.cores()), node_cores=os.cpu_count() or 1,
        threads=count, granted=int(os.environ.get("SLURM_CPUS_PER_TASK") or 0), layer=kernels.threading_layer(), cache=cache, cache_trouble=trouble,
        clock=wire.clock(comm), memory=_memory(),
    )  # fmt: skip


def _launcher() -> str:
    """Return what started this rank. An mpirun inside a Slurm job is told by its own variables, since srun started its daemons."""
    if {"OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS"} & os.environ.keys():
        return "mpirun"
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        return "srun"
    return "mpirun" if "PMI_SIZE" in os.environ else ""


def _memory() -> int:
    """Return the bytes that this node, or Slurm's limit there, has free."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/proc/meminfo") as lines:
            free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    limit = int(os.environ.get("SLURM_MEM_PER_NODE") or 0) << 20
    return min(free, limit) if limit else free


def _place(directory: str, summed: tuple[bool, int, float], needed: dict[str, int]) -> Place:
    there = disk.existing(directory)
    kind, free = disk.file_system(there)
    trouble = disk.write_trouble(there)
    lock = "" if trouble else disk.lock_trouble(there)
    return Place(*summed, str(there), kind, free, disk.hdf5_version(), trouble, lock, needed)


def _needed(job: Job, size: int) -> dict[str, int]:
    """Return the bytes of the dataset, and of one rank: this process as it is, with the network's and the optimiser's arrays."""
    with_code = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    dataset = open_dataset(job.data.path)
    try:
        sizes = SimpleNamespace(dataset=dataset, train=range(dataset.sizes["train"]))   # all that the network's buffers depend on
        ranks = size if job.training.strategy == "synchronous" else 1
        network = build_network(job, cast(Feeds, sizes), ranks)
        shards = -(-job.training.virtual_shards // ranks) if job.training.deterministic and meets(network) else 1
        twins = [build_network(job, cast(Feeds, sizes), ranks) for _ in range(shards - 1)]
        optimizer = Optimizer(job.optimizer, len(network.parameters), network.dtype)
        held = {id(array): array.nbytes for array in _arrays([network, *twins, optimizer])}
        return {"dataset": sum(dataset.nbytes(split) for split in dataset.sizes), "rank": with_code + sum(held.values())}
    finally:
        dataset.close()


def _arrays(waiting: list[Any]) -> Iterator[np.ndarray]:
    """Yield the arrays that objects of the network hold, each by the array that owns its memory."""
    seen = set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            yield item if item.base is None else item.base
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        elif type(item).__module__.startswith("ensync.nn"):
            waiting.extend(vars(item).values())
