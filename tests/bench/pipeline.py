"""One network in stages, a rank each: for which share of a step a stage waits, beside the bubble
of equally fast ones, (stages - 1) / (micro-batches + stages - 1).

mpirun -n 2 python tests/bench/pipeline.py [--rounds 3] [--parts 1,2,4,8,16] [--batch 512] [--sleep]
JSON lines, one for each number of micro-batches: medians over the rounds. Ranks that share cores
slow each other down, also while they wait, and are labelled so. With --sleep ranks sleep for each
row as well, a third of it forward, so that a machine shows the schedule whose cores are busy.
"""

import argparse
import os
import statistics
import time

import harness
import numpy as np

from ensync.core.config.schema import Job
from ensync.kernels import threads
from ensync.mpi.stages import StageLinks
from ensync.mpi.world import Comm, share, world
from ensync.nn.layers.base import Layer, Step
from ensync.nn.models import zoo
from ensync.nn.network import Piece
from ensync.nn.split.pipeline import StageNetwork

WIDTH = 512  # of each layer, two a stage
ROW = 4e-4  # seconds that a stage sleeps for a row, there and back


def network_of(links: StageLinks, parts: int, batch: int) -> StageNetwork:
    """Return this rank's stage of a network of equal layers, with buffers for a micro-batch."""
    hidden = [WIDTH] * (2 * links.ranks - 1)
    job = Job.model_validate(
        {
            "data": {"path": "-"},
            "network": {"name": "mlp", "hidden": hidden},
            "training": {"batch": batch},
            "parallel": {"stages": links.ranks, "micro_batches": parts},
            "output": {"directory": "-"},
        }
    )
    network = zoo.build(job, (1, WIDTH, 1), WIDTH, batch // parts, exchange=links)
    assert isinstance(network, StageNetwork)
    network.initialize(1)
    return network


def sleep_for_rows(network: StageNetwork) -> None:
    """Let each row take its time in this stage."""
    for slot in network.slots:
        for layer in slot.layers:
            _sleep_in(layer, len(slot.layers))


def _sleep_in(layer: Layer, layers: int) -> None:
    forward, backward = layer.forward, layer.backward

    def slow(inputs: np.ndarray, step: Step) -> np.ndarray:
        time.sleep(ROW / 3 / layers * len(inputs))
        return forward(inputs, step)

    def slow_back(gradient: np.ndarray, step: Step) -> np.ndarray:
        time.sleep(2 * ROW / 3 / layers * len(gradient))
        return backward(gradient, step)

    layer.forward, layer.backward = slow, slow_back  # type: ignore[method-assign]


def pieces_of(parts: int, batch: int) -> list[Piece]:
    """Return noise in as many parts."""
    draw, rows = np.random.default_rng(0), batch // parts
    return [
        Piece(
            draw.standard_normal((rows, WIDTH), np.float32),
            draw.integers(0, WIDTH, rows),
            Step(training=True),
        )
        for _ in range(parts)
    ]


def step_of(network: StageNetwork, pieces: list[Piece], batch: int, comm: Comm) -> list[float]:
    """Do a step; return the share of it for which each stage waited, the time after its own end
    included. Collective.
    """
    links = network.links
    assert isinstance(links, StageLinks)
    comm.Barrier()
    start, before = time.perf_counter(), links.cost.seconds
    network.accumulate(iter(pieces), len(pieces), batch)
    ended, waited = time.perf_counter(), links.cost.seconds - before
    comm.Barrier()
    over = time.perf_counter()
    return share(comm, (waited + over - ended) / (over - start))


def measure(comm: Comm, options: argparse.Namespace) -> None:
    """Print what each number of micro-batches comes to. Collective."""
    oversubscribed = comm.size > len(os.sched_getaffinity(0))
    for parts in map(int, options.parts.split(",")):
        links = StageLinks(comm)
        network, pieces = network_of(links, parts, options.batch), pieces_of(parts, options.batch)
        if options.sleep:
            sleep_for_rows(network)
        step_of(network, pieces, options.batch, comm)
        rounds = [step_of(network, pieces, options.batch, comm) for _ in range(options.rounds)]
        waits = [round(statistics.median(each), 4) for each in zip(*rounds, strict=True)]
        links.close()
        if comm.rank == 0:
            found = {"stages": comm.size, "micro-batches": parts, "waits": waits}
            found |= {"mean wait": statistics.mean(waits)}
            found |= {"bubble": (comm.size - 1) / (parts + comm.size - 1)}
            harness.emit(found | {"oversubscribed": oversubscribed})


if __name__ == "__main__":
    parser = harness.arguments(__doc__, 3, 0)
    parser.add_argument("--parts", default="1,2,4,8,16", help="micro-batches of a batch")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--sleep", action="store_true", help="rows are slept for")
    options, comm = parser.parse_args(), world()
    threads.set_threads(1)
    if comm.rank == 0:
        harness.emit(harness.environment())
    measure(comm, options)
