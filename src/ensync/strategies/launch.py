"""What every verb that trains does first: threads, dataset, compiled kernels, and the header that says so."""

import importlib.metadata
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensync import __version__
from ensync.errors import EnsyncError
from ensync.feed import Feed
from ensync.job import dump_job
from ensync.kernels import threads
from ensync.mpi.world import Comm, Topology, mpi_description, on_root, patient_barrier, split, topology
from ensync.nn import zoo
from ensync.nn.layers import Step
from ensync.nn.optimizers import Optimizer
from ensync.report.console import Console
from ensync.settings import Job
from ensync.storage.atomic import write_atomically
from ensync.strategies.data import Feeds, open_feeds
from ensync.strategies.session import Session
from ensync.strategies.state import has_checkpoint
from ensync.training import Trainee


@dataclass
class Place:
    """Where the run runs, and its dataset."""

    comm: Comm
    topology: Topology
    threads: int
    feeds: Feeds
    compile_seconds: float


def prepare(comm: Comm, job: Job) -> Place:
    """Give this rank its threads, open the dataset, compile. Collective."""
    where = topology(comm)
    count = job.training.threads or threads.thread_budget(_cores(), _neighbours(comm))
    try:
        threads.set_threads(count)
    except EnsyncError as error:
        raise EnsyncError(f"training.threads = {count}", error.expected, "give fewer, or 0 for those of this rank") from None
    feeds = open_feeds(comm, job)
    _check_validation(job, len(feeds.validation))
    return Place(comm, where, count, feeds, _compile_once_per_node(comm, where, job, feeds))


def _check_validation(job: Job, rows: int) -> None:
    """Refuse settings that decide by validation images where there are none."""
    weighted = job.training.strategy == "ensemble" and job.fusion.method == "weighted_voting"
    asked = {
        f"training.early_stopping = {job.training.early_stopping}": job.training.early_stopping, "training.best_weights = true": job.training.best_weights,
        "fusion.method = 'weighted_voting'": weighted,
    }
    for given, wanted in asked.items():
        if wanted and not rows:
            raise EnsyncError(f"{given} with {job.data.path}, which has no validation images", "a validation split to decide by",
                              "prepare the dataset with --validation 0.1, or leave the setting out")


