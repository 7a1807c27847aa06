"""The step before the first one: it compiles the kernels of a job, once on each node."""

import platform
import time
from collections.abc import Callable
from math import prod

import numpy as np

from ensync.core.activity import Doing, doing
from ensync.core.config.job import plain_settings
from ensync.core.config.schema import Job
from ensync.mpi.world import Comm, patient_barrier, share, split
from ensync.nn.layers.base import Step
from ensync.nn.models import zoo
from ensync.nn.network import Network
from ensync.nn.optimizers import Optimizer
from ensync.runs.compiling import compile_in_parallel
from ensync.runs.data import SplitLoaders
from ensync.runs.networks import stand_ins
from ensync.training.batches import BatchLoader
from ensync.training.colours import CHANNELS
from ensync.training.evaluation import evaluate_block
from ensync.training.reducers import SerialReducer
from ensync.training.trainer import Trainer
from ensync.training.views import views_of


def compile_on_nodes(comm: Comm, local_rank: int, try_step: Callable[[], None]) -> float:
    """Compile, by a step, on the first rank of each node while the others sleep; they then load
    its cache. Return the seconds. Collective.
    """
    start = time.perf_counter()
    node = split(comm, share(comm, platform.node()).index(platform.node()), comm.rank)
    if local_rank == 0:
        with doing(Doing.COMPILING):
            try_step()
    patient_barrier(node)
    if local_rank != 0:
        with doing(Doing.COMPILING):
            try_step()
    patient_barrier(comm)
    node.Free()
    return time.perf_counter() - start


def try_step(job: Job, loaders: SplitLoaders, cores: int) -> None:
    """Train a small replica of the network for a step on blank images, so that every kernel
    exists before the clock starts.

    cores: those that this process may use.
    """
    dataset = loaders.identity
    with compile_in_parallel(plain_settings(job), dataset.shape, dataset.classes, cores):
        for exchange in stand_ins(job):
            network = zoo.build(job, dataset.shape, dataset.classes, 2, exchange=exchange)
            _try_on(network, job, loaders)


def _try_on(network: Network, job: Job, loaders: SplitLoaders) -> None:
    """Train a network, or a part of one, for a step on blank images, and test it."""
    optimizer = Optimizer(job.optimizer, network.layout, network.dtype)
    reducer = SerialReducer(network)
    Trainer(job, 0, network, optimizer, reducer, _blank(loaders), np.arange(2)).train(1)
    inputs = np.zeros((2, prod(network.shape)), network.dtype)
    network.backward(inputs, np.zeros(2, np.int64), 2, Step(training=True))
    optimizer.step(network.parameters, network.gradient)
    if job.communication.is_local:
        outer = Optimizer(job.communication.outer, network.layout, network.dtype)
        outer.step(network.parameters, network.gradient)
    views = views_of(job.evaluation.augmentation, network.shape, loaders.identity.shape)
    evaluate_block(network, _blank(loaders), 1, 0, False, views)


def _blank(loaders: SplitLoaders) -> BatchLoader:
    images = np.zeros((2, loaders.identity.features), np.uint8)
    blank = loaders.train.with_images(images, np.zeros(2, np.int64))
    blank.colours = np.zeros((CHANNELS, CHANNELS))
    return blank
