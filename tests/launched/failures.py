"""Programs that fail in one way each, started by test_abort.py: python failures.py CASE. Rank 1
is the one that fails alone.
"""

import os
import signal
import sys
import time

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.mpi.abort import guard
from ensync.mpi.allreduce import Allreduce
from ensync.mpi.shared_memory import node_shared
from ensync.mpi.stages import StageLinks
from ensync.mpi.world import on_root, patient_barrier, world

MISTAKE = EnsyncError("training.epochs = -3", "at least 1", "change it in the job file")


def others_wait(comm, fail, shared=True):
    """Rank 1 fails after a while in which the others have come to wait for it in a sum, in
    shared memory or MPI's.
    """
    allreduce = Allreduce(comm)
    private = np.zeros(20_000, np.float32)
    add = allreduce.vector(20_000).sum if shared else lambda: allreduce(private)
    for step in range(20):
        if comm.rank == 1 and step == 10:
            time.sleep(0.2)
            fail()
        add()


def others_wait_for_a_stage(comm, fail):
    """Rank 1 fails while the stages before and behind it wait for its values."""
    links = StageLinks(comm)
    if comm.rank == 1:
        time.sleep(0.2)
        fail()
    links.receive(np.zeros(10), 1)


def refuse():
    raise MISTAKE


def bug():
    raise ValueError("boom")


def bug_that_tells_the_shared_memory():
    """Print the names of the memory that this rank shares with others, those that it has lost
    already included.
    """
    with open("/proc/self/maps") as lines:
        print(*{line.split()[5] for line in lines if " /dev/shm/" in line}, sep="\n", flush=True)
    time.sleep(0.2)  # the launcher passes it on
    bug()


def wait_for_signal(comm):
    """Say that all ranks are ready, then work until a signal comes."""
    comm.Barrier()
    if comm.rank == 0:
        print("ready", flush=True)
    time.sleep(60)


CASES = {
    "fine": lambda comm: comm.Barrier(),
    "bug on one rank": lambda comm: others_wait(comm, bug),
    "bug on one rank, others in MPI": lambda comm: others_wait(comm, bug, shared=False),
    "bug on one rank, which tells its memory": lambda comm: others_wait(
        comm, bug_that_tells_the_shared_memory
    ),
    "bug on one rank, others asleep": lambda comm: (
        bug() if comm.rank == 1 else patient_barrier(comm)
    ),
    "bug on one rank, others finished": lambda comm: bug() if comm.rank == 1 else None,
    "bug on all ranks": lambda comm: bug(),
    "bug on the root": lambda comm: on_root(comm, bug),
    "bug on all but the root": lambda comm: bug() if comm.rank else comm.Barrier(),
    "mistake on one rank": lambda comm: others_wait(comm, refuse),
    "mistake on all ranks": lambda comm: refuse(),
    "mistake on the root": lambda comm: on_root(comm, refuse),
    "mistake of the filling rank": lambda comm: node_shared(
        comm, (10,), np.uint8, lambda array: refuse()
    ),
    "killed": lambda comm: others_wait(comm, lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "terminated": lambda comm: others_wait(comm, lambda: os.kill(os.getpid(), signal.SIGTERM)),
    "leaves without a word": lambda comm: others_wait(comm, lambda: os._exit(7)),
    "interrupted rank": lambda comm: others_wait(comm, lambda: os.kill(os.getpid(), signal.SIGINT)),
    "bug on one stage": lambda comm: others_wait_for_a_stage(comm, bug),
    "killed stage": lambda comm: others_wait_for_a_stage(
        comm, lambda: os.kill(os.getpid(), signal.SIGKILL)
    ),
    "exit 3 on one rank": lambda comm: others_wait(comm, lambda: sys.exit(3)),
    "exit 3 on all ranks": lambda comm: sys.exit(3),
    "exit 0 on all ranks": lambda comm: sys.exit(0),
    "exit with words": lambda comm: sys.exit("enough"),
    "wait": wait_for_signal,
}

if __name__ == "__main__":
    comm = world()
    with guard(comm):
        CASES[sys.argv[1]](comm)
