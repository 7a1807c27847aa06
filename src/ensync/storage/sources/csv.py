"""CSV files: one image a line, its label first, then its pixels 0..255 row by row (colour: red, green, blue of each pixel together).

785 columns are a label and 28 x 28 pixels; any label + N*N or label + N*N*3 will do. A header line is optional. Blank lines do not count.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path

import numpy as np

from ensync.errors import EnsyncError
from ensync.storage.sources.source import LISTED, Source, checksum, first_few, regular_file, told

PIECE = 8 << 20          # bytes parsed at a time
LONGEST_LINE = 32 << 20  # bytes
LARGEST_LABEL = 65_535
MARK = b"\xef\xbb\xbf"   # with which some programs begin a UTF-8 file
LABEL_NAMES = (b"label", b"class", b"target")
NAMES = {"train": ("train.csv", "*_train.csv", "*-train.csv"), "test": ("test.csv", "*_test.csv", "*-test.csv")}


@dataclass
class _Bad:
    """What is wrong with how many rows; the first few by line."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, line: int, why: str) -> None:
        self.count += 1
        if len(self.first) < LISTED:
            self.first.append(f"line {line} {why}")


def read_csv(path: str | Path, bad_rows: str = "refuse", validation: str | Path | None = None) -> Source:
    """Return the images of `path`: one file, or a directory with train.csv and perhaps test.csv (fashion-mnist_train.csv too).

    validation: a file with the validation images.

    bad_rows: "refuse" raises EnsyncError when a row is missing values, not numeric or out of range, naming the first few by line;
    "skip" leaves such rows out and notes it.
    """
    paths = _find(Path(path))
    if validation is not None:
        paths["validation"] = regular_file(Path(validation))
    columns = _columns(paths["train"])
    tables, notes = {}, []
    for split, file in paths.items():
        tables[split], bad = _read_table(file, columns)
        if bad.count:
            notes.append(_report(file, bad, len(tables[split][0]), bad_rows))
    class_names = np.unique(np.concatenate([labels for labels, _pixels in tables.values()]))
    shape = picture_shape(columns - 1)
    return Source(
        name="csv",
        images={split: pixels.reshape(-1, *shape) for split, (_labels, pixels) in tables.items()},
        labels={split: np.searchsorted(class_names, labels) for split, (labels, _pixels) in tables.items()},
        class_names=[str(label) for label in class_names],
        source="CSV: " + ", ".join(file.name for file in paths.values()),
        licence="as the files' owner says",
        checksums={file.name: checksum(file, "sha256") for file in paths.values()},
        notes=notes,
    )


