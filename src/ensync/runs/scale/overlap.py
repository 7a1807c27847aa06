"""How much of the sums of gradients the backward pass hides on the ranks at hand. Collective."""

from dataclasses import replace
from statistics import median

import numpy as np

from ensync.core.activity import Doing, doing
from ensync.core.config.schema import Job
from ensync.core.scaling.passing import cost_of
from ensync.core.scaling.prediction import Calibration, Contestant, Model, largest_share, place_of
from ensync.core.scaling.wires import GRADIENT, Overlap
from ensync.mpi.allreduce import Allreduce
from ensync.mpi.buckets import FIRST
from ensync.mpi.world import Comm, share, topology
from ensync.runs.scale.steps import Bench
from ensync.strategies.overlapped import OverlappedReducer, overlaps
from ensync.training.runners import MiniBatchRunner, Replica

STEPS = FIRST.stop + 2  # those that sum at their end, and some that do on the way
FURTHEST = 4.0  # factor of what one sum takes, beyond which a measurement is not believed


def is_overlapped(comm: Comm, bench: Bench, job: Job) -> bool:
    """Return whether synchronous training on these ranks overlaps sums between nodes."""
    wanted = comm.size > 1 and overlaps(job.communication, comm, bench.network)
    return wanted and topology(comm).nodes == comm.size


def with_overlap(comm: Comm, calibration: Calibration, bench: Bench, job: Job) -> Calibration:
    """Return a calibration with what training on these ranks hides, the same on all ranks."""
    if not is_overlapped(comm, bench, job):
        return calibration
    waits = _waits(comm, bench, job)
    whole, exposed = median(waits[FIRST.start : FIRST.stop]), median(waits[FIRST.stop :])
    model = Model(calibration)
    found = model.predict(Contestant("synchronous"), comm.size, calibration.threads)
    assert found is not None, "these ranks and their link were measured"
    pattern, place = model.pattern(found.contestant), place_of(comm.size, 1)
    cost = cost_of(pattern, calibration.wires, place, GRADIENT)
    others = found.parts.latency + found.parts.bandwidth - cost.latency - cost.bandwidth
    one = max(1e-9, cost.latency + cost.bandwidth)
    longer = (whole - others - found.parts.waiting) / one
    curve = model.curves[calibration.threads]
    computed = curve.seconds(largest_share(calibration.sizes, comm.size)) - calibration.update
    hidden = max(0.0, whole - exposed) / max(computed, 1e-9)
    longer = min(FURTHEST, max(1 / FURTHEST, longer))
    return replace(calibration, overlap=Overlap(longer, min(1.0, hidden)))


def _waits(comm: Comm, bench: Bench, job: Job) -> list[float]:
    """Return the seconds that sums take beside the computation in each of STEPS steps, the mean
    over ranks.
    """
    network, given = bench.network, bench.runner.replica
    reducer = OverlappedReducer(network, Allreduce(comm), job.communication.bucket_megabytes)
    replica = Replica(*(given.job, 0, network, bench.optimizer, reducer, given.loader, given.rows))
    runner, rows, before = MiniBatchRunner(replica), np.arange(bench.sizes.batch), 0.0
    waits = []
    with doing(Doing.TRAINING):
        for _ in range(STEPS):
            comm.Barrier()
            runner.run(rows % bench.sizes.rows, 0, bench.factors)
            waits.append(reducer.seconds - before)
            before = reducer.seconds
    reducer.close()
    network.bind_message(np.zeros_like(network.message))
    found: list[float] = np.mean(share(comm, waits), axis=0).tolist()
    return found
