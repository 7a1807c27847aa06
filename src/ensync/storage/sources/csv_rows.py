"""The rows of a table of pictures: labels and pixels of the good ones, and what is wrong with
the others, by line.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ensync.core.errors import EnsyncError, plural
from ensync.storage.sources import csv_lines
from ensync.storage.sources.csv_layout import Columns
from ensync.storage.sources.csv_lines import fields, number
from ensync.storage.sources.csv_values import missing
from ensync.storage.sources.source import LISTED, first_few

LARGEST_LABEL = 65_535
LONGEST_NAME = 200  # characters of a label that is a word


@dataclass
class Bad:
    """What is wrong with how many rows; the first few by line."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, line: int, why: str) -> None:
        """Count a row and keep the first few reasons."""
        self.count += 1
        if len(self.first) < LISTED:
            self.first.append(f"line {line} {why}")


@dataclass
class Scale:
    """Whether pixels are whole numbers 0..255 or, where none is beyond 1, shares of 255; None
    until a value tells.
    """

    shares: bool | None = None

    def decide(self, pixels: np.ndarray) -> None:
        """Let the rows float32 (rows, pixels) decide: more with fractions of 1, or more with
        values beyond 1.
        """
        fractions = ((pixels > 0) & (pixels < 1)).any(axis=1) & ~(pixels > 1).any(axis=1)
        beyond = (pixels > 1).any(axis=1)
        if self.shares is None and (fractions.any() or beyond.any()):
            self.shares = bool(fractions.sum() > beyond.sum())

    def good(self, pixels: np.ndarray) -> np.ndarray:
        """Return which rows bool (rows,) hold pixels only."""
        fit = (
            (pixels >= 0) & (pixels <= 1)
            if self.shares
            else (pixels >= 0) & (pixels <= 255) & (pixels == np.floor(pixels))
        )
        return np.asarray(fit.all(axis=1))

    def says(self) -> str:
        """Return what a pixel must be."""
        return "a number from 0 to 1" if self.shares else "a whole number from 0 to 255"


@dataclass
class Rows:
    """The good rows of a table: labels, int64 (rows,) or words; pixels uint8 (rows, pixels);
    undecided: all are 0 or 1.
    """

    labels: np.ndarray
    pixels: np.ndarray
    bad: Bad
    undecided: bool


def read_rows(path: Path, columns: Columns, scale: Scale) -> Rows:
    """Return the rows of a table. Errors: EnsyncError when there is no good one."""
    bad = Bad()
    labels: list[np.ndarray] = []
    pixels: list[np.ndarray] = []
    header, undecided = columns.names is not None, 0
    for start, lines in csv_lines.blocks(path):
        numbered = [(n, columns.trim(line)) for n, line in enumerate(lines, start) if line.strip()]
        if numbered and header:
            header, numbered = False, numbered[1:]
        if numbered:
            found, values = _parse(numbered, columns, scale, bad)
            undecided = len(pixels) + 1 if scale.shares is None else undecided
            labels.append(found)
            pixels.append(values)
    if not any(map(len, labels)):
        why = first_few(bad.first, bad.count) or "it is empty"
        raise EnsyncError(
            f"{path} has no usable row: {why}",
            f"rows of {columns.count} whole numbers",
            "correct the file",
        )
    for earlier in pixels[:undecided] if scale.shares else []:
        earlier *= 255
    return Rows(np.concatenate(labels), np.concatenate(pixels), bad, scale.shares is None)


def _parse(
    numbered: list[tuple[int, bytes]], columns: Columns, scale: Scale, bad: Bad
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and pixels uint8 of the good ones of these lines; the bad ones go to `bad`."""
    lines = [line for _number, line in numbered]
    table = _load(lines, columns)
    if table is None:  # some line is not numbers or too long or short: find out which, one by one
        rows = [_load([line], columns) for line in lines]
        width = len(columns.pixels) + (not columns.text)
        table = np.concatenate(
            [np.full((1, width), np.nan, np.float32) if row is None else row for row in rows]
        )
    pixels = table if columns.text else table[:, 1:]
    scale.decide(pixels)
    good = scale.good(pixels)
    if columns.text:
        words = [
            _word(csv_lines.field(line, columns.label, columns.count, columns.delimiter))
            for line in lines
        ]
        good &= [word is not None for word in words]
        labels = np.array([word or "" for word in words], object)
    else:
        labels = table[:, 0]
        good &= (labels >= 0) & (labels <= LARGEST_LABEL) & (labels == np.floor(labels))
        labels = np.where(good, labels, 0).astype(np.int64)
    for place in np.flatnonzero(~good):
        bad.add(numbered[place][0], _why(lines[place], columns, scale))
    kept = pixels[good]
    return labels[good], np.rint(kept * np.float32(255) if scale.shares else kept).astype(np.uint8)


def _load(lines: list[bytes], columns: Columns) -> np.ndarray | None:
    """Return float32 (lines, label unless it is a word, then pixels), or None when a line is not
    that many numbers.
    """
    if any(csv_lines.count(line, columns.delimiter) != columns.count for line in lines):
        return None
    wanted = [*([] if columns.text else [columns.label]), *columns.pixels]
    between = None if columns.delimiter == b" " else columns.delimiter.decode()
    plain = wanted == list(range(columns.count))
    try:
        return np.loadtxt(
            lines,
            np.float32,
            delimiter=between,
            comments=None,
            ndmin=2,
            encoding="latin-1",
            quotechar='"',
            usecols=None if plain else wanted,
        )
    except ValueError:
        return None


def _word(text: bytes) -> str | None:
    """Return the label that is a word, None when it is missing or cannot be a class name."""
    try:
        word = text.decode()
    except UnicodeDecodeError:
        return None
    return word if word.isprintable() and not missing(text) and len(word) <= LONGEST_NAME else None


def _why(line: bytes, columns: Columns, scale: Scale) -> str:
    """Return what is wrong with a bad row."""
    row = fields(line, columns.delimiter)
    if len(row) != columns.count:
        return f"has {plural(len(row), 'value')} instead of {columns.count}"
    for place in sorted([columns.label, *columns.pixels]):
        if why := _wrong(row[place], place, columns, scale):
            return why
    return "is not a row of numbers"


def _encoding(text: bytes) -> str:
    try:
        text.decode()
        return ""
    except UnicodeDecodeError:
        return " in UTF-8 (save the table again, as UTF-8)"


def _wrong(text: bytes, place: int, columns: Columns, scale: Scale) -> str:
    """Return what is wrong with one value, "" when nothing."""
    value, shown, nth = number(text), ascii(text[:20].decode("latin-1")), f"value {place + 1}"
    if not text:
        return f"lacks {nth}"
    if place == columns.label and columns.text:
        return (
            "" if _word(text) else f"has {shown} as {nth}, which is no class name" + _encoding(text)
        )
    if value is None:
        return f"has {shown} as {nth}, which is not a number" + (
            " (numbers need a decimal point)" if b"," in text else ""
        )
    limit = LARGEST_LABEL if place == columns.label else 1 if scale.shares else 255
    wanted = f"a whole number from 0 to {LARGEST_LABEL}" if place == columns.label else scale.says()
    fits = 0 <= value <= limit and (
        value == int(value) or (scale.shares and place != columns.label)
    )
    return "" if fits else f"has {shown} as {nth}, which is not {wanted}"
