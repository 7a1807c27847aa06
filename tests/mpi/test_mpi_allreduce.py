"""Sums over ranks against numpy, on any number of ranks."""

import time

import numpy as np
import pytest

from ensync.mpi import allreduce as sums
from ensync.mpi.node_sum import NodeVector
from ensync.mpi.shared_update import SharedUpdate
from ensync.mpi.world import split, topology, world

pytestmark = pytest.mark.mpi

LENGTHS = [0, 1, 2, 17, 1000, 4097, 535_818]


@pytest.fixture
def comm():
    return world()


def share(rank, n, dtype):
    return np.random.default_rng(rank).normal(size=n).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", LENGTHS)
def test_every_rank_gets_the_sum(comm, n, dtype):
    vector = share(comm.rank, n, dtype)
    expected = np.sum([share(rank, n, np.float64) for rank in range(comm.size)], axis=0)
    sums.Allreduce(comm)(vector)
    np.testing.assert_allclose(
        vector,
        expected,
        rtol=1e-5 if dtype == np.float32 else 1e-12,
        atol=1e-5 if dtype == np.float32 else 1e-12,
    )
    assert sums.replicas_equal(comm, vector)


def test_many_sums_in_a_row_keep_their_order_and_their_bits(comm):
    allreduce = sums.Allreduce(comm)
    results = []
    for n in [1000, 3, 40_000, 999, 0, 40_000, 200_001] * 30:
        vector = share(comm.rank, n, np.float32)
        allreduce(vector)
        results.append(vector)
    per_round = len(results) // 30
    for index, vector in enumerate(results):
        assert np.array_equal(vector, results[index % per_round])
    assert sums.replicas_equal(comm, np.concatenate(results))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", LENGTHS)
def test_its_own_vectors_sum_in_place_in_order_of_rank(comm, n, dtype):
    allreduce = sums.Allreduce(comm)
    summed = allreduce.vector(n, dtype)
    vector = summed.values
    assert vector.shape == (n,) and vector.dtype == dtype and not vector.any()
    expected = share(0, n, dtype)
    for rank in range(1, comm.size):
        expected += share(rank, n, dtype)
    for _ in range(3):
        vector[:] = share(comm.rank, n, dtype)
        summed.sum()
        assert (
            np.array_equal(vector, expected)
            if topology(comm).nodes == 1
            else np.allclose(vector, expected, rtol=1e-5)
        )
    assert sums.replicas_equal(comm, vector)
    allreduce.close()


