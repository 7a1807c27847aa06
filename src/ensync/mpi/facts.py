"""What `ensync doctor` asks of this home: a sum over all ranks, and what the clocks say at one
moment.
"""

import time

import numpy as np

from ensync.mpi.allreduce import Allreduce
from ensync.mpi.world import Comm


def clock(comm: Comm) -> float:
    """Return this node's time in seconds at a moment that is the same for all ranks to some
    milliseconds. Collective.
    """
    comm.Barrier()
    return time.time()


def try_allreduce(comm: Comm, elements: int = 1 << 20, repeats: int = 5) -> tuple[bool, int, float]:
    """Sum a float32 vector over the ranks; return whether all values are right everywhere, its
    bytes, and the best seconds. Collective.
    """
    allreduce, best, right = Allreduce(comm), float("inf"), True
    places = np.arange(elements, dtype=np.float32) % 1024
    vector = allreduce.vector(
        elements
    )  # where the ranks share a node, in its memory, as in training
    for _ in range(repeats):
        vector.values[:] = places + comm.rank
        comm.Barrier()
        begun = time.perf_counter()
        vector.sum()
        best = min(best, time.perf_counter() - begun)
        expected = comm.size * places + comm.size * (comm.size - 1) // 2
        right &= bool(np.array_equal(vector.values, expected))
    nbytes = vector.values.nbytes
    allreduce.close()
    wrong = np.array([not right], np.int64)
    comm.Allreduce(wrong.copy(), wrong)
    return not wrong[0], nbytes, best