def picture_shape(pixels: int) -> tuple[int, int, int] | None:
    """Return (height, width, channels) of a square picture of so many values, grey or colour; None when there is none."""
    for channels in (1, 3):
        side = isqrt(pixels // channels)
        if side and side * side * channels == pixels:
            return side, side, channels
    return None


def _find(path: Path) -> dict[str, Path]:
    with told(path):
        if not path.is_dir():
            return {"train": regular_file(path)}
        every = sorted(path.glob("*.csv"))
    found = {}
    for split, patterns in NAMES.items():
        matches = [file for pattern in patterns for file in every if file.match(pattern)]
        if matches:
            found[split] = regular_file(matches[0])
    if not found and len(every) == 1:
        found["train"] = regular_file(every[0])
    if "train" not in found:
        raise EnsyncError(f"{path} has no train.csv", "train.csv (and test.csv), or one .csv file", "name the file itself with --from")
    return found


def _columns(path: Path) -> int:
    """Return the number of columns that most of the first lines have, when a label and a picture fit into it."""
    _start, lines = next(_pieces(path), (1, []))
    counts = [line.count(b",") + 1 for line in lines[:100] if line.strip()]
    if not counts:
        raise EnsyncError(f"{path} is empty", "lines of a label and pixels, with commas between", "give another file with --from")
    columns = max(counts, key=counts.count)
    if columns < 2 or picture_shape(columns - 1) is None:
        raise EnsyncError(
            f"{path} has {columns} columns",
            "a label and N*N or N*N*3 pixels, such as 785 columns, with commas between",
            "give a file with the label in the first column",
        )
    return columns


def _read_table(path: Path, columns: int) -> tuple[tuple[np.ndarray, np.ndarray], _Bad]:
    """Return the good rows as labels int64 (rows,) and pixels uint8 (rows, columns - 1), and what is bad about the others."""
    bad, labels, pixels = _Bad(), [], []
    for start, lines in _pieces(path):
        if start == 1 and _is_header(path, lines[0]):
            lines[0] = b""
        numbered = [(number, line) for number, line in enumerate(lines, start) if line.strip()]
        if numbered:
            table = _parse(numbered, columns, bad)
            labels.append(table[:, 0].astype(np.int64))
            pixels.append(table[:, 1:].astype(np.uint8))
    if not any(map(len, labels)):
        why = first_few(bad.first, bad.count) or "it is empty"
        raise EnsyncError(f"{path} has no usable row: {why}", f"rows of {columns} whole numbers", "correct the file")
    return (np.concatenate(labels), np.concatenate(pixels)), bad


def _pieces(path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (number of the first line, lines) for about PIECE bytes at a time."""
    number, rest = 1, b""
    with told(path), path.open("rb") as file:
        while data := file.read(PIECE):
            head, newline, tail = data.rpartition(b"\n")
            if newline:
                lines = (rest + head + newline).splitlines()
                lines[0] = lines[0].removeprefix(MARK) if number == 1 else lines[0]
                yield number, lines
                number, rest = number + len(lines), tail
            else:
                rest += tail
            if len(rest) > LONGEST_LINE:
                raise EnsyncError(f"{path}: line {number} is longer than {LONGEST_LINE} bytes", "a text file of lines", "check the file")
        if rest:
            yield number, rest.removeprefix(MARK if number == 1 else b"").splitlines() or [b""]


def _is_header(path: Path, line: bytes) -> bool:
    """Tell whether the first line names columns: no number among them, or "label" first. Errors: EnsyncError when it says that the label is not the first."""
    names = [name.strip(b" \"'").lower() for name in line.split(b",")]
    if names[0] not in LABEL_NAMES and any(_number(name) is not None for name in names):
        return False
    for place, name in enumerate(names[1:], 2):
        if name in LABEL_NAMES:
            raise EnsyncError(f"{path} has its label in column {place}", "the label in the first column", "move that column to the front")
    return True


def _parse(numbered: list[tuple[int, bytes]], columns: int, bad: _Bad) -> np.ndarray:
    """Return the good rows float32 (rows, columns) of these lines; the bad ones go to `bad`."""
    lines = [line for _number, line in numbered]
    table = _load(lines, columns)
    if table is None:  # some line is not numbers or too long or short: find out which, one by one
        rows = [_load([line], columns) for line in lines]
        table = np.concatenate([np.full((1, columns), np.nan, np.float32) if row is None else row for row in rows])
    limits = np.full(columns, 255, np.float32)
    limits[0] = LARGEST_LABEL
    good = ((table >= 0) & (table <= limits) & (table == np.floor(table))).all(axis=1)
    for place in np.flatnonzero(~good):
        bad.add(numbered[place][0], _why(lines[place], columns, limits))
    return table[good]


def _load(lines: list[bytes], columns: int) -> np.ndarray | None:
    """Return float32 (lines, columns), or None when a line is not that many numbers."""
    try:
        table = np.loadtxt(lines, np.float32, delimiter=",", comments=None, ndmin=2, encoding="latin-1")
    except ValueError:
        return None
    return table if table.shape == (len(lines), columns) else None


def _why(line: bytes, columns: int, limits: np.ndarray) -> str:
    """Return what is wrong with a bad row."""
    fields = line.split(b",")
    if len(fields) != columns:
        return f"has {len(fields)} values instead of {columns}"
    for place, text in enumerate(fields, 1):
        value, shown = _number(text), ascii(text[:20].decode("latin-1"))
        if not text.strip():
            return f"lacks value {place}"
        if value is None:
            return f"has {shown} as value {place}, which is not a number"
        if not (0 <= value <= limits[place - 1] and value == int(value)):
            return f"has {shown} as value {place}, which is not a whole number from 0 to {int(limits[place - 1])}"
    return "is not a row of numbers"


def _number(text: bytes) -> float | None:
    """Return the finite number that `text` is, if any; "nan" and "inf" are not."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _report(path: Path, bad: _Bad, good: int, bad_rows: str) -> str:
    """Return the note about skipped rows. Errors: EnsyncError when they are to be refused."""
    what = f"{bad.count} of {bad.count + good} rows of {path.name}"
    details = first_few(bad.first, bad.count)
    if bad_rows == "skip":
        return f"{what} left out: {details}"
    raise EnsyncError(f"{what} are bad: {details}", "rows of whole numbers", "correct them, or leave them out with --bad-rows skip")