@pytest.mark.parametrize("n", [1, 40, 300_001])
def test_nodes_with_several_ranks_sum_across_nodes(comm, n):
    if comm.size % 2:
        pytest.skip("needs nodes with equally many ranks")
    node = split(comm, comm.rank // 2, comm.rank)  # two ranks each, taken for a node
    vector = NodeVector(comm, node, n, np.float64)
    for _ in range(3):
        vector.values[:] = share(comm.rank, n, np.float64)
        vector.sum()
    expected = np.sum([share(rank, n, np.float64) for rank in range(comm.size)], axis=0)
    np.testing.assert_allclose(vector.values, expected, rtol=1e-12, atol=1e-12)
    assert sums.replicas_equal(comm, vector.values)
    vector.free()
    node.Free()


def test_without_shared_memory_its_own_vectors_are_summed_by_mpi(comm, monkeypatch):
    monkeypatch.setattr(
        sums, "free_space_obstacle", lambda nbytes: "no room" if comm.rank == 0 else ""
    )
    allreduce = sums.Allreduce(comm)
    vector = allreduce.vector(1000)
    vector.values += comm.rank
    vector.sum()
    assert vector.shared is None and np.all(vector.values == sum(range(comm.size)))
    allreduce.close()


def test_a_late_rank_is_waited_for_asleep(comm):
    allreduce = sums.Allreduce(comm)
    vector = allreduce.vector(100)
    vector.values += 1
    if comm.rank == comm.size - 1:
        time.sleep(0.3)
    used = time.process_time()
    vector.sum()
    assert np.all(vector.values == comm.size) and time.process_time() - used < 0.2
    allreduce.close()


def test_two_vectors_of_different_lengths_do_not_mix(comm):
    allreduce = sums.Allreduce(comm)
    first, second = allreduce.vector(1000), allreduce.vector(50, np.float64)
    for count in range(1, 20):
        first.values[:], second.values[:] = count, -count
        first.sum()
        second.sum()
        assert np.all(first.values == count * comm.size)
        assert np.all(second.values == -count * comm.size)
    allreduce.close()
    assert allreduce.calls == (38 if comm.size > 1 else 0)


def test_a_view_inside_a_longer_vector_is_summed_alone(comm):
    whole = np.ones(5000, np.float32)
    sums.Allreduce(comm)(whole[100:4900])
    assert whole[:100].sum() == whole[4900:].sum() == 100 and np.all(whole[100:4900] == comm.size)


def test_what_it_costs_is_counted(comm):
    allreduce = sums.Allreduce(comm)
    for _ in range(3):
        allreduce(np.zeros(1000, np.float32))
    counted = (allreduce.calls, allreduce.bytes)
    each = 2 * (comm.size - 1) * 4000 // comm.size  # of 4,000 bytes of float32
    assert counted == ((3, 3 * each) if comm.size > 1 else (0, 0))
    assert (allreduce.seconds > 0) == (comm.size > 1)


def test_groups_sum_apart(comm):
    group = split(comm, comm.rank % 2, comm.rank)
    vector = np.full(20_000, comm.rank, np.float32)
    allreduce = sums.Allreduce(group)
    allreduce(vector)
    assert np.all(vector == sum(range(comm.rank % 2, comm.size, 2)))


def test_counts_and_arrays_are_summed(comm):
    counts = np.arange(6, dtype=np.int64).reshape(2, 3) + 2**40
    total = sums.sum_counts(comm, counts)
    assert np.array_equal(total, counts * comm.size) and total.dtype == np.int64
    rooted = sums.reduce_to_root(comm, counts.astype(np.float64)[:, ::2])
    assert np.array_equal(rooted, counts[:, ::2] * comm.size) if comm.rank == 0 else rooted is None


def test_things_are_gathered_in_order_of_rank(comm):
    assert sums.gather_to_root(comm, f"rank {comm.rank}") == (
        [f"rank {rank}" for rank in range(comm.size)] if comm.rank == 0 else None
    )


def test_replicas_that_differ_in_one_bit_are_found(comm):
    vector = np.ones(1000, np.float32)
    assert sums.replicas_equal(comm, vector)
    if comm.rank == comm.size - 1:
        vector[-1] = np.nextafter(np.float32(1), np.float32(2))
    assert sums.replicas_equal(comm, vector) == (comm.size == 1)


@pytest.mark.parametrize("n", [1, 40, 300_001])
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_shared_update_is_every_rank_s_own_update(comm, n, nodes):
    if comm.size % nodes:
        pytest.skip("needs nodes with equally many ranks")
    node, behind = split(comm, comm.rank * nodes // comm.size, comm.rank), 3
    gradient, noted = NodeVector(comm, node, n + behind, np.float64), []
    update = SharedUpdate(comm, node, gradient, n, noted.append)
    expected = share(99, n, np.float64)
    update.put(expected)
    state, moved = np.zeros(n), np.zeros(n)
    for step in range(3):
        total = np.sum(
            [share(100 * step + rank, n + behind, np.float64) for rank in range(comm.size)], axis=0
        )
        moved += total[:n]
        expected = expected - 0.1 * moved

        def change(piece, slope):
            state[piece] += slope
            update.parameters[piece] -= 0.1 * state[piece]

        gradient.values[:] = share(100 * step + comm.rank, n + behind, np.float64)
        np.testing.assert_allclose(update.sum_exact(), total[n:], rtol=1e-12, atol=1e-12)
        update.update(change)
        np.testing.assert_allclose(update.parameters, expected, rtol=1e-12, atol=1e-12)
        assert sums.replicas_equal(comm, update.parameters)
    update.gather(state)
    np.testing.assert_allclose(state, moved, rtol=1e-12, atol=1e-12)
    taken = np.empty(n)
    update.take(taken)
    assert np.array_equal(taken, update.parameters)
    assert len(noted) == 3 and min(noted) >= 0
    update.free()
    gradient.free()
    node.Free()
