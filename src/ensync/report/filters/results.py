"""What the filters of trained networks are: the schema of filters.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ensync.report.results import DatasetFacts, Settings

COLOURFUL = 0.5  # share of a filter's energy from which it is more about colour than about grey
# What filters are put together by, and in words.
KINDS = {
    "towers": "the channels that one group of the next convolution reads",
    "ranks": "what one rank holds",
    "networks": "the members of an ensemble",
    "blocks": "blocks of one tower by their numbers, which mean nothing",
    "one": "all filters",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """Filters that belong together.

    shares: of each filter the chromatic share (core.colours), None of one that has none; of grey
    images there are none. pixels: each weight as the picture shows it, uint8 (filters, size, size,
    channels) as hexadecimal digits; "" where only figures are kept.
    """

    name: str
    shares: list[float | None] = field(default_factory=list)
    pixels: str = ""

    @property
    def known(self) -> list[float]:
        """The shares that there are."""
        return [share for share in self.shares if share is not None]

    @property
    def mean(self) -> float | None:
        """The mean share."""
        return float(np.mean(self.known)) if self.known else None

    @property
    def colourful(self) -> int:
        """How many filters are more about colour than about grey."""
        return sum(share > COLOURFUL for share in self.known)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilters:
    """The filters of one run; kind: of KINDS, what its towers are; size: height and width of a
    filter; epochs: that it has trained.
    """

    path: str
    label: str
    seed: int
    kind: str
    size: int
    channels: int
    epochs: int
    towers: list[Tower]

    @property
    def measured(self) -> bool:
        """Whether every tower has filters with a share."""
        return all(tower.known for tower in self.towers)

    @property
    def compared(self) -> bool:
        """Whether there are towers to compare."""
        return self.measured and len(self.towers) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TowersFound:
    """What the towers of a network are over its seeds. Of each seed the least and the most
    colourful tower come first and last: their mean shares in `least` and `most`.

    difference: of these means, the mean over seeds; p, assignments, exact: of its permutation test;
    None where there are no towers to compare.
    """

    label: str
    kind: str
    seeds: list[int]
    filters: int
    least: list[float | None] = field(default_factory=list)
    most: list[float | None] = field(default_factory=list)
    colourful: list[list[int]] = field(default_factory=list)
    difference: float | None = None
    p: float | None = None
    assignments: int = 0
    exact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FiltersResult:
    """filters.json; job: of the first run."""

    format: str = "ensync-filters"
    version: int = 1
    runs: list[RunFilters]
    found: list[TowersFound]
    job: Settings = field(default_factory=dict)
    created: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    dataset: DatasetFacts = field(default_factory=DatasetFacts)

    def of(self, label: str) -> list[RunFilters]:
        """The runs of a network."""
        return [run for run in self.runs if run.label == label]


def by_colour(run: RunFilters) -> Sequence[Tower]:
    """Return the towers of a run, the least colourful one first where they are measured."""
    if not run.compared:
        return run.towers
    return sorted(run.towers, key=lambda tower: tower.mean or 0.0)
