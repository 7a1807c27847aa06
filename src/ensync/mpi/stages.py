"""What passes between the stages of a network: values forward, and their gradients back, from one
rank to the next (nn.split.exchange.Links).

A send never waits, so that stages which send to each other at the same time get on, however long a
message is. Neither MPICH nor Open MPI moves a long message on while a rank computes, so that it is
looked at now and then.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from mpi4py import MPI

from ensync.core.timeline import Kind
from ensync.mpi.values import Cost, Holders
from ensync.mpi.world import Comm

_TAG = 73


@dataclass
class _Post:
    """A copy of values, and its send, which needs it until it ends."""

    values: np.ndarray
    request: MPI.Request


class StageLinks(Holders):
    """Passes values between the ranks of a communicator, which are the stages in their order.

    cost: bytes of values sent, and the seconds that this stage has waited for others.
    """

    kind: ClassVar[Kind] = Kind.STAGE

    def __init__(self, comm: Comm, cost: Cost | None = None) -> None:
        super().__init__(comm, cost)
        self._posts: list[_Post] = []

    def send(self, values: np.ndarray, stage: int) -> None:
        """Begin to send a copy of values to a stage, which receives them in the order of their
        sending. Never waits.
        """
        post = self._free(values.size, values.dtype)
        copy = post.values[: values.size]
        copy.reshape(values.shape)[...] = values
        post.request = self.comm.Isend(copy, stage, _TAG)
        self.cost.bytes += values.nbytes

    def _free(self, size: int, dtype: np.dtype) -> _Post:
        """Return a copy that is no longer needed, with room for so many values."""
        for post in self._posts:
            room = len(post.values) >= size and post.values.dtype == dtype
            if room and post.request.Test():
                return post
        self._posts.append(_Post(np.empty(size, dtype), MPI.REQUEST_NULL))
        return self._posts[-1]

    def receive(self, out: np.ndarray, stage: int) -> None:
        """Wait for the next values of a stage, as many as `out`, which is contiguous, has."""
        with self._counted(0):
            self.comm.Recv(out, stage, _TAG)

    def look(self) -> None:
        """Move on what is on its way."""
        for post in self._posts:
            post.request.Test()

    def finish(self) -> None:
        """Wait until all that was sent was received."""
        if self._posts:
            with self._counted(0):
                for post in self._posts:
                    post.request.Wait()

    def from_last(self, values: np.ndarray) -> None:
        """Replace values (n,) by those of the last stage. Collective.

        The time is counted, in which the last stage may wait for the others, not the bytes.
        """
        with self._counted(0):
            self.comm.Bcast(values, self.ranks - 1)

    def close(self) -> None:
        """Wait until all was received."""
        self.finish()
        self._posts.clear()
