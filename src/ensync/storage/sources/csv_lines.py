"""The lines and fields of a text table: any of the usual encodings and delimiters, quoted or
not.
"""

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.sources.source import named_errors

PIECE = 8 << 20  # bytes read at a time
LONGEST_LINE = 32 << 20  # bytes
MARK = codecs.BOM_UTF8  # with which some programs begin a UTF-8 file
WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
WIDER_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip (or a spreadsheet)",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}

# Where a line splits equally well by two of them, the first is taken: "1;0,5;0,25" has decimal
# commas.
DELIMITERS = {
    b"\t": "tabs",
    b";": "semicolons",
    b",": "commas",
    b"|": "vertical bars",
    b" ": "blanks",
}


def blocks(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (number of the first line, lines in UTF-8) for about PIECE bytes at a time."""
    number, rest = 1, b""
    for data in _decoded(path):
        head, newline, tail = data.rpartition(b"\n")
        if newline:
            lines = (rest + head + newline).splitlines()
            yield number, lines
            number, rest = number + len(lines), tail
        else:
            rest += tail
        if len(rest) > LONGEST_LINE:
            given = f"{path}: line {number} is longer than {LONGEST_LINE} bytes"
            raise EnsyncError(given, "a text file of lines", "check the file")
    if rest:
        yield number, rest.splitlines() or [b""]


def _decoded(path: Path) -> Iterator[bytes]:
    """Yield the content as UTF-8 without its mark. Errors: EnsyncError when it is no text."""
    with named_errors(path), path.open("rb") as file:
        data = file.read(PIECE)
        _check_text(path, data)
        if not data.startswith(WIDE_MARKS):
            data = data.removeprefix(MARK)
            while data:
                yield data
                data = file.read(PIECE)
            return
        decoder = codecs.getincrementaldecoder("utf-16")()
        try:
            while data:
                yield decoder.decode(data).encode()
                data = file.read(PIECE)
            yield decoder.decode(b"", final=True).encode()
        except UnicodeError as error:
            raise EnsyncError(
                f"{path} is broken UTF-16", "a text file", "save it again, as UTF-8"
            ) from error


def _check_text(path: Path, data: bytes) -> None:
    """Raise EnsyncError when a file begins as something else than text in UTF-8, or UTF-16 with
    its mark.
    """
    what = next((name for magic, name in PACKED.items() if data.startswith(magic)), "")
    if what:
        raise EnsyncError(
            f"{path} is packed with {what}", "a text file", "unpack it, or save it as CSV"
        )
    head = data[:2000]
    wide = max(head[0::2].count(0), head[1::2].count(0)) > 0.8 * len(head) / 2
    if data.startswith(WIDER_MARKS) or (wide and not data.startswith(WIDE_MARKS) and len(head) > 8):
        given = f"{path} is not UTF-8, and not UTF-16 with a mark at its start"
        raise EnsyncError(given, "a text file in UTF-8", "save it again, as UTF-8")


def fields(line: bytes, delimiter: bytes) -> list[bytes]:
    """Return the fields of a line without the blanks and quotes around them."""
    if b'"' in line:
        text = line.decode("utf-8", "surrogateescape")
        try:
            row = next(csv.reader([text], delimiter=delimiter.decode(), skipinitialspace=True))
            return [field.strip().encode("utf-8", "surrogateescape") for field in row]
        except (csv.Error, StopIteration):
            pass
    return [field.strip() for field in line.split(None if delimiter == b" " else delimiter)]


def field(line: bytes, place: int, columns: int, delimiter: bytes) -> bytes:
    """Return the field at `place` of a line of so many columns, b"" when it has none; quick near
    both ends.
    """
    if b'"' in line or delimiter == b" ":
        row = fields(line, delimiter)
        return row[place] if place < len(row) else b""
    if 2 * place < columns:
        row = line.split(delimiter, place + 1)
        return row[place].strip() if place < len(row) else b""
    row = line.rsplit(delimiter, columns - place)
    return row[place - columns].strip() if columns - place <= len(row) else b""


def count(line: bytes, delimiter: bytes) -> int:
    """Return how many fields a line has."""
    quick = b'"' not in line and delimiter != b" "
    return line.count(delimiter) + 1 if quick else len(fields(line, delimiter))


def number(text: bytes) -> float | None:
    """Return the finite number that `text` is, if any; "nan" and "inf" are not."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