def _cores() -> set[int]:
    """Return the cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _neighbours(comm: Comm) -> list[set[int]]:
    """Return the cores of every rank of this node. Collective."""
    return [cores for node, cores in comm.allgather((platform.node(), _cores())) if node == platform.node()]


def _compile_once_per_node(comm: Comm, where: Topology, job: Job, feeds: Feeds) -> float:
    """Compile on one rank per node while the others sleep; they then load its cache. Return the seconds. Collective."""
    begun = time.perf_counter()
    node = split(comm, comm.allgather(platform.node()).index(platform.node()), comm.rank)
    if where.local_rank == 0:
        _try_step(job, feeds)
    patient_barrier(node)
    if where.local_rank != 0:
        _try_step(job, feeds)
    patient_barrier(comm)
    node.Free()
    return time.perf_counter() - begun


def _try_step(job: Job, feeds: Feeds) -> None:
    """One step of a small twin of the network on blank images, so that every kernel exists before the clock starts."""
    dataset = feeds.dataset
    network = zoo.build(job, dataset.shape, dataset.classes, 2)
    optimizer = Optimizer(job.optimizer, len(network.parameters), network.dtype)

    class Alone:
        size, rank = 1, 0

    twin = Trainee(Alone(), lambda vector: None, job, 0, network, optimizer, _blank(feeds), np.arange(2))
    twin.train(1)
    network.backward(np.zeros((2, dataset.features), network.dtype), np.zeros(2, np.int64), 2, Step(training=True))
    optimizer.step(network.parameters, network.gradient)
    network.evaluate(network.inputs, np.zeros(2, np.int64))


def _blank(feeds: Feeds) -> Feed:
    train = feeds.train
    return Feed(np.zeros((2, feeds.dataset.features), np.uint8), np.zeros(2, np.int64), train.mean, train.inverse_std)


def begun(comm: Comm, job: Job, resume: bool, overwrite: bool) -> bool:
    """Return whether output.directory holds a run that is to be resumed. Collective. EnsyncError when it holds one and neither is wanted."""
    directory = Path(job.output.directory)

    def look() -> bool:
        held = has_checkpoint(directory)
        if held and not (resume or overwrite):
            raise EnsyncError(f"'{directory}' holds a run already", "an empty output.directory",
                              f"continue it with `ensync resume {directory}`, start afresh with --overwrite, or give --set output.directory=DIR")
        return held and resume

    return on_root(comm, look)


def take_directory(comm: Comm, job: Job) -> None:
    """Make the run's directory, remove what an earlier run left there, and write job.toml into it. Collective."""
    directory = Path(job.output.directory)

    def take() -> None:
        try:
            (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
            for old in [*(directory / "checkpoints").glob("checkpoint-*.h5"), directory / "history.jsonl", directory / "result.json"]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise EnsyncError(f"the output.directory '{directory}' cannot be made ({(error.strerror or str(error)).lower()})", "a directory that can be written",
                              "check its path and permissions or give --set output.directory=DIR") from None
        write_atomically(directory / "job.toml", [dump_job(job).encode()])

    on_root(comm, take)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {"ensync": __version__, "python": platform.python_version(), **{n: importlib.metadata.version(n) for n in ("numpy", "numba", "mpi4py", "h5py")}}


def header(console: Console, place: Place, session: Session) -> None:
    """Say what runs where, and what would be better."""
    job, dataset, trainee = session.job, place.feeds.dataset, next(iter(session.trainees.values()))
    network, where = trainee.network, place.topology
    members = job.ensemble.members if job.training.strategy == "ensemble" else 1
    train = len(place.feeds.train)
    console.header(
        versions=versions(), mpi=mpi_description(), ranks=where.size, threads=place.threads, nodes=where.node_names,
        shards=f"{len(trainee.rows):,} of {train:,} training rows for each of {members} members ({job.ensemble.data})" if members > 1
        else f"each batch of {trainee.batch:,} cut among {where.size} rank{'s' * (where.size > 1)}",
        network=f"{job.network.name} {'-'.join(str(int(np.prod(s))) for s in [network.shape, *(s for x, s in zip(network.layers, network.shapes, strict=True) if x.parameters)])}",
        layers=sum(bool(x.parameters) for x in network.layers), parameters=len(network.parameters),
        dataset=f"{job.data.path}: {train:,} train, {len(place.feeds.validation):,} validation, {len(place.feeds.test):,} test, "
        + " x ".join(map(str, dataset.shape)) + (", streamed" if place.feeds.streamed else ""),
        strategy=f"{job.training.strategy}, batch {trainee.batch:,}, {job.training.epochs} epochs, {job.optimizer.name} {job.optimizer.learning_rate:g}",
        more={"ready": f"kernels compiled or loaded in {place.compile_seconds:.1f} s"},
    )
    if where.ranks_on_node * place.threads > (os.cpu_count() or 1):
        console.warn(f"{where.ranks_on_node} ranks x {place.threads} threads share {os.cpu_count()} cores of this node; "
                     f"start fewer ranks or give --set training.threads={max(1, (os.cpu_count() or 1) // where.ranks_on_node)}")
    if job.training.batch != "full" and job.training.batch > len(trainee.rows):
        console.advise(f"training.batch = {job.training.batch:,} is more than the {len(trainee.rows):,} training rows, so each step takes all of them")
    if trainee.batch < session.plan.comm.size:
        console.advise(f"a batch of {trainee.batch} leaves {session.plan.comm.size - trainee.batch} of {session.plan.comm.size} ranks without "
                       f"a sample in each step; give --set training.batch={session.plan.comm.size} or more, or train an ensemble")


def cpu_name() -> str:
    """Return the processor's name as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
