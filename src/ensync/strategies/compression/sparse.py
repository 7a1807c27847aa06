"""Sums of the largest numbers alone: top-k sparsification (Aji and Heafield 2017)."""

import math

import numpy as np

from ensync.mpi.wire import Wire
from ensync.strategies.compression.compressor import Compressor

PAIR = 8  # bytes of a number and its place


def break_even(share: float) -> int:
    """Return the most ranks for which this share of the numbers, as pairs, takes no more bytes
    than bf16 words.

    Each rank passes its pairs to all others, 8 s n (p - 1) bytes for a vector (n,); of words it
    passes 4 n (p - 1) / p, since these are added on their way.
    """
    return int(4 / (PAIR * share))


class TopK(Compressor):
    """Each rank sends the `share` of its vector (n,) that is largest in size, at least one number,
    as pairs of place and float32; all ranks add all pairs, in order of rank.
    """

    def __init__(self, wire: Wire, n: int, share: float) -> None:
        self._wire, self._count = wire, max(1, math.ceil(share * n))

    def sum(self, vector: np.ndarray, error: np.ndarray) -> None:
        """Sum, and keep back all smaller numbers."""
        count = self._count
        places = largest(vector, count)
        own = np.empty(PAIR * count, np.uint8)
        own[: 4 * count].view(np.uint32)[:] = places
        with np.errstate(over="ignore"):  # float64 beyond float32
            own[4 * count :].view(np.float32)[:] = vector[places]
        error[:] = vector
        vector[:] = 0
        ranks = self._wire.comm.size
        gathered = self._wire.gather(own, [PAIR * count] * ranks).reshape(ranks, -1)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            error[places] -= own[4 * count :].view(np.float32)
            for pairs in gathered:
                vector[pairs[: 4 * count].view(np.uint32)] += pairs[4 * count :].view(np.float32)


def largest(vector: np.ndarray, count: int) -> np.ndarray:
    """Return the places, in order, of the `count` numbers of a vector (n,) that are largest in
    size; what is not a number counts as larger than all.
    """
    return np.sort(np.argpartition(np.abs(vector), len(vector) - count)[len(vector) - count :])
