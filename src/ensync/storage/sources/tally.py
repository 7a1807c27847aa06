"""Counts what happened to which files, so that nothing is left out or changed without a word."""

from ensync.storage.sources.names import short
from ensync.storage.sources.source import LISTED


class Tally:
    """What happened to how many files, and the names of the first few; add in sorted order."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._first: dict[str, list[str]] = {}

    def add(self, what: str, name: str) -> None:
        """Note that `what` happened to the file of that name."""
        self.counts[what] = self.counts.get(what, 0) + 1
        first = self._first.setdefault(what, [])
        if len(first) < LISTED:
            first.append(name)

    def notes(self) -> list[str]:
        """Return one text for each thing: "left out, hidden: 7 (a; b; c; d; e; ...)"."""
        return [
            f"{what}: {count} ({short('; '.join(self._first[what]))}"
            + ("; ...)" if count > LISTED else ")")
            for what, count in self.counts.items()
        ]

    def count(self, beginning: str) -> int:
        """Return how many files there are of all that happened whose words begin so."""
        return sum(count for what, count in self.counts.items() if what.startswith(beginning))
