"""While a rank waits for others, its other threads run: the watchdog's, which may have to say
for whom it waits.
"""

import threading
import time

import numpy as np
import pytest

from ensync.mpi import allreduce as sums
from ensync.mpi.exchange import arrays_from_root, arrays_to_root
from ensync.mpi.shared_memory import node_file, node_shared, release
from ensync.mpi.world import (
    agree_any,
    node_of,
    on_root,
    patient_barrier,
    share,
    split,
    topology,
    world,
)

pytestmark = pytest.mark.mpi(min_size=2)
COMM = world()
LAST = COMM.size - 1


def shared_vector():
    allreduce = sums.Allreduce(COMM)
    allreduce.vector(1000).sum()
    allreduce.close()


def to_root():
    arrays_to_root(COMM, LAST, {"a": np.zeros(100_000)} if COMM.rank == LAST else None)


WAITS = {
    "agree_any": lambda: agree_any(COMM, False),
    "share": lambda: share(COMM, 1),
    "on_root": lambda: on_root(COMM, lambda: 1),
    "barrier": lambda: patient_barrier(COMM),
    "sum_counts": lambda: sums.sum_counts(COMM, np.zeros(3)),
    "reduce": lambda: sums.reduce_to_root(COMM, np.zeros(3)),
    "gather": lambda: sums.gather_to_root(COMM, 1),
    "replicas": lambda: sums.replicas_equal(COMM, np.zeros(3)),
    "to root": to_root,
    "from root": lambda: arrays_from_root(COMM, {"a": np.zeros(9)} if COMM.rank == 0 else None),
    "sum in MPI": lambda: sums.Allreduce(COMM)(np.zeros(1000, np.float32)),
    "sum in shared memory": shared_vector,
    "topology": lambda: topology(COMM),
    "split": lambda: split(COMM, 0).Free(),
    "images": lambda: release(node_shared(COMM, (10,), np.uint8, lambda array: array.fill(0))),
    "file": lambda: node_file(node_of(COMM), 4096),
}


@pytest.mark.parametrize("name", WAITS)
def test_the_thread_of_a_waiting_rank_runs(name, mpi_tmp_path):
    """The last rank comes only when it has a sign of rank 0's thread; without one after 10 s the
    test fails.
    """
    sign = mpi_tmp_path / "sign"

    def give() -> None:
        time.sleep(0.05)  # by now the rank waits
        sign.touch()

    thread = threading.Thread(target=give)
    if COMM.rank == 0:
        thread.start()
    end = time.monotonic() + 10
    while COMM.rank == LAST and not sign.exists() and time.monotonic() < end:
        time.sleep(0.001)
    came = COMM.rank != LAST or sign.exists()
    WAITS[name]()
    if COMM.rank == 0:
        thread.join()
    assert all(COMM.allgather(came))
