"""Compressed sums beside plain numpy on the vectors of all ranks."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from ensync.core.sharding import block
from ensync.mpi import allreduce as sums
from ensync.mpi.allreduce import Allreduce, replicas_equal
from ensync.mpi.world import split, world
from ensync.nn.layers.base import Parameter
from ensync.strategies.compression import vector as compressed
from ensync.strategies.compression.powersgd import PowerSgd
from ensync.strategies.compression.quantised import QuantisedSum
from ensync.strategies.compression.sparse import TopK, break_even, largest
from ensync.strategies.compression.words import Bf16, Int8

pytestmark = pytest.mark.mpi
LENGTHS = [1, 2, 17, 4097, 40_001]  # fewer than ranks, and what no number of ranks divides


def share(rank, n, dtype=np.float32):
    """Return a vector of a rank, with numbers of many sizes."""
    random = np.random.default_rng(rank)
    return (random.normal(size=n) * 10.0 ** random.integers(-9, 3, n)).astype(dtype)


def nearest_bf16(values):
    """Return the nearest bf16 numbers, of two as near the one whose last bit is 0."""
    values = np.asarray(values, np.float32)
    low = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    high = ((values.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        down, up = (
            np.abs(np.subtract(values, low, dtype=float)),
            np.abs(np.subtract(high, values, dtype=float)),
        )
    odd = (low.view(np.uint32) >> 16 & 1).astype(bool)
    return np.where((up < down) | ((up == down) & odd), high, low)


def coded(code, values):
    """Return what the words of values stand for."""
    words, found = np.empty(code.nbytes(len(values)), np.uint8), np.empty_like(values)
    code.encode(values, words)
    code.decode(words, found)
    return found


def test_bf16_words_are_the_nearest_numbers():
    bits = np.random.default_rng(0).integers(0, 1 << 32, 50_000, np.uint64).astype(np.uint32)
    ties = (bits & 0xFFFF0000) | 0x8000
    values = np.concatenate([bits, ties]).view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 3e38)]
    assert np.array_equal(coded(Bf16(), values), nearest_bf16(values))
    special = [np.inf, -np.inf, 3.4e38, 0.0, -0.0]
    assert np.array_equal(
        coded(Bf16(), np.array(special, np.float32)), [np.inf, -np.inf, np.inf, 0, 0]
    )
    nans = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFF8000], np.uint32)
    assert np.isnan(coded(Bf16(), nans.view(np.float32))).all()


def test_int8_words_are_the_nearest_of_255_numbers_of_their_block():
    values = share(5, 1003)
    values[256:512] = 0
    values[512:600] = 1e-44  # less than 1/127 of it is zero
    found = coded(Int8(256), values)
    for start in range(0, 1003, 256):
        block = values[start : start + 256]
        scale = np.abs(block).max() / np.float32(127)
        expected = np.rint(block / scale) * scale if scale > 0 else np.zeros_like(block)
        assert np.array_equal(found[start : start + 256], expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("code", [Bf16(), Int8(256)], ids=["bf16", "int8"])
def test_words_are_added_at_full_length_in_order_of_rank(code, n, dtype):
    comm = world()
    allreduce = Allreduce(comm)
    vector, error = share(comm.rank, n, dtype), np.empty(n, dtype)
    QuantisedSum(allreduce.wire(), n, code).sum(vector, error)
    blocks = [slice(*block(n, comm.size, rank)) for rank in range(comm.size)]

    def sent_of(values):
        return np.concatenate([coded(code, values[each]) for each in blocks])

    sent = [sent_of(share(rank, n, dtype)) for rank in range(comm.size)]
    total = sent[0].copy()
    for other in sent[1:]:
        total += other
    expected = sent_of(total)
    assert np.array_equal(vector, expected) and replicas_equal(comm, vector)
    lost = share(comm.rank, n, dtype) - sent[comm.rank]
    own = blocks[comm.rank]
    lost[own] += total[own] - expected[own]
    assert np.array_equal(error, lost)
    assert comm.allreduce(allreduce.bytes) == 2 * (comm.size - 1) * sum(
        code.nbytes(each.stop - each.start) for each in blocks
    )


LAYOUT = [Parameter("w", (3, 3, 5, 20)), Parameter("b", (20,)), Parameter("v", (30, 40))]
LENGTH = sum(parameter.size for parameter in LAYOUT)


def power_sgd(allreduce, dtype=np.float32):
    return PowerSgd(allreduce.wire(), [(p.name, p) for p in LAYOUT], dtype, 2, 0)


COMPRESSORS = {
    "bf16": lambda allreduce: QuantisedSum(allreduce.wire(), LENGTH, Bf16()),
    "int8": lambda allreduce: QuantisedSum(allreduce.wire(), LENGTH, Int8(100)),
    "topk": lambda allreduce: TopK(allreduce.wire(), LENGTH, 0.03),
    "powersgd": power_sgd,
}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_what_was_sent_and_what_is_kept_back_add_up_to_the_gradients(name):
    comm, n = world(), LENGTH
    compressor = COMPRESSORS[name](Allreduce(comm))
    error, done, wanted = np.zeros(n, np.float32), np.zeros(n), np.zeros(n)
    for step in range(6):
        vectors = [share(100 * step + rank, n) for rank in range(comm.size)]
        wanted += np.sum(vectors, axis=0, dtype=float)
        vector = vectors[comm.rank] + error
        compressor.sum(vector, error)
        assert replicas_equal(comm, vector)
        done += vector
    kept = comm.allreduce(error.astype(float))
    assert np.any(kept) and not np.allclose(done, wanted, rtol=0, atol=1e-3)
    np.testing.assert_allclose(done + kept, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("bad", "dtype"), [(np.nan, "f4"), (np.inf, "f4"), (-np.inf, "f4"), (1e300, "f8")]
)
@pytest.mark.parametrize("name", COMPRESSORS)
def test_what_is_not_finite_arrives_everywhere(name, bad, dtype):
    """Or what float32 cannot hold, but as a factor of low rank, which stays float64."""
    comm, n = world(), LENGTH
    vector, error = share(comm.rank, n, dtype), np.zeros(n, dtype)
    if comm.rank == comm.size - 1:
        vector[123] = bad
    with warnings.catch_warnings(action="error"):
        COMPRESSORS[name](Allreduce(comm)).sum(vector, error)
    assert not abs(vector[123]) < 1e30 and replicas_equal(comm, np.isfinite(vector))


def test_the_largest_numbers_of_all_ranks_are_added():
    comm, n = world(), LENGTH
    allreduce = Allreduce(comm)
    vector, error = share(comm.rank, n), np.empty(n, np.float32)
    TopK(allreduce.wire(), n, 0.03).sum(vector, error)
    count = -(-3 * n // 100)
    expected = np.zeros(n, np.float32)
    for rank in range(comm.size):
        values = share(rank, n)
        values[np.argsort(np.abs(values))[: n - count]] = 0
        expected += values
    assert np.array_equal(vector, expected) and replicas_equal(comm, vector)
    assert np.array_equal(error, np.where(error == 0, 0, share(comm.rank, n)))
    assert np.count_nonzero(error) == n - count
    assert allreduce.bytes == 8 * count * (comm.size - 1)
    assert largest(np.array([1, -3, np.nan, 2, -np.inf]), 3).tolist() == [1, 2, 4]


@pytest.mark.parametrize("share_sent", [0.001, 0.01, 0.2])
def test_beyond_so_many_ranks_words_take_fewer_bytes_than_pairs(share_sent):
    n, ranks = 1e6, break_even(share_sent)
    assert 8 * share_sent * n * (ranks - 1) <= 4 * n * (ranks - 1) / ranks
    assert 8 * share_sent * n * ranks > 4 * n * ranks / (ranks + 1)


def test_power_iteration_projects_the_sum_on_what_the_last_factors_lead_to():
    """P P^T M for an orthonormal P of the columns of M Q, whichever it is."""
    comm = world()
    allreduce = Allreduce(comm)
    compressor = power_sgd(allreduce, np.float64)
    vectors = [share(rank, LENGTH, float) for rank in range(comm.size)]
    total = np.sum(vectors, axis=0)
    expected, lost, start = total.copy(), np.zeros(LENGTH), 0
    rights = compressor.vectors["right_factors"].copy()
    for place, rows, columns in ((slice(0, 900), 45, 20), (slice(920, 2120), 30, 40)):
        right = rights[start : start + 2 * rows].reshape(rows, 2)
        start += 2 * rows
        reached = total[place].reshape(rows, columns).T @ right
        onto = reached @ np.linalg.pinv(reached)
        expected[place] = (total[place].reshape(rows, columns) @ onto).ravel()
        own = vectors[comm.rank][place].reshape(rows, columns)
        lost[place] = (own - own @ onto).ravel()
    vector, error = vectors[comm.rank].copy(), np.empty(LENGTH)
    compressor.sum(vector, error)
    np.testing.assert_allclose(vector, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(error, lost, rtol=1e-9, atol=1e-9)
    numbers = 2 * (45 + 20) + 2 * (30 + 40) + 20
    assert allreduce.bytes == pytest.approx(2 * (comm.size - 1) / comm.size * 8 * numbers, abs=2)


def test_power_iteration_finds_a_matrix_of_its_rank_and_goes_on_after_zeros():
    comm = world()
    compressor, error = power_sgd(Allreduce(comm), np.float64), np.empty(LENGTH)
    for _ in range(2):
        compressor.sum(np.zeros(LENGTH), error)
    random = np.random.default_rng(1)
    matrix = random.normal(size=(30, 2)) @ random.normal(size=(2, 40))
    for _ in range(2):
        vector = np.zeros(LENGTH)
        vector[920:] = matrix.ravel() / comm.size
        compressor.sum(vector, error)
    np.testing.assert_allclose(vector[920:], matrix.ravel(), rtol=1e-6, atol=1e-9)
    compressor.restart()
    first = compressor.vectors["right_factors"]
    assert np.array_equal(first, power_sgd(Allreduce(comm), np.float64).vectors["right_factors"])


@pytest.mark.parametrize("whole", [False, True])
def test_the_first_ranks_of_nodes_compress_the_sums_of_these(monkeypatch, whole):
    comm, n, behind = world(), 4097, 4
    if comm.size % 2 or comm.size < 4:
        pytest.skip("needs two nodes with equally many ranks")
    half = comm.size // 2
    monkeypatch.setattr(sums, "node_of", lambda comm: split(comm, comm.rank // half, comm.rank))
    monkeypatch.setattr(compressed, "topology", lambda comm: SimpleNamespace(nodes=2))
    network = SimpleNamespace(message=np.zeros(n + behind), parameters=np.zeros(n))
    allreduce, start = Allreduce(comm), SimpleNamespace(reached=not whole)
    message = compressed.CompressedVector(
        allreduce, network, lambda wire: QuantisedSum(wire, n, Bf16()), start
    )
    done, wanted = np.zeros(n), np.zeros(n)
    for step in range(3):
        shares = [share(100 * step + rank, n + behind, float) for rank in range(comm.size)]
        wanted += np.sum(shares, axis=0)[:n]
        message.values[:] = shares[comm.rank]
        message.sum()
        assert replicas_equal(comm, message.values)
        np.testing.assert_allclose(message.values[n:], np.sum(shares, axis=0)[n:], rtol=1e-12)
        done += message.values[:n]
        if step == 0 and not whole:
            nodes = [np.sum(part, axis=0)[:n] for part in (shares[:half], shares[half:])]
            blocks = [slice(*block(n, 2, node)) for node in range(2)]
            total = np.sum([coded(Bf16(), each) for each in nodes], axis=0)
            expected = np.concatenate([coded(Bf16(), total[each]) for each in blocks])
            np.testing.assert_allclose(done, expected, rtol=1e-12, atol=1e-15)
            assert np.any(message.error) == (comm.rank % half == 0)
    kept = comm.allreduce(message.error)
    assert np.any(kept) != whole
    np.testing.assert_allclose(done + kept, wanted, rtol=1e-9, atol=1e-9)
    allreduce.close()
