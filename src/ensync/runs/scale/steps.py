"""Steps of a job's network on this rank, timed by rows and threads. Collective throughout."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np

from ensync.core.activity import Doing, doing, tick
from ensync.core.config.communication import Communication
from ensync.core.config.schema import Job
from ensync.core.scaling.passing import Sizes
from ensync.core.scaling.prediction import largest_share
from ensync.kernels.threads import use_threads
from ensync.mpi.world import Comm, patient_barrier, share, split
from ensync.nn.network import Network
from ensync.nn.optimizers import Factors, Optimizer
from ensync.nn.step_metrics import METRICS, StepMetrics
from ensync.report.console import Console
from ensync.runs.data import SplitLoaders
from ensync.runs.networks import build_network
from ensync.training.batches import first_images
from ensync.training.learning_rate import EpochPlan
from ensync.training.reducers import Part, SerialReducer
from ensync.training.runners import MiniBatchRunner, Replica, Runner
from ensync.training.trainer import Trainer

WARM, FEWEST, MOST = 2, 5, 500  # steps that are not timed, the fewest and the most that are
ENOUGH = 0.1  # seconds of steps, where these are more than MANY
MANY = 40
LOOPS = 200  # steps of a loop that is timed by itself
MOST_POINTS = 6  # numbers of rows
MORE = 4  # times the batch that is timed, too, for what larger batches would take


@dataclass(frozen=True)
class Bench:
    """A job's network on this rank with all that its steps need; its parameters stay as they are,
    since the learning rate is zero.
    """

    job: Job
    network: Network
    optimizer: Optimizer
    runner: MiniBatchRunner
    sizes: Sizes
    factors: Factors

    def step(self, rows: int) -> None:
        """Do a step of so many rows."""
        tick()
        self.runner.run(np.arange(rows) % self.sizes.rows, 0, self.factors)


def synchronous_form(job: Job) -> Job:
    """Return the job with gradients that are summed in every step."""
    return job.model_copy(update={"communication": Communication()})


def roomy(job: Job) -> Job:
    """Return the job with as many times its batch as one slice of it goes through the network at
    once, MORE times at most.
    """
    batch, at_once = job.training.batch, job.training.slice
    if isinstance(batch, str) or batch >= at_once:
        return job
    training = job.training.model_copy(update={"batch": min(MORE * batch, at_once)})
    return job.model_copy(update={"training": training})


def build(job: Job, loaders: SplitLoaders) -> Bench:
    """Return the bench of a job, whose network has room for more than a whole batch."""
    job = synchronous_form(job)
    network = build_network(roomy(job), loaders.identity, 1)
    optimizer = Optimizer(job.optimizer, network.layout, network.dtype)
    if job.augmentation.colour_noise:
        loaders.train.find_colours()
    rows = np.arange(len(loaders.train), dtype=np.int64)
    passed: list[int] = []

    def runner_of(allreduce: Callable[[np.ndarray], None]) -> MiniBatchRunner:
        reducer = SerialReducer(network, Part(1, 0, allreduce))
        return MiniBatchRunner(Replica(job, 0, network, optimizer, reducer, loaders.train, rows))

    factors = [0.0] * len(optimizer.settings.of_groups)
    network.initialize(
        job.training.seed, 0, partial(first_images, loaders.train, loaders.identity.shape)
    )
    runner_of(lambda vector: passed.append(vector.nbytes)).run(rows[:2], 0, factors)
    sizes = Sizes(
        rows=len(rows),
        batch=EpochPlan(job, len(rows)).batch(0),
        slice=job.training.slice,
        itemsize=network.dtype.itemsize,
        parameters=len(network.parameters),
        statistics=len(network.statistics),
        exact=METRICS,
        slots=len(optimizer.slots),
        sums=tuple(passed),
        averages=network.averages_statistics,
        elementwise=optimizer.elementwise,
    )
    return Bench(job, network, optimizer, runner_of(lambda vector: None), sizes, factors)


def rows_to_time(sizes: Sizes, ranks: Iterable[int], launched: int) -> list[int]:
    """Return at most MOST_POINTS numbers of rows, ascending: the whole batch, its share among the
    ranks at hand, the least share among `ranks`, and shares between these; and more than a batch,
    where a slice has room for it.
    """
    shares = sorted({largest_share(sizes, count) for count in (1, launched, *ranks)} - {0})
    kept = {shares[0], shares[-1], largest_share(sizes, launched)}
    for place in np.linspace(0, len(shares) - 1, MOST_POINTS).round().astype(int):
        if len(kept) < MOST_POINTS - 1:
            kept.add(shares[place])
    return sorted(kept | {max(shares[-1], min(MORE * sizes.batch, sizes.slice, sizes.rows))})


def time_steps(comm: Comm, do: Callable[[], None], seconds: float) -> np.ndarray:
    """Return the seconds float64 (steps, ranks) of as many calls as fit into so many seconds, each
    begun by all ranks together, on every rank. Collective.
    """
    with doing(Doing.TRAINING):
        for _ in range(WARM):
            start = perf_counter()
            do()
        own = perf_counter() - start
        longest = max(share(comm, own))
        count = steps_in(seconds, max(longest, 1e-9))
        times = []
        for _ in range(count):
            comm.Barrier()
            start = perf_counter()
            do()
            times.append(perf_counter() - start)
    return np.array(share(comm, times)).T


def steps_in(seconds: float, step: float) -> int:
    """Return how many steps are timed that take so long, in so many seconds at most."""
    wanted = max(MANY, ENOUGH / step)
    return int(min(MOST, wanted, max(FEWEST, seconds / step)))


def time_freely(comm: Comm, do: Callable[[], None], count: int) -> np.ndarray:
    """Return the seconds (calls, ranks) of so many calls without a wait between them, on every
    rank. Collective.
    """
    comm.Barrier()
    with doing(Doing.TRAINING):
        ends = [perf_counter()]
        for _ in range(count):
            do()
            ends.append(perf_counter())
    return np.array(share(comm, np.diff(ends))).T


def on_threads(comm: Comm, threads: int, takes_part: bool, do: Callable[[Comm], None]) -> None:
    """Call `do` with the communicator of the ranks that take part, on so many threads each, while
    the others sleep. Collective.
    """
    some = split(comm, int(takes_part), comm.rank)
    if takes_part:
        use_threads(threads)
        do(some)
    patient_barrier(comm)
    some.Free()


class _Loop(Trainer):
    """A training loop around steps that do nothing."""

    @property
    def runner(self) -> Runner:
        return _NoSteps(self)


@dataclass
class _NoSteps:
    """The steps of such a loop."""

    replica: Replica
    steps: int = 1

    def run(self, rows: np.ndarray, epoch: int, factors: Factors) -> StepMetrics:
        return StepMetrics(0.0, 0, 0)


def loop_seconds(bench: Bench, console: Console) -> float:
    """Return the seconds of a step that the training loop takes by itself."""
    given = bench.runner.replica

    def progress(trainer: Trainer) -> None:
        tick(trainer.optimizer.steps)
        console.step(trainer.steps_done, trainer.loss)

    loop = _Loop(
        *(given.job, 0, given.network, given.optimizer, given.reducer, given.loader, given.rows),
        progress=progress,
    )
    start = perf_counter()
    loop.train(LOOPS)
    return (perf_counter() - start) / max(1, loop.position.step)


def meeting_of(bench: Bench) -> Callable[[], None]:
    """Return the arithmetic of a meeting of replicas (strategies.local), without its sum."""
    network, settings = bench.network, bench.job.communication.outer
    met, outer = (
        network.parameters.copy(),
        Optimizer(settings, network.layout, network.dtype),
    )

    def meet() -> None:
        np.subtract(met, network.parameters, out=network.gradient)
        network.gradient *= 0.5
        outer.step(met, network.gradient)
        network.parameters[:] = met

    return meet
