"""CSV files: one image a line, its label and its pixels row by row (colour: red, green, blue of
each pixel together).

785 columns are a label and 28 x 28 pixels; any label + N*N or label + N*N*3 will do, other shapes
are named. Blank lines do not count.
"""

from pathlib import Path

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.sources.csv_layout import Columns, find_columns
from ensync.storage.sources.csv_look import TableOptions
from ensync.storage.sources.csv_rows import Bad, Rows, Scale, read_rows
from ensync.storage.sources.source import (
    Source,
    checksum,
    first_few,
    identities,
    named_errors,
    regular_file,
)

NAMES = {
    "train": ("train.csv", "*_train.csv", "*-train.csv"),
    "validation": (
        "val.csv",
        "valid.csv",
        "validation.csv",
        "*_val.csv",
        "*-val.csv",
        "*_validation.csv",
        "*-validation.csv",
    ),
    "test": ("test.csv", "*_test.csv", "*-test.csv"),
}


def read_csv(
    path: str | Path,
    bad_rows: str = "refuse",
    validation: str | Path | None = None,
    options: TableOptions | None = None,
) -> Source:
    """Return the images of `path`: one file, or a directory with train.csv and perhaps val.csv and
    test.csv (fashion-mnist_train.csv too).

    validation: a file with the validation images. options: what the user says of the columns; the
    rest is found out, and noted. bad_rows: "refuse" raises EnsyncError when a row is missing
    values, not numeric or out of range, naming the first few by line; "skip" leaves such rows out
    and notes it.
    """
    paths = _find(Path(path))
    if validation is not None:
        paths["validation"] = regular_file(Path(validation))
    columns = {"train": find_columns(paths["train"], options or TableOptions())}
    for split in paths.keys() - columns.keys():
        columns[split] = find_columns(paths[split], options or TableOptions(), columns["train"])
    scale = Scale()
    tables = _read(paths, columns, scale)
    notes = _notes(paths, columns, tables, scale) + _left_out(Path(path), paths)
    notes += [
        _report(paths[split], rows.bad, len(rows.labels), bad_rows)
        for split, rows in tables.items()
        if rows.bad.count
    ]
    names = np.unique(np.concatenate([rows.labels for rows in tables.values()]))
    return Source(
        name="csv",
        images={split: _pictures(rows.pixels, columns["train"]) for split, rows in tables.items()},
        labels={split: np.searchsorted(names, rows.labels) for split, rows in tables.items()},
        class_names=[str(name) for name in names],
        source="CSV: " + ", ".join(file.name for file in paths.values()),
        licence="as the files' owner says",
        checksums={file.name: checksum(file, "sha256") for file in paths.values()},
        notes=notes,
        preparation=_preparation(columns["train"], scale),
        identities={split: identities(rows.pixels) for split, rows in tables.items()},
    )


def _read(paths: dict[str, Path], columns: dict[str, Columns], scale: Scale) -> dict[str, Rows]:
    """Return the rows of each split, pixels 0..255 by one rule for all."""
    tables = {split: read_rows(file, columns[split], scale) for split, file in paths.items()}
    for rows in tables.values():
        if rows.undecided and scale.shares is not False:  # only 0 and 1: shares of 255 as well
            rows.pixels *= 255
    return tables


def _find(path: Path) -> dict[str, Path]:
    with named_errors(path):
        if not path.is_dir():
            return {"train": regular_file(path)}
        every = _tables(path)
    found = {}
    for split, patterns in NAMES.items():
        matches = [
            file for pattern in patterns for file in every if Path(file.name.lower()).match(pattern)
        ]
        if len(matches) > 1:
            listed = " and ".join(file.name for file in matches[:3])
            raise EnsyncError(
                f"{path} has {listed}, of which one can be {split}",
                "one file for each split",
                "name the file itself with --from",
            )
        if matches:
            found[split] = regular_file(matches[0])
    if not found and len(every) == 1:
        found["train"] = regular_file(every[0])
    if "train" not in found:
        raise EnsyncError(
            f"{path} has no train.csv",
            "train.csv (and test.csv), or one .csv file",
            "name the file itself with --from",
        )
    return found


def _preparation(columns: Columns, scale: Scale) -> dict[str, float | int | str]:
    """Return the rules by which the rows became pictures."""
    colour = (
        "grey"
        if columns.shape[2] == 1
        else "RGB, planes of one colour"
        if columns.planes
        else "RGB"
    )
    pixels = "0..255 as they are" if scale.shares is False else "0..1 times 255"
    return {"colour": colour, "pixels": pixels, "label": columns.called(columns.label)}


def _left_out(path: Path, paths: dict[str, Path]) -> list[str]:
    """Return the note about other tables in the directory."""
    others = (
        [file.name for file in _tables(path) if file not in paths.values()] if path.is_dir() else []
    )
    return (
        [f"{len(others)} other tables left out: {first_few(others, len(others))}"] if others else []
    )


def _tables(directory: Path) -> list[Path]:
    return sorted(file for file in directory.iterdir() if file.suffix.lower() == ".csv")


def _pictures(pixels: np.ndarray, columns: Columns) -> np.ndarray:
    """Return images uint8 (rows, height, width, channels)."""
    height, width, channels = columns.shape
    if columns.planes:
        return pixels.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return pixels.reshape(-1, height, width, channels)


def _notes(
    paths: dict[str, Path], columns: dict[str, Columns], tables: dict[str, Rows], scale: Scale
) -> list[str]:
    """Return how the tables are read: the first, and others that differ."""
    said = {split: columns[split].describe() for split in paths}
    notes = [
        f"{paths[split].name} is read with {said[split]}"
        for split in paths
        if split == "train" or said[split] != said["train"]
    ]
    least, most = _range(tables)
    notes[0] += (
        ", values 0 to 1 taken as shares of 255"
        if scale.shares is not False
        else f", values {least} to {most}"
    )
    return notes


def _range(tables: dict[str, Rows]) -> tuple[int, int]:
    return min(int(rows.pixels.min()) for rows in tables.values()), max(
        int(rows.pixels.max()) for rows in tables.values()
    )


def _report(path: Path, bad: Bad, good: int, bad_rows: str) -> str:
    """Return the note about skipped rows. Errors: EnsyncError when they are to be refused."""
    what = f"{bad.count} of {bad.count + good} rows of {path.name}"
    details = first_few(bad.first, bad.count)
    if bad_rows == "skip":
        return f"{what} left out: {details}"
    raise EnsyncError(
        f"{what} are bad: {details}",
        "rows of whole numbers",
        "correct them, or leave them out with --bad-rows skip",
    )
