"""A minute of measuring: steps of the job's network, and what ranks pass things over. Collective
throughout.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from ensync.core.resources import number
from ensync.core.scaling.collectives import Terms
from ensync.core.scaling.links import Link, MeasuredSum, Network, Timed, fit_link
from ensync.core.scaling.passing import Sizes
from ensync.core.scaling.prediction import Calibration, largest_share
from ensync.core.scaling.steps import StepTimes, summary
from ensync.core.scaling.wires import METRICS_BYTES, PIECE_BYTES, NodeSum, Wires
from ensync.kernels import threads
from ensync.mpi.links import Neighbours, ping_pong, time_node_sum, time_sum
from ensync.mpi.world import Comm, mpi_description, patient_barrier, share
from ensync.report.console import Console
from ensync.runs import launch
from ensync.runs.scale.steps import (
    Bench,
    loop_seconds,
    meeting_of,
    on_threads,
    rows_to_time,
    time_freely,
    time_steps,
)

PING_PONGS = (8, 1 << 10, 1 << 14, 1 << 17, 1 << 20, 1 << 22)  # bytes of messages
SHARE_OF_STEPS = 0.6  # of the time of a calibration; the rest is for links


@dataclass(frozen=True)
class Wanted:
    """What to measure. seconds: at most about so many; ranks: to be predicted; between: the link
    between nodes where that is given, not measured; on_node: ranks of a node, 0 for as many as are
    started.
    """

    seconds: float
    ranks: tuple[int, ...]
    between: tuple[float, float] | None = None  # seconds of a message, and of a byte
    on_node: int = 0


def calibrate(
    comm: Comm, bench: Bench, place: launch.Prepared, wanted: Wanted, console: Console
) -> Calibration:
    """Return what a job's steps and links take here, the same on all ranks."""
    start = perf_counter()
    cores = launch.cores_of(comm) // place.topology.nodes
    points = _time_rows(comm, bench, place, wanted, console)
    threads.use_threads(place.threads)
    freely, update, meeting = _time_arithmetic(comm, bench, points)
    left = max(0.2 * wanted.seconds, wanted.seconds - (perf_counter() - start))
    wires = _time_wires(comm, bench.sizes, left, console)
    if wanted.between is not None:
        add = _time_additions()
        link = Link(*wanted.between, max(share(comm, add)))
        wires = Wires(wires.node, wires.inside, Network(link, mpi_description()))
    return Calibration(
        sizes=bench.sizes,
        threads=place.threads,
        ranks_on_node=wanted.on_node or max(share(comm, place.topology.ranks_on_node)),
        cores_of_node=max(1, cores),
        steps=tuple(points),
        freely=freely,
        update=update,
        loop=max(share(comm, loop_seconds(bench, console))),
        meeting=meeting,
        wires=wires,
    )


def thread_counts(most: int, launched: int) -> list[int]:
    """Return 1, 2, 4, ... up to the threads that a rank can have, and those that it has."""
    counts = {1, launched, most}
    count = 2
    while count < most:
        counts.add(count)
        count *= 2
    return sorted(counts)


def most_threads(comm: Comm) -> int:
    """Return the most threads that every rank can have."""
    limit = number(os.environ.get("NUMBA_NUM_THREADS")) or sys.maxsize
    return min(share(comm, min(limit, len(launch.cores()))))


