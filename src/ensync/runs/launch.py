"""What every verb that trains does first: threads, dataset, compiled kernels, a directory."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ensync import __version__
from ensync.core.activity import Doing, doing
from ensync.core.errors import EnsyncError
from ensync.core.resources import cpu_quota
from ensync.core.signals import ask_to_stop, leaving_at_once
from ensync.kernels import threads
from ensync.mpi.room import remove_abandoned
from ensync.mpi.world import Comm, Topology, on_root, share, topology
from ensync.report.console import Console
from ensync.report.results import DatasetFacts, Machine
from ensync.runs.data import SplitLoaders
from ensync.runs.existing import holds_run
from ensync.runs.memory import Need, having, shortage
from ensync.runs.state import has_checkpoint
from ensync.runs.warm_up import compile_on_nodes
from ensync.storage import lock
from ensync.storage.layout import SPLITS


@dataclass
class Prepared:
    """What `prepare` made ready: ranks, threads, dataset and kernels."""

    comm: Comm
    topology: Topology
    threads: int
    loaders: SplitLoaders
    compile_seconds: float
    processes: list[int]  # process number of each rank: MPICH's mpirun names a killed rank by it


def check_memory(comm: Comm, needs: Callable[[], Sequence[Need]]) -> None:
    """Refuse runs, one after the other, for which memory does not suffice, before any of it is
    taken. Collective.

    needs: returns what they need, asked on rank 0. Errors: EnsyncError, the same on all ranks.
    """
    found = on_root(comm, needs)
    if refusal := shortage(found, share(comm, having())):
        raise refusal


def prepare(
    comm: Comm,
    wanted_threads: int,
    opened: Callable[[], SplitLoaders],
    try_step: Callable[[SplitLoaders, int], None],
) -> Prepared:
    """Give this rank its threads, open the dataset, compile; a signal ends the program meanwhile.
    Collective.

    opened: opens the dataset. try_step(loaders, cores): does a step with it.
    """
    with leaving_at_once():
        where = topology(comm)
        if where.local_rank == 0:
            remove_abandoned()
        count = thread_count(comm, wanted_threads)
        try:
            threads.set_threads(count)
        except EnsyncError as error:
            given, action = f"training.threads = {count}", "give fewer, or 0 for those of this rank"
            raise EnsyncError(given, error.expected, action) from None
        with doing(Doing.READING):
            loaders = opened()
        seconds = compile_on_nodes(comm, where.local_rank, lambda: try_step(loaders, len(cores())))
        return Prepared(comm, where, count, loaders, seconds, share(comm, os.getpid()))


def thread_count(comm: Comm, wanted: int) -> int:
    """Return the threads of this rank: those wanted, or its share of the cores, no more than
    Slurm promised it. Collective.
    """
    here = _neighbours(comm)
    share = min(
        threads.thread_budget(cores(), here), max(1, int(min(cpu_quota() / len(here), sys.maxsize)))
    )  # beyond a quota all are halted
    promised = os.environ.get(
        "SLURM_CPUS_PER_TASK", ""
    )  # where Slurm does not bind, the affinity mask does not know
    return wanted or min(share, int(promised) if promised.isdigit() else share)


def cores() -> set[int]:
    """Return the cores that this process may use."""
    return (
        os.sched_getaffinity(0)
        if hasattr(os, "sched_getaffinity")
        else set(range(os.cpu_count() or 1))
    )


def cores_of(comm: Comm) -> int:
    """Return the cores that all ranks together may use. Collective."""
    return len(
        {(node, core) for node, those in share(comm, (platform.node(), cores())) for core in those}
    )


def _neighbours(comm: Comm) -> list[set[int]]:
    """Return the cores of every rank of this node. Collective."""
    return [
        usable
        for node, usable in share(comm, (platform.node(), cores()))
        if node == platform.node()
    ]


@contextmanager
def holding(comm: Comm, directories: Iterable[Path], verb: str, console: Console) -> Iterator[None]:
    """Hold the locks of directories on rank 0 while the block runs; the run is stopped when one
    is lost. Collective.
    """
    try:
        on_root(comm, lambda: lock.hold(directories, verb, console.line, ask_to_stop))
        yield
    finally:
        lock.let_go()


def continues(comm: Comm, directory: Path, resume: bool, overwrite: bool) -> bool:
    """Return whether a run's directory holds one that is to be resumed. Collective. EnsyncError
    when it holds one and neither is wanted.
    """

    def look() -> bool:
        started = has_checkpoint(directory)
        if holds_run(directory) and not (overwrite or (resume and started)):
            raise EnsyncError(
                f"'{directory}' holds a run already",
                "an empty output.directory",
                f"continue it with `ensync resume {directory}`, start afresh with --overwrite, "
                "or give --set output.directory=DIR",
            )
        return started and resume

    return on_root(comm, look)


def machine_of(comm: Comm, threads: int) -> Machine:
    """Return where these ranks run, each on so many threads. Collective."""
    return Machine(cpu_name(), topology(comm).nodes, comm.size, threads, cores_of(comm))


def facts_of(loaders: SplitLoaders) -> DatasetFacts:
    """Return on which images a run is trained and tested."""
    dataset, identity = loaders.dataset, loaders.identity
    return DatasetFacts(
        identity.name,
        str(dataset.path),
        {name: len(getattr(loaders, name)) for name in SPLITS},
        list(identity.shape),
        identity.fingerprint,
    )


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "ensync": __version__,
        "python": platform.python_version(),
        **{n: importlib.metadata.version(n) for n in ("numpy", "numba", "mpi4py", "h5py")},
    }


def cpu_name() -> str:
    """Return the processor's name as the operating system gives it, which on virtual machines may
    be no more than its maker's, and its generation as LLVM names it.
    """
    name, generation = _system_name(), threads.processor()
    return name if generation == "generic" else f"{name} ({generation})"


def _system_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
