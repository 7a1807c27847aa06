"""Sums of numbers that are sent as words of fewer bits, and added at full length."""

import numpy as np

from ensync.core.sharding import block
from ensync.mpi.wire import Wire
from ensync.strategies.compression.compressor import Compressor
from ensync.strategies.compression.words import Code


class QuantisedSum(Compressor):
    """Two hops: each rank adds all ranks' words of its block of a vector (n,), in order of rank,
    and sends the words of the sum to all.

    MPI could not add the words, and sums of rounded numbers would lose more digits with every
    rank. So a number is rounded twice, whatever the number of ranks; the rank of a block keeps back
    what its sum loses.
    """

    def __init__(self, wire: Wire, n: int, code: Code) -> None:
        self._wire, self._code, comm = wire, code, wire.comm
        self._blocks = [slice(*block(n, comm.size, rank)) for rank in range(comm.size)]
        self._own = self._blocks[comm.rank]
        self._lengths = [code.nbytes(b.stop - b.start) for b in self._blocks]
        ends = np.cumsum([0, *self._lengths]).tolist()
        self._words = [slice(*pair) for pair in zip(ends, ends[1:], strict=False)]
        self._sent = np.empty(ends[-1], np.uint8)

    def sum(self, vector: np.ndarray, error: np.ndarray) -> None:
        """Sum, and keep back what is rounded off."""
        # float64 beyond float32, and infinity less infinity
        with np.errstate(over="ignore", invalid="ignore"):
            for numbers, words in zip(self._blocks, self._words, strict=True):
                self._code.encode(vector[numbers], self._sent[words])
                self._code.decode(self._sent[words], error[numbers])
            np.subtract(vector, error, out=error)
            own = self._add(self._wire.exchange(self._sent, self._lengths), vector, error)
        gathered = self._wire.gather(own, self._lengths)
        for numbers, words in zip(self._blocks, self._words, strict=True):
            self._code.decode(gathered[words], vector[numbers])

    def _add(self, received: np.ndarray, vector: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Return the words of the sum of this rank's block, whose words of all ranks are given
        (ranks, bytes); overwrite the block of the vector and add to that of the error.
        """
        total, addend = vector[self._own], np.empty_like(vector[self._own])
        self._code.decode(received[0], total)
        for row in received[1:]:
            self._code.decode(row, addend)
            total += addend
        words: np.ndarray = received[0]
        self._code.encode(total, words)
        self._code.decode(words, addend)
        error[self._own] += np.subtract(total, addend, out=addend)
        return words