def _time_rows(
    comm: Comm, bench: Bench, place: launch.Prepared, wanted: Wanted, console: Console
) -> list[StepTimes]:
    """Time steps of each number of rows on each number of threads; where there are not enough
    cores for so many threads of each rank, on the first ranks of each node.
    """
    rows = rows_to_time(bench.sizes, wanted.ranks, comm.size)
    counts = thread_counts(most_threads(comm), place.threads)
    cores = max(1, launch.cores_of(comm) // place.topology.nodes)
    seconds = SHARE_OF_STEPS * wanted.seconds / (len(rows) * len(counts))
    points: list[StepTimes] = []
    with console.counting() as told:
        for number, (count, share_of_batch) in enumerate((c, r) for c in counts for r in rows):
            told("timing steps", number, len(rows) * len(counts))
            several = count > place.threads
            takes_part = not several or place.topology.local_rank < max(1, cores // count)

            def measure(some: Comm, count: int = count, rows: int = share_of_batch) -> None:
                times = time_steps(some, lambda: bench.step(rows), seconds)
                points.append(summary(count, rows, times))

            on_threads(comm, count, takes_part, measure)
    found: list[StepTimes] = share(comm, points)[0]
    return found


def _time_arithmetic(
    comm: Comm, bench: Bench, points: Sequence[StepTimes]
) -> tuple[float, float, float]:
    """Return how long steps take without waits, over those with them, and the seconds of an update
    and of a meeting's arithmetic.
    """
    rows = largest_share(bench.sizes, comm.size)
    count = threads.get_threads()
    point = next(each for each in points if each.threads == count and each.rows == rows)
    steps = len(point.slowest)
    freely = summary(1, 1, time_freely(comm, lambda: bench.step(rows), steps)).mean / point.mean
    network = bench.network

    def update() -> None:
        bench.optimizer.step(network.parameters, network.gradient, bench.factors)

    network.gradient[:] = 0
    updated, met = (
        summary(1, 1, time_steps(comm, do, 1.0)).mean for do in (update, meeting_of(bench))
    )
    return min(1.0, freely), updated, met


def _time_additions() -> float:
    """Return the seconds that this rank takes to add a byte of one vector to another."""
    mine, other = np.zeros(1 << 20, np.float32), np.ones(1 << 20, np.float32)
    times = []
    for _ in range(7):
        start = perf_counter()
        np.add(mine, other, out=mine)
        times.append(perf_counter() - start)
    return float(np.median(times)) / mine.nbytes


def _time_wires(comm: Comm, sizes: Sizes, seconds: float, console: Console) -> Wires:
    """Time what ranks pass things over, as far as it is there: on rank 0's node, and between the
    first ranks of nodes.
    """
    neighbours = Neighbours.of(comm)
    node, leaders = neighbours.node, neighbours.leaders
    alone = max(share(comm, node.size)) == 1
    several = leaders is not None and leaders.size > 1
    library, lengths = mpi_description(), _lengths(sizes)
    part = seconds / (2 if not alone and any(share(comm, several)) else 1)
    inside = between = summed = None
    if min(share(comm, node.size)) > 1:
        console.line("timing sums within a node")
        summed = _time_node(node, sizes, part / 3)
        inside = _time_network(node, library, lengths, 2 * part / 3)
    if any(share(comm, several)):
        console.line("timing messages and sums between nodes")
        if leaders is not None:
            between = _time_network(leaders, library, lengths, part)
    patient_barrier(comm)
    neighbours.free()
    return share(comm, Wires(summed, inside, between))[0]


def _lengths(sizes: Sizes) -> list[int]:
    """Return the bytes of the sums that strategies take, and of some between."""
    wanted = {8, METRICS_BYTES, 1 << 14, PIECE_BYTES, sizes.gradient, sizes.replica, *sizes.sums}
    return sorted(each for each in wanted if each <= sizes.replica)


def _time_network(ranks: Comm, library: str, lengths: Sequence[int], seconds: float) -> Network:
    """Return the network between ranks: messages between the first two, sums over all."""
    sent = [each for each in PING_PONGS if each <= max(lengths[-1], PING_PONGS[1])]
    part = seconds / (len(sent) + len(lengths))
    measured = [Timed(Terms(1, nbytes, 0), ping_pong(ranks, nbytes, part)) for nbytes in sent]
    sums = tuple(
        MeasuredSum(ranks.size, nbytes, time_sum(ranks, nbytes, part)) for nbytes in lengths
    )
    plain = Network(Link(0, 0), library)
    measured += [Timed(plain.terms(each.ranks, each.nbytes), each.seconds) for each in sums]
    return Network(fit_link(measured), library, sums)


def _time_node(node: Comm, sizes: Sizes, seconds: float) -> NodeSum | None:
    """Return the sum in the memory of a node, from a short and from a whole vector."""
    short, length = 64, max(4096, sizes.gradient)
    times = [time_node_sum(node, nbytes, seconds / 2) for nbytes in (short, length)]
    if times[0] is None or times[1] is None:
        return None
    byte = max(0.0, (times[1] - times[0]) / (length - short))
    return NodeSum(node.size, times[0], byte)
