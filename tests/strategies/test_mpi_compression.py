"""Compressed sums beside plain numpy on the vectors of all ranks."""

import warnings

import numpy as np
import pytest

from ensync.core.sharding import block
from ensync.mpi.allreduce import Allreduce, replicas_equal
from ensync.mpi.world import world
from ensync.strategies.compression.quantised import QuantisedSum
from ensync.strategies.compression.words import Bf16

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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", LENGTHS)
def test_words_are_added_at_full_length_in_order_of_rank(n, dtype):
    comm, code = world(), Bf16()
    allreduce = Allreduce(comm)
    vector, error = share(comm.rank, n, dtype), np.empty(n, dtype)
    QuantisedSum(allreduce.wire(), n, code).sum(vector, error)
    sent = [coded(code, share(rank, n, dtype)) for rank in range(comm.size)]
    total = sent[0].copy()
    for other in sent[1:]:
        total += other
    expected = coded(code, total)
    assert np.array_equal(vector, expected) and replicas_equal(comm, vector)
    lost = share(comm.rank, n, dtype) - sent[comm.rank]
    own = slice(*block(n, comm.size, comm.rank))
    lost[own] += total[own] - expected[own]
    assert np.array_equal(error, lost)
    assert comm.allreduce(allreduce.bytes) == 2 * (comm.size - 1) * code.nbytes(n)


COMPRESSORS = {"bf16": lambda allreduce, n: QuantisedSum(allreduce.wire(), n, Bf16())}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_what_was_sent_and_what_is_kept_back_add_up_to_the_gradients(name):
    comm, n = world(), 4097
    compressor = COMPRESSORS[name](Allreduce(comm), n)
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


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", COMPRESSORS)
def test_what_is_not_finite_arrives_everywhere(name, bad):
    comm, n = world(), 1000
    vector, error = share(comm.rank, n), np.zeros(n, np.float32)
    if comm.rank == comm.size - 1:
        vector[123] = bad
    with warnings.catch_warnings(action="error"):
        COMPRESSORS[name](Allreduce(comm), n).sum(vector, error)
    assert not np.isfinite(vector[123]) and replicas_equal(comm, np.isfinite(vector))
