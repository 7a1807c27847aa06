"""Which ranks run which cell: the first ones, one cell after the other, or packed, several beside
each other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ensync.mpi.world import Comm, alone, split


class Load(NamedTuple):
    """What a cell takes: its ranks, and how long it is expected to take, in any unit."""

    ranks: int
    cost: float


class Turn(NamedTuple):
    """That a cell, by its number, is run by a group of as many ranks as it needs: group 0 are the
    first ranks, group 1 the next.
    """

    cell: int
    group: int


def in_order(loads: Sequence[Load]) -> list[Turn]:
    """Return the turns of cells one after the other, each on the first ranks."""
    return [Turn(number, 0) for number in range(len(loads))]


def packed(loads: Sequence[Load], size: int) -> list[Turn]:
    """Return the turns of cells beside each other on so many ranks: the longest first, each on the
    group of ranks that is free the soonest.

    A rank takes its cells in the order of the turns. Every cell waits only for cells before it in
    that order, so that no two wait for each other. List scheduling by longest processing time
    (Graham 1969, Bounds on multiprocessing timing anomalies).
    """
    free, turns = [0.0] * size, []
    for number in sorted(range(len(loads)), key=lambda number: -loads[number].cost):
        ranks, cost = loads[number]
        ready = [max(free[first : first + ranks]) for first in range(0, size - ranks + 1, ranks)]
        group = min(range(len(ready)), key=ready.__getitem__)
        free[group * ranks : (group + 1) * ranks] = [ready[group] + cost] * ranks
        turns.append(Turn(number, group))
    return turns


@dataclass
class Places:
    """The groups of ranks of a study, made once: of each size, the neighbours.

    Ranks that are left over belong to no group of that size. Collective to make and to free.
    """

    comm: Comm
    sizes: Iterable[int]
    _groups: dict[int, Comm] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for size in sorted(set(self.sizes)):
            if size == self.comm.size:
                self._groups[size] = self.comm
            elif size == 1:
                self._groups[size] = alone()
            else:
                self._groups[size] = split(self.comm, self.comm.rank // size)

    def group(self, size: int, number: int) -> Comm | None:
        """Return the ranks of a group, None where this rank is not among them."""
        return self._groups[size] if self.comm.rank // size == number else None

    def free(self) -> None:
        """Give the communicators back."""
        for size, group in self._groups.items():
            if size not in (1, self.comm.size):
                group.Free()
        self._groups.clear()
