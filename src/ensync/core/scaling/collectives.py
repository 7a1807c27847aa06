"""What a sum over ranks costs by the algorithms that MPI libraries take, in Hockney's model: a
message of n bytes takes alpha + n beta seconds, and the addition of n bytes n gamma.

Formulas: Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations in
MPICH", IJHPCA 19(1), 2005, as they stand beside the algorithms in MPICH's sources
(src/mpi/coll/allreduce). Where the ranks are no power of two, some first hand their vector to a
neighbour and get the sum in the end; Open MPI's form of that hands over halves, which are as many
bytes. Every rank can send and receive at full speed at once.
"""

from collections.abc import Callable
from typing import NamedTuple


class Terms(NamedTuple):
    """What lies behind one another until the last rank has the sum: messages, bytes that are sent,
    and bytes that are added.
    """

    messages: float
    sent: float
    added: float

    def times(self, count: float) -> "Terms":
        """Return those of so many, one after the other."""
        return Terms(*(count * each for each in self))

    def plus(self, other: "Terms") -> "Terms":
        """Return those of both, one after the other."""
        return Terms(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


NOTHING = Terms(0, 0, 0)
Algorithm = Callable[[int, float], Terms]  # of ranks and bytes


def _core(ranks: int) -> tuple[int, int]:
    """Return the largest power of two up to `ranks`, and its logarithm."""
    rounds = ranks.bit_length() - 1
    return 1 << rounds, rounds


def _rounds_up(ranks: int) -> int:
    """Return the logarithm of the smallest power of two from `ranks` on."""
    return (ranks - 1).bit_length()


def recursive_doubling(ranks: int, nbytes: float) -> Terms:
    """In each round all ranks exchange their whole sums in pairs: few messages, many bytes."""
    core, rounds = _core(ranks)
    found = Terms(rounds, rounds * nbytes, rounds * nbytes)
    return found if core == ranks else found.plus(Terms(2, 2 * nbytes, nbytes))


def rabenseifner(ranks: int, nbytes: float) -> Terms:
    """A reduce-scatter by recursive halving, then an allgather by recursive doubling: twice the
    messages, the fewest bytes.
    """
    core, rounds = _core(ranks)
    part = (core - 1) / core * nbytes
    found = Terms(2 * rounds, 2 * part, part)
    return found if core == ranks else found.plus(Terms(2, 2 * nbytes, nbytes))


def ring(ranks: int, nbytes: float) -> Terms:
    """A reduce-scatter and an allgather around a ring: the fewest bytes for any number of ranks,
    most messages.
    """
    part = (ranks - 1) / ranks * nbytes
    return Terms(2 * (ranks - 1), 2 * part, part)


def reduce_broadcast(ranks: int, nbytes: float) -> Terms:
    """Sum to one rank along a binomial tree, and back along it."""
    rounds = _rounds_up(ranks)
    return Terms(2 * rounds, 2 * rounds * nbytes, rounds * nbytes)


def exchange(ranks: int, nbytes: float) -> Terms:
    """One exchange with a partner, as gossip has it, and the mean of both."""
    return Terms(1, nbytes, nbytes) if ranks > 1 else NOTHING


def mpich(ranks: int, nbytes: float) -> Algorithm:
    """Return what MPICH 4 and 5 take for float32 numbers (src/mpi/coll/coll_selection.json, and
    the default of MPIR_CVAR_ALLREDUCE_SHORT_MSG_SIZE).
    """
    short = nbytes <= 2048 or nbytes / 4 < _core(ranks)[0]
    return recursive_doubling if short else rabenseifner


# Open MPI 5: below so many ranks, {below so many bytes: algorithm}
# (ompi/mca/coll/tuned/coll_tuned_decision_fixed.c, operations that commute; a ring in segments has
# the terms of a ring).
_INF = float("inf")
_SHORT, _TREE, _LONG = recursive_doubling, reduce_broadcast, rabenseifner
OPEN_MPI: tuple[tuple[float, dict[float, Algorithm]], ...] = (
    (4, {8: ring, 4096: _SHORT, 8192: ring, 16384: _SHORT, 262144: ring, _INF: _LONG}),
    (8, {16: ring, 8192: _SHORT, _INF: _LONG}),
    (16, {8192: _SHORT, _INF: _LONG}),
    (32, {64: ring, 4096: _SHORT, _INF: _LONG}),
    (64, {128: ring, _INF: _LONG}),
    (128, {262144: _SHORT, _INF: _LONG}),
    (256, {131072: _TREE, 262144: _SHORT, _INF: _LONG}),
    (512, {4096: _TREE, _INF: _LONG}),
    (_INF, {2048: _TREE, 16384: _SHORT, _INF: _LONG}),
)


def open_mpi(ranks: int, nbytes: float) -> Algorithm:
    """Return what Open MPI 5 takes."""
    sizes = next(sizes for below, sizes in OPEN_MPI if ranks < below)
    return next(algorithm for below, algorithm in sizes.items() if nbytes < below)


LIBRARIES: dict[str, Callable[[int, float], Algorithm]] = {"MPICH": mpich, "Open MPI": open_mpi}


def allreduce(library: str, ranks: int, nbytes: float) -> Terms:
    """Return what a sum over ranks takes in an MPI library, whose description begins with its name
    ("MPICH 5.0.2"); others are taken to be as MPICH, from which many come.
    """
    if ranks == 1:
        return NOTHING
    chosen = next((of for name, of in LIBRARIES.items() if library.startswith(name)), mpich)
    return chosen(ranks, nbytes)(ranks, nbytes)
