"""The values of one column of a whole table: can they be labels?"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from ensync.core.errors import EnsyncError, plural
from ensync.storage.sources import csv_lines
from ensync.storage.sources.csv_lines import number
from ensync.storage.sources.csv_look import Look, called

FEW = 20  # rows below which the number of different values says nothing
FARTHEST = 10  # times their number that labels may reach: 3 and 8 are labels, 0 and 255 are pixels
MOST_VALUES = 70_000  # different values of a column that are counted


class Values(NamedTuple):
    """How often each value occurs in a column of a whole table."""

    place: int
    counts: Counter[bytes]
    text: bool

    @staticmethod
    def of(look: Look, place: int) -> "Values":
        """Count the values of a column."""
        counts = Counter(_column(look, place))
        words = {
            value: times
            for value, times in counts.items()
            if number(value) is None and not missing(value)
        }
        text = (
            sum(words.values()) > counts.total() / 2
            or sum(times > 1 for times in words.values()) > 1
        )
        return Values(place, counts, text)

    def __str__(self) -> str:
        different = len(self.counts)
        return (
            "one value only"
            if different == 1
            else f"{different} different values in {plural(self.counts.total(), 'row')}"
        )

    def numbers(self) -> set[float]:
        """Return the values that are numbers."""
        return {value for value in map(number, self.counts) if value is not None}

    def possible(self) -> bool:
        """Tell whether these can be labels: words or whole numbers, several, and in FEW rows or
        more neither too many nor far apart.
        """
        values = self.numbers()
        whole = self.text or all(value >= -1 and value == int(value) for value in values)
        apart = (
            not self.text
            and self.counts.total() >= FEW
            and max(values, default=0) > FARTHEST * len(values)
        )
        return whole and len(self.counts) > 1 and self.repeated() and not apart

    def repeated(self) -> bool:
        """Tell whether there are twice as many rows as values, or too few rows to tell."""
        return self.counts.total() < FEW or 2 * len(self.counts) <= self.counts.total()

    def strong(self) -> bool:
        """Tell whether these look like labels: every number from 0 or 1 on, twice on average."""
        values = self.numbers()
        gapless = (
            len(values) > 1
            and min(values) in (0, 1)
            and all(value == int(value) for value in values)
            and max(values) - min(values) == len(values) - 1
        )
        return self.text or (gapless and 2 * len(self.counts) <= self.counts.total())

    def check(self, look: Look) -> None:
        """Raise EnsyncError when there are more labels than is plausible."""
        if not self.repeated():
            what = (
                f"{called(self.place, look.names)} of {look.path} has {self}, too many for labels"
            )
            raise EnsyncError(
                what,
                "at least two rows for a label",
                f"say with --label which column holds the labels; --label {self.place + 1} if it "
                "is this one",
            )


def missing(text: bytes) -> bool:
    """Tell whether a field stands for a value that is not there."""
    return text.lower() in (b"", b"nan", b"na", b"n/a", b"#n/a", b"null")


def _column(look: Look, place: int) -> Iterator[bytes]:
    """Yield the values of a column of the whole table; without end of different ones, only the
    first MOST_VALUES.
    """
    seen: set[bytes] = set()
    header = look.names is not None
    for _start, lines in csv_lines.blocks(look.path):
        for line in lines:
            if not line.strip():
                continue
            if header:
                header = False
                continue
            text = line.rstrip(b" ").removesuffix(look.delimiter) if look.ended else line
            value = csv_lines.field(text, place, look.columns, look.delimiter)
            if len(seen) < MOST_VALUES or value in seen:
                seen.add(value)
                yield value
