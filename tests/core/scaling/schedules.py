"""Sums over ranks as their algorithms really pass messages, simulated event by event: with vectors,
so that the sums are seen to be right, and with a clock for each rank.
"""

from collections.abc import Iterator

import numpy as np

from ensync.core.scaling.links import Link


class Ranks:
    """Ranks with a vector and a clock each. A message begins when both of its ranks are ready."""

    def __init__(self, count: int, length: int, link: Link) -> None:
        self.link, self.clocks = link, np.zeros(count)
        self.vectors = np.random.default_rng(count).normal(size=(count, length))
        self.expected = self.vectors.sum(axis=0)

    def pass_on(self, moves: list[tuple[int, int, slice, bool]]) -> None:
        """Do messages (from, to, part of the vector, whether it is added there) that begin at once;
        two ranks may exchange.
        """
        sent = [self.vectors[source, part].copy() for source, _, part, _ in moves]
        begun = self.clocks.copy()
        for (source, target, part, adds), values in zip(moves, sent, strict=True):
            nbytes = 8 * len(values)
            end = max(begun[source], begun[target]) + self.link.latency + nbytes * self.link.byte
            added = nbytes * self.link.add * adds
            self.clocks[source] = max(self.clocks[source], end)
            self.clocks[target] = max(self.clocks[target], end + added)
            self.vectors[target, part] = values + (self.vectors[target, part] if adds else 0)

    @property
    def seconds(self) -> float:
        """When the last rank is done; all must have the sum."""
        np.testing.assert_allclose(self.vectors, np.tile(self.expected, (len(self.clocks), 1)))
        return float(self.clocks.max())


ALL = slice(None)


def folded(ranks: Ranks) -> Iterator[list[int]]:
    """Have the first ranks hand their vectors on, so that a power of two is left; yield these
    ranks, and hand the sums back.
    """
    count = len(ranks.clocks)
    core = 1 << (count.bit_length() - 1)
    pairs = [(2 * place, 2 * place + 1) for place in range(count - core)]
    ranks.pass_on([(even, odd, ALL, True) for even, odd in pairs])
    yield [odd for _, odd in pairs] + list(range(2 * len(pairs), count))
    ranks.pass_on([(odd, even, ALL, False) for even, odd in pairs])


def recursive_doubling(ranks: Ranks) -> float:
    for here in folded(ranks):
        distance = 1
        while distance < len(here):
            ranks.pass_on([(r, here[place ^ distance], ALL, True) for place, r in enumerate(here)])
            distance *= 2
    return ranks.seconds


def rabenseifner(ranks: Ranks) -> float:
    for here in folded(ranks):
        core, length = len(here), ranks.vectors.shape[1]
        windows, distance = [(0, length)] * core, core // 2
        steps: list[int] = []
        while distance:
            kept, moves = [], []
            for place, (start, stop) in enumerate(windows):
                middle = (start + stop) // 2
                low = not place & distance
                kept.append((start, middle) if low else (middle, stop))
                given = slice(middle, stop) if low else slice(start, middle)
                moves.append((here[place], here[place ^ distance], given, True))
            ranks.pass_on(moves)
            steps.append(distance)
            windows, distance = kept, distance // 2
        for distance in reversed(steps):
            held = dict(enumerate(windows))
            ranks.pass_on(
                [
                    (here[place], here[place ^ distance], slice(*held[place]), False)
                    for place in range(core)
                ]
            )
            windows = [
                (min(held[p][0], held[p ^ distance][0]), max(held[p][1], held[p ^ distance][1]))
                for p in range(core)
            ]
    return ranks.seconds


def ring(ranks: Ranks) -> float:
    count, length = ranks.vectors.shape
    part = [slice(k * length // count, (k + 1) * length // count) for k in range(count)]
    for adds in (True, False):
        for step in range(count - 1):
            shift = step - (not adds)
            ranks.pass_on(
                [(r, (r + 1) % count, part[(r - shift) % count], adds) for r in range(count)]
            )
    return ranks.seconds


def reduce_broadcast(ranks: Ranks) -> float:
    count, distance = len(ranks.clocks), 1
    while distance < count:
        ranks.pass_on(
            [(r + distance, r, ALL, True) for r in range(0, count - distance, 2 * distance)]
        )
        distance *= 2
    while distance > 1:
        distance //= 2
        ranks.pass_on(
            [(r, r + distance, ALL, False) for r in range(0, count - distance, 2 * distance)]
        )
    return ranks.seconds
