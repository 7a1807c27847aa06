"""Programs that come to a standstill in one way each, started by test_watchdog.py: python
standstills.py CASE LIMIT. Rank 1 is the one that fails.
"""

import os
import signal
import sys
import time

import numpy as np

from ensync.core import activity
from ensync.core.activity import Doing, doing
from ensync.mpi import watchdog
from ensync.mpi.abort import guard
from ensync.mpi.allreduce import Allreduce
from ensync.mpi.world import on_root, patient_barrier, split, world


def sums(comm, fail, shared=True):
    """Rank 1 fails behind ten sums, in the eleventh of which the others wait, in shared memory
    or in MPI.
    """
    allreduce = Allreduce(comm)
    private = np.zeros(20_000, np.float32)
    add = allreduce.vector(20_000).sum if shared else lambda: allreduce(private)
    for step in range(20):
        activity.tick(step)
        if comm.rank == 1 and step == 10:
            with doing(Doing.READING):
                fail()
        add()
    allreduce.close()


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def loop():
    while True:
        pass


def works(comm, rank=0):
    """One rank gets on, step by step, for three limits; the others wait for it."""
    if comm.rank == rank:
        end, step = time.monotonic() + 3 * LIMIT, 0
        while time.monotonic() < end:
            time.sleep(LIMIT / 10)
            activity.tick(step := step + 1)
    patient_barrier(comm)


def compiles(comm):
    """Rank 1 computes for three limits without a sign."""
    if comm.rank == 1:
        end = time.monotonic() + 3 * LIMIT
        with doing(Doing.COMPILING):
            while time.monotonic() < end:
                pass
    patient_barrier(comm)


def suspended(comm):
    """Say that all ranks are ready; what stops them all for a while must not count."""
    comm.Barrier()
    if comm.rank == 0:
        print("ready", flush=True)
    works(comm)


CASES = {
    "stopped": lambda comm: sums(comm, stop),
    "stopped, others in MPI": lambda comm: sums(comm, stop, shared=False),
    "loops": lambda comm: sums(comm, loop),
    "leaves with 0": lambda comm: sums(comm, lambda: os._exit(0)),
    "killed": lambda comm: sums(comm, lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "root stopped": lambda comm: on_root(comm, stop),
    "others left": lambda comm: None if comm.rank == 1 else comm.Barrier(),
    "works": works,
    "compiles": compiles,
    "suspended": suspended,
}

if __name__ == "__main__":
    signal.signal(
        signal.SIGUSR1, signal.SIG_IGN
    )  # which a run takes for a wish to stop; MPICH's launcher sends it when a rank has died
    comm, LIMIT = world(), float(sys.argv[2])
    if "nodes" in sys.argv:  # as if the odd ranks were on another node
        watchdog.node_of = lambda comm: split(comm, comm.rank % 2, comm.rank)
    with guard(comm), watchdog.watch(comm, LIMIT, "runs/x") as obstacle:
        assert not obstacle
        CASES[sys.argv[1]](comm)
