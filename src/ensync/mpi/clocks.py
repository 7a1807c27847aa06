"""How far the clock of a rank is from that of rank 0."""

from time import perf_counter
from typing import NamedTuple, cast

from mpi4py import MPI

from ensync.core.activity import Doing, doing
from ensync.mpi.world import Comm

_TAG, _ROUNDS = 72, 16


class Reading(NamedTuple):
    """What is to be added to time.perf_counter of this rank, at its time `at`, to get that of rank
    0, and by how much that may be wrong. All in seconds.
    """

    at: float
    offset: float
    error: float

    @property
    def settled(self) -> "Reading":
        """The reading of a rank beside rank 0: their clock is one, unless it was seen to differ."""
        same = abs(self.offset) <= self.error
        return Reading(self.at, 0.0, 0.0) if same else self


def read_clock(comm: Comm) -> Reading:
    """Compare the clocks of all ranks with that of rank 0, one after the other. Collective.

    Rank 0 asks each for its time and takes the answer for the middle between question and answer
    (Cristian 1989), of the fastest of some rounds.
    """
    reading = Reading(perf_counter(), 0.0, 0.0)
    with doing(Doing.EXCHANGE):
        if comm.rank == 0:
            for rank in range(1, comm.size):
                comm.send(min(_asked(comm, rank), key=lambda each: each.error), rank, _TAG)
            comm.bcast(MPI.Get_processor_name())
            return reading
        for _ in range(_ROUNDS):
            comm.recv(source=0, tag=_TAG)
            comm.send(perf_counter(), 0, _TAG)
        reading = cast(Reading, comm.recv(source=0, tag=_TAG))
        beside = comm.bcast(None) == MPI.Get_processor_name()
    return reading.settled if beside else reading


def _asked(comm: Comm, rank: int) -> list[Reading]:
    readings = []
    for _ in range(_ROUNDS):
        asked = perf_counter()
        comm.send(None, rank, _TAG)
        theirs = comm.recv(source=rank, tag=_TAG)
        answered = perf_counter()
        readings.append(Reading(theirs, (asked + answered) / 2 - theirs, (answered - asked) / 2))
    return readings
