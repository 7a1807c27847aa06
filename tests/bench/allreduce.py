"""How long a sum over ranks takes: in vectors of Allreduce.vector, and by MPI's Allreduce,
interleaved.

mpirun -n 2 python tests/bench/allreduce.py     prints one JSON line per length: medians in
microseconds and of the ratios
"""

import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from ensync.mpi.allreduce import Allreduce
from ensync.mpi.world import Comm, mpi_description, world

LENGTHS = [1_000, 10_000, 100_000, 535_818, 3_000_000, 7_500_000]


def once(comm: Comm, vector: np.ndarray, add: Callable[[], None]) -> float:
    """Write the vector, as the backward pass does, and return the microseconds of its sum."""
    vector.fill(1.0)
    comm.Barrier()
    begin = time.perf_counter()
    add()
    return 1e6 * (time.perf_counter() - begin)


def measure(comm: Comm, n: int) -> dict[str, float | int | str]:
    """Return the figures of one length."""
    allreduce = Allreduce(comm)
    shared, private = allreduce.vector(n), np.zeros(n, np.float32)
    rounds = max(20, min(300, 30_000_000 // n))
    pairs = [
        (once(comm, shared.values, shared.sum), once(comm, private, lambda: allreduce(private)))
        for _ in range(rounds)
    ]
    assert np.all(shared.values == comm.size) and np.all(private == comm.size)
    allreduce.close()
    return {
        "mpi": mpi_description(),
        "ranks": comm.size,
        "bytes": 4 * n,
        "shared_us": round(statistics.median(pair[0] for pair in pairs), 1),
        "mpi_us": round(statistics.median(pair[1] for pair in pairs), 1),
        "mpi_over_shared": round(statistics.median(pair[1] / pair[0] for pair in pairs), 2),
    }


if __name__ == "__main__":
    comm = world()
    for n in LENGTHS:
        figures = measure(comm, n)
        if comm.rank == 0:
            print(json.dumps(figures), flush=True)
