"""Vectors of the whole network and those of a rank: how one is cut from the other, and put
together again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.nn.layers.base import Parameter, Shape
from ensync.nn.sequential import Sequential
from ensync.nn.split.exchange import Exchange, Holding


@dataclass(frozen=True)
class Cut:
    """A named array of the whole network, and how a rank's part is cut from it: seen as `(before,
    ranks, block, after)`, it is one index of the second axis. Of an array that every rank has
    whole, ranks is 1.
    """

    whole: Parameter
    before: int
    ranks: int
    block: int
    after: int

    @property
    def size(self) -> int:
        """Number of values of a part."""
        return self.before * self.block * self.after

    def own(self, values: np.ndarray, rank: int) -> np.ndarray:
        """Return the part of a rank `(size,)` of a whole array, of any shape."""
        seen = values.reshape(self.before, self.ranks, self.block, self.after)
        return seen[:, rank % self.ranks].reshape(-1)

    def fill(self, whole: np.ndarray, parts: Sequence[np.ndarray]) -> None:
        """Write a flat whole array, given all ranks' parts `(ranks, size)`."""
        seen = whole.reshape(self.before, self.ranks, self.block, self.after)
        for rank in range(self.ranks):
            seen[:, rank] = parts[rank].reshape(self.before, self.block, self.after)


def cut_of(whole: Parameter, part: Parameter, ranks: int) -> Cut:
    """Return how a rank's array is cut from that of the whole network, by their shapes."""
    axes = [i for i, (a, b) in enumerate(zip(whole.shape, part.shape, strict=True)) if a != b]
    if not axes:
        return Cut(whole, 1, 1, whole.size, 1)
    (axis,) = axes
    assert whole.shape[axis] == ranks * part.shape[axis], f"{whole} is cut into {part}"
    return Cut(
        whole,
        prod(whole.shape[:axis]) * part.stretches,
        ranks,
        part.shape[axis] // part.stretches,
        prod(whole.shape[axis + 1 :]),
    )


class Cuts:
    """How a flat vector like the parameters, or like the statistics, is cut."""

    def __init__(self, whole: Sequence[Parameter], part: Sequence[Parameter], ranks: int) -> None:
        pairs = zip(whole, part, strict=True)
        self.each = {own.name: cut_of(all_of, own, ranks) for all_of, own in pairs}
        self.size = sum(parameter.size for parameter in whole)

    def everywhere(self, own: np.ndarray) -> list[np.ndarray]:
        """Return views of what every rank has whole, in a rank's own vector."""
        found, start = [], 0
        for cut in self.each.values():
            if cut.ranks == 1:
                found.append(own[start : start + cut.size])
            start += cut.size
        return found

    def own(self, values: np.ndarray, rank: int) -> np.ndarray:
        """Return the part of a rank of a whole vector. One of another size is returned as it is."""
        if values.shape != (self.size,):
            return values
        parts, start = [np.empty(0, values.dtype)], 0
        for cut in self.each.values():
            end = start + cut.whole.size
            parts.append(cut.own(values[start:end], rank))
            start = end
        return np.concatenate(parts)

    def joined(self, parts: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the whole vector of all ranks' parts `(ranks, n)`."""
        whole, start, taken = np.empty(self.size, parts[0].dtype), 0, 0
        for cut in self.each.values():
            end = start + cut.whole.size
            cut.fill(whole[start:end], [part[taken : taken + cut.size] for part in parts])
            start, taken = end, taken + cut.size
        return whole


class Parts:
    """How the vectors of a network that several ranks hold are cut, for this rank of them.

    parameters, statistics: of vectors like these. shapes: of the outputs of each layer of the
    whole network. first: the number of this rank's first array among all parameters.
    """

    first = 0

    def __init__(
        self, parameters: Cuts, statistics: Cuts, shapes: Sequence[Shape], exchange: Holding
    ) -> None:
        self.parameters, self.statistics, self.shapes = parameters, statistics, shapes
        self.ranks, self.rank = exchange.ranks, exchange.rank

    def of(self, name: str) -> Cuts:
        """Return the cuts of a vector of a trainer, by its name, such as "best/statistics"."""
        is_statistics = name.rpartition("/")[2] == "statistics"
        return self.statistics if is_statistics else self.parameters

    def own(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return this rank's part of a whole vector of that name."""
        return self.of(name).own(values, self.rank)


def parts_of(whole: Sequential, part: Sequential, exchange: Exchange) -> Parts:
    """Return how the vectors of a whole body are cut, given a rank's own, both built.

    Errors: EnsyncError where all of it is on every rank.
    """
    own, all_of = (sum(p.size for p in body.parameters) for body in (part, whole))
    if own == all_of:
        raise EnsyncError(
            f"parallel.model = {exchange.ranks} for a network without hidden layers",
            "filters or units that can be split",
            "set parallel.model = 1",
        )
    return Parts(
        Cuts(whole.parameters, part.parameters, exchange.ranks),
        Cuts(whole.statistics, part.statistics, exchange.ranks),
        whole.shapes,
        exchange,
    )
