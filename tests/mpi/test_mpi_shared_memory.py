"""One copy per node, on any number of ranks."""

import numpy as np
import pytest

from ensync.core.errors import EnsyncError
from ensync.mpi import shared_memory
from ensync.mpi.world import topology, world

pytestmark = pytest.mark.mpi


@pytest.fixture
def comm():
    return world()


def test_the_first_rank_of_a_node_fills_what_all_of_them_see(comm):
    calls = []

    def fill(array):
        calls.append(comm.rank)
        array[...] = np.arange(array.size).reshape(array.shape)

    array = shared_memory.node_shared(comm, (100, 7), np.int32, fill)
    assert (
        np.array_equal(array, np.arange(700, dtype=np.int32).reshape(100, 7))
        and array.flags.c_contiguous
    )
    assert calls == ([comm.rank] if topology(comm).local_rank == 0 else [])
    shared_memory.release(array)
    assert not shared_memory._open


def test_it_really_is_one_copy(comm):
    array = shared_memory.node_shared(comm, (comm.size,), np.float64, lambda array: array.fill(-1))
    comm.Barrier()
    array[comm.rank] = comm.rank
    comm.Barrier()
    where = topology(comm)
    if where.nodes == 1:
        assert array.tolist() == list(range(comm.size))
    comm.Barrier()
    shared_memory.release(array)


def test_without_room_every_rank_has_its_own_copy_and_the_root_says_why(comm, monkeypatch):
    monkeypatch.setattr(shared_memory, "_MARGIN", 1 << 60)
    short = comm.size > topology(comm).nodes
    with pytest.warns(UserWarning, match="MB free") if short and comm.rank == 0 else nothing():
        array = shared_memory.node_shared(comm, (10,), np.uint8, lambda array: array.fill(3))
    assert array.tolist() == [3] * 10
    shared_memory.release(array)


def test_a_mistake_of_the_filling_rank_is_raised_on_all(comm):
    def refuse(array):
        raise EnsyncError("a file cut short", "all of it", "prepare it again")

    with pytest.raises(EnsyncError, match="cut short"):
        shared_memory.node_shared(comm, (10,), np.uint8, refuse)
    assert not shared_memory._open


@pytest.mark.parametrize("shape", [(0,), (3, 0), (1,)])
def test_empty_and_tiny_arrays(comm, shape):
    array = shared_memory.node_shared(comm, shape, np.uint8, lambda array: array.fill(5))
    assert array.shape == shape and np.all(array == 5)
    shared_memory.release(array)


def nothing():
    import contextlib

    return contextlib.nullcontext()
