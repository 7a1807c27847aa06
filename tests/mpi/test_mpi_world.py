"""Where ranks sit and what they decide together, on any number of ranks."""

import time

import numpy as np
import pytest

from ensync.core.errors import EnsyncError
from ensync.mpi import world as ranks

pytestmark = pytest.mark.mpi


@pytest.fixture
def comm():
    return ranks.world()


def test_the_topology_counts_every_rank_once(comm):
    where = ranks.topology(comm)
    assert (where.size, where.rank) == (comm.size, comm.rank)
    assert 0 <= where.local_rank < where.ranks_on_node <= comm.size
    assert len(where.node_names) == where.nodes == comm.allreduce(where.local_rank == 0)


def test_the_root_works_and_everyone_has_the_result(comm):
    calls = []
    assert ranks.on_root(comm, lambda: calls.append(comm.rank) or {"answer": 42}) == {"answer": 42}
    assert calls == ([0] if comm.rank == 0 else [])


def test_the_others_sleep_while_the_root_works(comm):
    used = time.process_time()
    ranks.on_root(comm, lambda: time.sleep(0.3))
    assert time.process_time() - used < 0.15


def test_a_mistake_found_by_the_root_is_raised_on_all_ranks(comm):
    def refuse():
        raise EnsyncError("given", "expected", "action")

    with pytest.raises(EnsyncError, match="^given; expected expected; action.$") as caught:
        ranks.on_root(comm, refuse)
    assert (caught.value.given, caught.value.action) == ("given", "action")


def test_a_bug_on_the_root_leaves_nobody_waiting(comm):
    def fail():
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError if comm.rank == 0 else RuntimeError, match="a bug"):
        ranks.on_root(comm, fail)


def test_any_rank_can_decide_for_all(comm):
    assert not ranks.agree_any(comm, False)
    assert ranks.agree_any(comm, comm.rank == comm.size - 1)


def test_the_patient_barrier_waits_for_the_last(comm):
    begin = comm.bcast(time.time())
    if comm.rank == comm.size - 1:
        time.sleep(0.2)
    used = time.process_time()
    ranks.patient_barrier(comm)
    assert time.time() >= begin + 0.2 and time.process_time() - used < 0.15


def test_split_makes_groups_of_neighbours(comm):
    part = ranks.split(comm, comm.rank // 2, comm.rank)
    members = part.allgather(comm.rank)
    assert members == [rank for rank in range(comm.size) if rank // 2 == comm.rank // 2]
    part.Free()


def test_the_library_has_a_name_and_a_version():
    name, version = ranks.mpi_description().rsplit(" ", 1)
    assert name and np.all([part.isdigit() for part in version.split(".")])
