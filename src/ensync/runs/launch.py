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
from ensync.core.config.job import dump_job
from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.core.fusion import FUSIONS
from ensync.core.resources import cpu_quota
from ensync.core.signals import ask_to_stop, leaving_at_once
from ensync.kernels import threads
from ensync.mpi.room import remove_abandoned
from ensync.mpi.world import Comm, Topology, on_root, share, topology
from ensync.report.console import Console
from ensync.runs.data import SplitLoaders, open_loaders
from ensync.runs.existing import holds_run, remove_earlier
from ensync.runs.identity import Identity
from ensync.runs.memory import Need, having, need_of, shortage
from ensync.runs.state import has_checkpoint
from ensync.runs.warm_up import compile_on_nodes
from ensync.storage import lock
from ensync.storage.atomic import write_atomically
from ensync.storage.dataset import open_dataset
from ensync.storage.layout import SPLITS
from ensync.strategies import strategy_of


@dataclass
class Prepared:
    """What `prepare` made ready: ranks, threads, dataset and kernels."""

    comm: Comm
    topology: Topology
    threads: int
    loaders: SplitLoaders
    compile_seconds: float
    processes: list[int]  # process number of each rank: MPICH's mpirun names a killed rank by it


def check_memory(
    comm: Comm,
    parts: Sequence[tuple[Job, int]],
    tested: Identity | None = None,
    splits: Sequence[str] = SPLITS,
) -> None:
    """Refuse jobs, run one after the other on so many ranks, for which memory does not suffice,
    before any of it is taken. Collective.

    tested: the dataset of a run that is tested alone. splits: whose images are read. Errors:
    EnsyncError, the same on all ranks.
    """

    def need(job: Job, ranks: int) -> Need:
        if tested is not None:
            return need_of(job, tested, ranks, False, splits)
        with open_dataset(job.data.path) as dataset:
            return need_of(job, dataset, ranks)

    found = on_root(comm, lambda: [need(*part) for part in parts])
    if refusal := shortage(found, share(comm, having())):
        raise refusal


def prepare(comm: Comm, job: Job, opened: Callable[[], SplitLoaders] | None = None) -> Prepared:
    """Give this rank its threads, open the dataset, compile; a signal ends the program meanwhile.
    Collective.

    opened: opens the dataset, where it is not the job's as it is.
    """
    with leaving_at_once():
        return _prepared(comm, job, opened or (lambda: open_loaders(comm, job)))


def _prepared(comm: Comm, job: Job, opened: Callable[[], SplitLoaders]) -> Prepared:
    where = topology(comm)
    if where.local_rank == 0:
        remove_abandoned()
    count = thread_count(comm, job.training.threads)
    try:
        threads.set_threads(count)
    except EnsyncError as error:
        raise EnsyncError(
            f"training.threads = {count}", error.expected, "give fewer, or 0 for those of this rank"
        ) from None
    with doing(Doing.READING):
        loaders = opened()
    _check_validation(job, loaders.identity.sizes["validation"])
    return Prepared(
        comm,
        where,
        count,
        loaders,
        compile_on_nodes(comm, where.local_rank, job, loaders, len(cores())),
        share(comm, os.getpid()),
    )


def _check_validation(job: Job, rows: int) -> None:
    """Refuse settings that decide by validation images where there are none."""
    weighted = FUSIONS[strategy_of(job).fusion(job)].needs_validation
    asked = {
        f"training.early_stopping = {job.training.early_stopping}": job.training.early_stopping,
        "training.best_weights = true": job.training.best_weights,
        f"plateau.patience = {job.plateau.patience}": job.plateau.patience,
        f"fusion.method = '{job.fusion.method}'": weighted,
    }
    for given, wanted in asked.items():
        if wanted and not rows:
            raise EnsyncError(
                f"{given} with {job.data.path}, which has no validation images",
                "a validation split to decide by",
                "prepare the dataset with --validation 0.1, or leave the setting out",
            )


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


def _neighbours(comm: Comm) -> list[set[int]]:
    """Return the cores of every rank of this node. Collective."""
    return [
        usable
        for node, usable in share(comm, (platform.node(), cores()))
        if node == platform.node()
    ]


@contextmanager
def holding(comm: Comm, directories: Iterable[str], verb: str, console: Console) -> Iterator[None]:
    """Hold the locks of directories on rank 0 while the block runs; the run is stopped when one
    is lost. Collective.
    """
    try:
        on_root(comm, lambda: lock.hold(map(Path, directories), verb, console.line, ask_to_stop))
        yield
    finally:
        lock.let_go()


def continues(comm: Comm, job: Job, resume: bool, overwrite: bool) -> bool:
    """Return whether output.directory holds a run that is to be resumed. Collective. EnsyncError
    when it holds one and neither is wanted.
    """
    directory = Path(job.output.directory)

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


def take_directory(comm: Comm, job: Job, console: Console, files: Sequence[Path] = ()) -> None:
    """Make the run's directory, remove what an earlier run left there, and `files`, and write
    job.toml into it. Collective.
    """
    remove_earlier(comm, job, console, files)
    write_job(comm, job)


def write_job(comm: Comm, job: Job) -> None:
    """Write job.toml as the run goes on by it from now on. Collective."""
    on_root(
        comm,
        lambda: write_atomically(Path(job.output.directory) / "job.toml", [dump_job(job).encode()]),
    )


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "ensync": __version__,
        "python": platform.python_version(),
        **{n: importlib.metadata.version(n) for n in ("numpy", "numba", "mpi4py", "h5py")},
    }


def cpu_name() -> str:
    """Return the processor's name as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
