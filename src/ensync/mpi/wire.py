"""What passes between ranks in sums that MPI does not do: words that a receiver decodes and adds.

A sum of words takes two hops, in each of which a rank passes (p - 1) / p of a vector's words to the
p - 1 others: `exchange` brings each rank all ranks' words of its own block, and `gather` brings
all ranks the words of the sums of all blocks.
"""

from collections.abc import Callable, Sequence

import numpy as np
from mpi4py import MPI

from ensync.mpi.world import Comm


def passed(nbytes: int, ranks: int) -> int:
    """Return the bytes that each of some ranks passes to others in the sum of a vector of nbytes.

    2 (p - 1) / p of them, rounded down: the least that a sum over p ranks takes (Thakur et al.
    2005), and what the sum in shared memory copies, within nodes and between them together. MPI
    may choose an algorithm that passes more of a short vector, in fewer messages.
    """
    return 2 * (ranks - 1) * nbytes // ranks


class Wire:
    """Passes arrays between the ranks of a communicator.

    note: called with the bytes that this rank passes to others, in each call.
    """

    def __init__(self, comm: Comm, note: Callable[[int], None]) -> None:
        self.comm, self._note = comm, note

    def allreduce(self, vector: np.ndarray) -> None:
        """Replace a vector (n,) by its sum over the ranks, the same bits on all. Collective."""
        self.comm.Allreduce(MPI.IN_PLACE, vector, op=MPI.SUM)
        self._note(passed(vector.nbytes, self.comm.size))

    def exchange(self, sent: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
        """Return the words (ranks, own length) that all ranks have for this one. Collective.

        sent: uint8 (sum of lengths,), the words for rank 0, 1, ... one after the other, which are
        `lengths` long on every rank.
        """
        size, own = self.comm.size, lengths[self.comm.rank]
        received = np.empty((size, own), np.uint8)
        self.comm.Alltoallv([sent, lengths], [received, [own] * size])
        self._note(sent.nbytes - own)
        return received

    def gather(self, own: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
        """Return the words uint8 (sum of lengths,) of all ranks, one rank's after the other's.
        Collective.

        own: uint8 (length,) of this rank, which is `lengths[rank]`.
        """
        gathered = np.empty(sum(lengths), np.uint8)
        self.comm.Allgatherv(own, [gathered, lengths])
        self._note((self.comm.size - 1) * own.nbytes)
        return gathered
