"""The gradient noise scale of a job, from the first steps of a training that is then forgotten.

It could also be one more number in the gradient's sum of every run. Here it costs no run anything,
is there before the first one, and is known on one rank, too, whose batches are cut as well.
"""

from collections.abc import Callable
from time import perf_counter

import numpy as np

from ensync.core.activity import Doing, doing
from ensync.core.scaling.noise import NoiseScale, noise_scale, parts_of
from ensync.core.sharding import block
from ensync.kernels.optim.updates import sum_of_squares
from ensync.mpi.allreduce import Allreduce
from ensync.mpi.world import Comm, agree_any
from ensync.nn.network import Network
from ensync.nn.step_metrics import STOP, StepMetrics
from ensync.runs.data import SplitLoaders
from ensync.runs.scale.steps import Bench
from ensync.training.batches import first_images
from ensync.training.reducers import Compute, Part, Reducer
from ensync.training.trainer import Trainer

MOST_STEPS = 400


class NoiseReducer(Reducer):
    """Sums the gradients of equal parts of each batch, and notes how long each is, and their mean.

    batch: whose steps count; the last of an epoch may be smaller, and its parts unequal. norms:
    of each such step the mean |g|^2 over the parts, and |g|^2 of their mean.
    """

    def __init__(self, network: Network, comm: Comm, parts: int, batch: int) -> None:
        super().__init__(network)
        self._sum, self.parts, self._batch = Allreduce(comm), parts, batch
        self._mine = range(*block(parts, comm.size, comm.rank))
        self.norms: list[tuple[float, float]] = []

    def reduce(self, compute: Compute, stop_requested: Callable[[], int]) -> StepMetrics:
        """Compute this rank's parts, one after the other, and take the mean of all."""
        n = self.network
        total, counts, rows = np.zeros_like(n.gradient), np.zeros(5), 0
        for index in self._mine:
            own = compute(n, Part(self.parts, index, alone=True))
            total += own * n.gradient
            counts[:STOP] += n.metrics[:STOP]
            counts[3] += sum_of_squares(n.gradient)
            rows += own
        counts[4] = rows
        self._sum(total)
        self._sum(counts)
        total /= max(1.0, counts[4])
        n.gradient[:] = total
        if counts[4] == self._batch:
            self.norms.append((counts[3] / self.parts, sum_of_squares(total)))
        return StepMetrics.read(np.append(counts[:STOP], 0.0))


def measure_noise(
    comm: Comm, bench: Bench, loaders: SplitLoaders, steps: int, seconds: float
) -> NoiseScale | None:
    """Return the noise scale in the second half of at most so many steps, and about so many
    seconds, of a training from its start; None where batches cannot be cut into equal parts. The
    bench's network is another one then. Collective.
    """
    sizes, given = bench.sizes, bench.runner.replica
    parts = parts_of(sizes.batch, sizes.slice, comm.size)
    if parts < 2:
        return None
    reducer = NoiseReducer(bench.network, comm, parts, sizes.batch)
    trainer = Trainer(
        *(given.job, 0, bench.network, bench.optimizer, reducer, given.loader, given.rows),
        start_images=lambda: first_images(loaders.train, loaders.identity.shape),
    )
    trainer.restart()
    start = perf_counter()
    with doing(Doing.TRAINING):
        while len(reducer.norms) < min(steps, MOST_STEPS) and not trainer.done:
            trainer.train(1)
            if trainer.position.finished or agree_any(comm, perf_counter() - start > seconds):
                break
            if trainer.epoch_done:
                trainer.close_epoch()
    late = np.array(reducer.norms[len(reducer.norms) // 2 :]).reshape(-1, 2)
    return noise_scale(late[:, 0], late[:, 1], parts, sizes.batch // parts)
