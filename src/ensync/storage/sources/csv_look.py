"""A first look at a table: its delimiter, whether its first line names the columns, and its
first rows.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

from ensync.core.errors import EnsyncError
from ensync.storage.sources import csv_lines
from ensync.storage.sources.csv_lines import DELIMITERS, fields, number

SAMPLE = 100  # lines that a guess looks at
LABEL_NAMES = frozenset(
    ["label", "labels", "class", "classes", "target", "targets", "category", "digit", "y"]
)
NAMED = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "blank": " ", "space": " "}


class TableOptions(NamedTuple):
    """What the columns of a table are; what is None or "auto" is found out.

    label: a column's name, or its number from 1, or from the end as -1; delimiter: a character or a
    key of NAMED; header: "yes", "no" or "auto"; shape: "28x20", "32x32x3", or "3x32x32" where
    planes of one colour follow each other.
    """

    label: str | None = None
    delimiter: str | None = None
    header: str = "auto"
    shape: str | None = None


def called(place: int, names: list[str] | None) -> str:
    """Return "column 3 ('class')" for the column at `place`, counted from 0."""
    name = names[place] if names and place < len(names) else ""
    return f"column {place + 1}" + (f" ('{name}')" if name else "")


@dataclass(frozen=True)
class Look:
    """The first lines of a table: fields of the header, if there is one, and of SAMPLE rows."""

    path: Path
    delimiter: bytes
    names: list[str] | None
    rows: list[list[bytes]]
    columns: int
    ended: bool

    def column(self, place: int) -> list[bytes]:
        """Return the values of a column in the sample that are not missing."""
        return [row[place] for row in self.rows if place < len(row) and row[place]]


def look_at(path: Path, options: TableOptions) -> Look:
    every = (line for _start, lines in csv_lines.blocks(path) for line in lines if line.strip())
    lines = list(islice(every, SAMPLE + 1))
    if not lines:
        raise EnsyncError(
            f"{path} is empty",
            "lines of a label and pixels, with commas between",
            "give another file with --from",
        )
    delimiter = _delimiter(options.delimiter, lines)
    if all(csv_lines.count(line, delimiter) == 1 for line in lines):
        what = f"{path} has 1 columns, with {' or '.join(DELIMITERS.values())} between them"
        raise EnsyncError(
            what,
            "a label and pixels in each line",
            "give another file with --from, or the character between columns with --delimiter",
        )
    ended = (
        delimiter != b" "
        and sum(line.rstrip(b" ").endswith(delimiter) for line in lines[1:])
        > 0.9 * len(lines[1:])
        > 0
    )
    rows = [fields(line, delimiter) for line in lines]
    ended = ended and (not rows[0] or not rows[0][-1] or len(rows[0]) < len(rows[1]))
    if ended:
        rows = [row[:-1] if row and not row[-1] else row for row in rows]
    header = rows.pop(0) if _has_header(path, rows[0], rows[1:], options.header) else None
    if not rows:
        raise EnsyncError(
            f"{path} has no usable row: it is empty below its header",
            "rows of a label and pixels",
            "give another file with --from",
        )
    columns = Counter(map(len, rows)).most_common(1)[0][0]
    names = None if header is None else _names(path, header, columns)
    return Look(path, delimiter, names, rows, columns, ended)


def _delimiter(given: str | None, lines: list[bytes]) -> bytes:
    if given is not None:
        one = NAMED.get(given.lower(), given)
        if len(one) != 1 or not one.isascii() or one.isalnum() or one in "\"'+-.\r\n":
            raise EnsyncError(
                f"--delimiter {given!a}",
                "one character, or " + ", ".join(NAMED),
                "choose one of them",
            )
        return one.encode()

    def split(delimiter: bytes) -> tuple[int, int]:
        found = [text for line in lines[:20] for text in fields(line, delimiter)]
        return sum(number(text) is not None for text in found), len(found)

    return max(DELIMITERS, key=split)


def _names(path: Path, header: list[bytes], columns: int) -> list[str]:
    try:
        names = [name.decode() for name in header]
    except UnicodeDecodeError:
        raise EnsyncError(
            f"{path} has a header that is not UTF-8", "UTF-8", "save it again, as UTF-8"
        ) from None
    if len(names) == columns - 1:  # R writes no name above its row names
        names.insert(0, "")
    return ["".join(c for c in name if c.isprintable())[:40] for name in names[:columns]]


def _has_header(path: Path, first: list[bytes], others: list[list[bytes]], asked: str) -> bool:
    """Tell whether the first line names columns. Errors: EnsyncError when it may as well be a
    picture.
    """
    if asked != "auto":
        return asked == "yes"
    values = [number(text) for text in first]
    known = [value for value in values if value is not None]
    if not known:
        return True
    words = [place for place, text in enumerate(first) if text and values[place] is None]
    beneath = {place: [row[place] for row in others if place < len(row)] for place in words}
    named = [place for place in words if mostly_numbers(beneath[place])]
    if any(first[place].lower().decode("latin-1") in LABEL_NAMES for place in named):
        return True
    again = first in others or any(first[place] in beneath[place] for place in words)
    if not counts_up(known) or again:
        _check_mangled(path, first, known, others)
        return False
    if named or not all(first) or len(known) >= 10 and known[0] in (0, 1):
        return True
    if words or known[0] not in (0, 1) or len(known) < 3:
        return False
    given = (
        f"the first line of {path} ({', '.join(text.decode() for text in first[:5])}, ...) "
        "may be names or a picture"
    )
    raise EnsyncError(given, "one of them", "say which with --header yes or --header no")


def mostly_numbers(texts: list[bytes]) -> bool:
    return bool(texts) and sum(number(text) is not None for text in texts) > len(texts) / 2


def counts_up(values: list[float]) -> bool:
    return len(values) > 1 and all(after == before + 1 for before, after in pairwise(values))


def _check_mangled(
    path: Path, first: list[bytes], known: list[float], others: list[list[bytes]]
) -> None:
    """Refuse a row of pixels that pandas took for names, made unlike each other (0, 0.1, 0.2
    ...) and wrote back.
    """
    fractions = sum(value != int(value) for value in known)
    whole = all(
        value == int(value) for row in others for text in row if (value := number(text)) is not None
    )
    if others and whole and fractions > len(first) / 4 and len(set(first)) == len(first):
        shown = ", ".join(text.decode("latin-1") for text in first[:6])
        raise EnsyncError(
            f"the first line of {path} ({shown}, ...) seems to be a picture that was once read "
            "as a header, and written back with its values changed",
            "a picture or names in the first line",
            "write the table again from its origin, or leave that line out with --header yes",
        )
