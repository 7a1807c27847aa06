"""Ensync in a benchmark: the training loop of the program on synthetic images, without console,
files and checkpoints.
"""

from collections.abc import Callable

import numpy as np

from ensync.core.config.schema import Job
from ensync.kernels import threads
from ensync.mpi.world import Comm
from ensync.nn.models import zoo
from ensync.nn.optimizers import Optimizer
from ensync.runs.networks import rows_at_once
from ensync.strategies.reducers import choose
from ensync.training.batches import BatchLoader
from ensync.training.shares import Shares
from ensync.training.trainer import Trainer

SAMPLES = 16384
EPOCHS = 10_000  # more than a benchmark trains


def images_and_labels(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return random images uint8 (SAMPLES, features) and labels int64, the same everywhere."""
    random = np.random.default_rng(1)
    return random.integers(0, 256, (SAMPLES, sizes[0]), dtype=np.uint8), random.integers(
        0, sizes[-1], SAMPLES
    )


def make_trainee(
    comm: Comm,
    sizes: tuple[int, ...],
    batch: int,
    optimizer: str,
    online: bool = False,
    by_speed: bool = False,
) -> Trainer:
    """Return the network in training; `online`: tanh and squared error as in oregon-mlp, else
    ReLU and cross-entropy. by_speed: with room for parts by speed, which are measured. Collective.
    """
    job = Job.model_validate(
        {
            "data": {"path": "-"},
            "network": {"name": "oregon-mlp" if online else "mlp", "hidden": list(sizes[1:-1])},
            "training": {
                "batch": batch,
                "epochs": EPOCHS,
                "loss": "mean_squared_error" if online else "cross_entropy",
            },
            "optimizer": {"name": optimizer, "learning_rate": 1e-3},
            "communication": {"shares": "speed" if by_speed else "equal"},
            "output": {"directory": "-"},
        }
    )
    images, labels = images_and_labels(sizes)
    loader = BatchLoader(
        images, labels, np.full(1, 127.5, np.float32), np.full(1, 1 / 74, np.float32)
    )
    rows = rows_at_once(job, SAMPLES, comm.size)
    network = zoo.build(job, (1, sizes[0], 1), sizes[-1], rows)
    update = Optimizer(job.optimizer, network.layout, network.dtype)
    reducer = choose(job.training, job.communication, comm, network, update, lambda: network)
    network.initialize(1)
    shares = Shares() if by_speed else None
    every = np.arange(SAMPLES)
    return Trainer(job, 0, network, update, reducer, loader, every, shares=shares)


def runner(trainer: Trainer) -> Callable[[int], None]:
    """Return what trains so many steps, over as many epochs as they take."""

    def run(steps: int) -> None:
        while steps:
            done = trainer.position.step
            trainer.train(steps)
            steps -= trainer.position.step - done
            if trainer.epoch_done:
                trainer.close_epoch()

    return run


def with_threads(run: Callable[[int], None], count: int) -> Callable[[int], None]:
    """Return the same with so many threads."""

    def threaded(steps: int) -> None:
        threads.set_threads(count)
        run(steps)

    return threaded
