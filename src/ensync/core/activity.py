"""What this rank does and since when: a few numbers in memory that the watchdogs of its node can
read (mpi/watchdog.py).

Every wait for other ranks and every piece of work that may take long is noted here. A note costs
some stores and a look at the clock, about 0.2 us, so that a step can afford it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from time import perf_counter

# Places in a record of float64 numbers. A record is a cache line: no rank's notes slow down
# another's.
OPERATION, SINCE, STEP = range(3)
WIDTH = 8


class Doing(IntEnum):
    """What a rank can be doing: in PHRASES below the words for it. Those up to SHARED are waits
    for other ranks.
    """

    GRADIENT, STATISTICS, COUNTS, GATHERING, EXCHANGE, AGREEMENT, MEETING, ROOT = range(8)
    VALUES, SHARED = range(8, 10)
    TRAINING, EVALUATING, READING, COMPILING, SAVING, LOADING, WRITING, PREPARING, LEFT = range(
        10, 19
    )


PHRASES = (
    "the gradient sum",
    "a sum for batch normalisation",
    "a sum of counts",
    "a gathering on rank 0",
    "an exchange of weights",
    "an agreement of all ranks",
    "a barrier",
    "what rank 0 does for all",
    "an exchange of values between the parts of a network",
    "the making of shared memory",
    "training",
    "evaluating",
    "reading the data",
    "compiling kernels",
    "writing a checkpoint",
    "reading a checkpoint",
    "writing results",
    "preparing the run",
    "leaving",
)

# This rank's record; until a watchdog lends one, nobody reads it.
_here: "memoryview[float]" = memoryview(bytearray(8 * WIDTH)).cast("d")


def lend(record: "memoryview[float]") -> None:
    """Note in this record (WIDTH float64 numbers) from here on, beginning with what was noted so
    far.
    """
    global _here
    record[:] = _here
    _here = record


def take_back() -> None:
    """Note in memory of this rank's own again, and leave "leaving" in the record that was lent."""
    global _here
    own = memoryview(bytearray(8 * WIDTH)).cast("d")
    own[:] = _here
    begin(Doing.LEFT)
    _here = own


def begin(operation: float, now: float | None = None) -> None:
    """Note that the operation begins, at `now` where the caller has looked at the clock
    (time.perf_counter) already.
    """
    _here[OPERATION] = operation
    _here[SINCE] = perf_counter() if now is None else now


def tick(steps: int | None = None) -> None:
    """Note that this rank gets on, and how many steps it has done where that has changed."""
    if steps is not None:
        _here[STEP] = steps
    _here[SINCE] = perf_counter()


@contextmanager
def doing(operation: int) -> Iterator[None]:
    """Note the operation while the block runs, and afterwards what was before it."""
    before = _here[OPERATION]
    begin(operation)
    try:
        yield
    finally:
        begin(before)
