"""A link between ranks by three numbers, fitted to measured times; and how far the model is from
what was measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from ensync.core.scaling.collectives import Terms, allreduce

FURTHEST = 4.0  # factor from the model beyond which a measurement is not believed


@dataclass(frozen=True)
class Link:
    """Seconds of a message (alpha), and of a byte that is sent (beta) or added (gamma)."""

    latency: float
    byte: float
    add: float = 0.0

    def seconds(self, terms: Terms) -> float:
        """Return the seconds of what lies behind one another."""
        return terms.messages * self.latency + terms.sent * self.byte + terms.added * self.add

    def of_messages(self, terms: Terms) -> float:
        """Return the seconds of these that the number of messages costs, not their length."""
        return terms.messages * self.latency


class Timed(NamedTuple):
    """A measured time of what has these terms."""

    terms: Terms
    seconds: float


def fit_link(measured: Sequence[Timed]) -> Link:
    """Return the link that fits best: least squares of relative errors, so that short messages
    count as much as long ones, with no number below zero.

    The best of the fits with some of the numbers zero is that of all (the problem is convex), so
    that each is tried.
    """
    rows = np.array([each.terms for each in measured], float)
    seconds = np.array([each.seconds for each in measured], float)
    rows, ones = rows / seconds[:, None], np.ones(len(seconds))
    best, least = np.zeros(3), math.inf
    for count in (1, 2, 3):
        for chosen in combinations(range(3), count):
            columns = rows[:, chosen]
            scale = np.abs(columns).max(axis=0)
            if not scale.all():
                continue
            found = np.linalg.lstsq(columns / scale, ones, rcond=None)[0] / scale
            error = float(np.square(columns @ found - ones).sum())
            if (found >= 0).all() and error < least * (1 - 1e-9):
                best, least = np.zeros(3), error
                best[list(chosen)] = found
    return Link(*map(float, best))


@dataclass(frozen=True)
class MeasuredSum:
    """The seconds of a sum of a vector of so many bytes over so many ranks, by MPI."""

    ranks: int
    nbytes: int
    seconds: float


@dataclass(frozen=True)
class Network:
    """A link, the MPI library that sums over it, and sums that were measured there."""

    link: Link
    library: str
    sums: tuple[MeasuredSum, ...] = ()

    def terms(self, ranks: int, nbytes: float) -> Terms:
        """Return what a sum over ranks takes."""
        return allreduce(self.library, ranks, nbytes)

    def correction(self, nbytes: float) -> float:
        """Return how many times as long as the model's a sum of so many bytes takes: measured at
        lengths beside it, and between these by the logarithm of the length.
        """
        known = sorted((each.nbytes, self._off(each)) for each in self.sums if each.ranks > 1)
        if not known:
            return 1.0
        lengths, factors = zip(*known, strict=True)
        places = np.log(np.maximum(lengths, 1))
        return float(math.exp(np.interp(math.log(max(nbytes, 1)), places, np.log(factors))))

    def _off(self, each: MeasuredSum) -> float:
        model = self.link.seconds(self.terms(each.ranks, each.nbytes))
        ratio = each.seconds / model if model > 0 else 1.0
        return min(FURTHEST, max(1 / FURTHEST, ratio))

    def split(self, ranks: int, nbytes: float) -> tuple[float, float]:
        """Return the seconds of a sum over ranks: those that its messages cost, and those that
        its bytes do.
        """
        terms, factor = self.terms(ranks, nbytes), self.correction(nbytes)
        messages = factor * self.link.of_messages(terms)
        return messages, factor * self.link.seconds(terms) - messages
