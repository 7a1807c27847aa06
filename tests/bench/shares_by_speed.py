"""One network on ranks of which the last has a part of a core only: parts of a batch by speed,
beside equal ones and what the speeds of all ranks together allow.

mpirun -n 2 python tests/bench/shares_by_speed.py [--rounds 5] [--core 0.5] [--batch 128] [--sleep]
JSON lines of paired rounds, an epoch each. A process stops the last rank for a part of each period
and lets it go on (as cpulimit does, and cgroups by cpu.max), which takes no core from the others.
With --sleep ranks sleep for each row, the last one longer, beside a network that takes next to no
time: so a machine shows it whose cores are busy otherwise.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import harness
import numpy as np
from ensync_side import make_trainee

from ensync.kernels import threads
from ensync.mpi.world import Comm, share, world
from ensync.report.console import make_console
from ensync.runs.speeds import follow_speeds, rows_of_ranks
from ensync.training.trainer import Trainer

SIZES, SMALL = (784, 512, 256, 10), (16, 10)
ROW = 2e-4  # seconds that a rank sleeps for a row
PERIOD = 0.02  # seconds
SETTLING = 4  # epochs before the rounds
HOLD = """
import os, signal, sys, time
rank, core, period = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
while True:
    os.kill(rank, signal.SIGSTOP)
    time.sleep(period * (1 - core))
    os.kill(rank, signal.SIGCONT)
    time.sleep(period * core)
"""


@contextmanager
def held(core: float) -> Iterator[None]:
    """Let this process run for a part of each period while the block runs."""
    arguments = [sys.executable, "-c", HOLD, str(os.getpid()), str(core), str(PERIOD)]
    holder = subprocess.Popen(arguments, start_new_session=True)
    try:
        yield
    finally:
        holder.kill()
        holder.wait()
        os.kill(os.getpid(), signal.SIGCONT)


def sleep_for_rows(trainer: Trainer, core: float) -> None:
    """Let each row take a time that a rank of a part of a core would have for it."""
    backward = trainer.network.backward

    def slow(inputs: np.ndarray, *others: object) -> None:
        backward(inputs, *others)
        time.sleep(ROW / core * len(inputs))

    trainer.network.backward = slow


def epoch_of(trainer: Trainer, comm: Comm) -> float:
    """Train an epoch; return the seconds of the rank that ends last. Collective."""
    comm.Barrier()
    start = time.perf_counter()
    trainer.train()
    seconds = max(share(comm, time.perf_counter() - start))
    trainer.close_epoch()
    return seconds


def measure(comm: Comm, options: argparse.Namespace, core: float) -> None:
    """Print the rounds, and their medians; core: the part of one that this rank has. Collective."""
    sizes, batch = SMALL if options.sleep else SIZES, options.batch
    equal, by_speed = (make_trainee(comm, sizes, batch, "sgd", by_speed=True) for _ in range(2))
    for trainer in (equal, by_speed) if options.sleep else ():
        sleep_for_rows(trainer, core)
    console, ratios, bounds = make_console(comm.rank), [], []
    for number in range(SETTLING + options.rounds):
        seconds = epoch_of(equal, comm)
        speeds = share(comm, equal.shares.measured() or 1.0)
        rows = rows_of_ranks(by_speed, comm.size)
        ratio = seconds / epoch_of(by_speed, comm)
        follow_speeds(by_speed, comm, console)
        if comm.rank == 0 and number >= SETTLING:
            ratios.append(ratio)
            bounds.append(sum(speeds) / (comm.size * min(speeds)))
            harness.emit({"rows": rows, "times as fast": ratio, "sum of speeds": bounds[-1]})
    if comm.rank == 0:
        ones = [1.0] * options.rounds
        found = {"median times as fast": harness.median_ratio(ratios, ones)}
        harness.emit(found | {"sum of speeds": harness.median_ratio(bounds, ones)})


if __name__ == "__main__":
    parser = harness.arguments(__doc__, 5, 0)
    parser.add_argument("--core", type=float, default=0.5, help="of the last rank")
    parser.add_argument("--sleep", action="store_true", help="rows are slept for")
    parser.add_argument("--batch", type=int, default=128, help="over all ranks")
    options, comm = parser.parse_args(), world()
    threads.set_threads(1)
    if comm.rank == 0:
        harness.emit(harness.environment())
    core = options.core if comm.rank == comm.size - 1 else 1.0
    with held(core) if core < 1 and not options.sleep else nullcontext():
        measure(comm, options, core)
