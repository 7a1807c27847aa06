"""Pictures in Parquet files as a source: encoded in a column, the labels in another.

    train-00000-of-00002.parquet  train-00001-of-00002.parquet  test-00000-of-00001.parquet
One file, a directory of them, or a pattern. Files are read some rows at a time: once to look at
every picture, and once more when the dataset file is written. columns.py says which columns.
Source of the format: https://parquet.apache.org/docs/file-format/
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.request import Progress
from ensync.storage.sources.checking import USUAL, Asked, Checked, PictureSet, source_of_pictures
from ensync.storage.sources.decoding import Decoded, Recipe
from ensync.storage.sources.names import shown
from ensync.storage.sources.source import Source, checksum, named_errors
from ensync.storage.sources.streams.archive import BUFFER, LARGEST_FILE
from ensync.storage.sources.streams.columns import Columns, columns_of
from ensync.storage.sources.streams.labels import NO_LABEL, Label, classes_of, read_label
from ensync.storage.sources.streams.pictures import (
    NOT_READ,
    Encoded,
    Found,
    Looks,
    StreamedPictures,
)
from ensync.storage.sources.streams.samples import FOUND_OUT, Choice
from ensync.storage.sources.streams.shards import (
    Shards,
    few_sums,
    find_shards,
    listing_of,
    names_of,
)
from ensync.storage.sources.tally import Tally
from ensync.storage.work import ALONE, Work

ENDINGS = (".parquet", ".pq")
ROWS = 64  # read at a time
NO_PICTURE = Decoded(problem="has no picture")
ONLY_PATH = Decoded(problem="names a file, and holds no picture")


def read_parquet(
    given: str | Path,
    asked: Asked = USUAL,
    choice: Choice = FOUND_OUT,
    work: Work = ALONE,
) -> Source:
    """Return the pictures in a Parquet file, a directory of them, or those that a pattern names.

    choice: the columns, where they are not to be found out. Errors: EnsyncError for damaged files,
    doubtful columns, and broken pictures unless they are skipped.
    """
    _check_installed()
    given = Path(given)
    shards = find_shards(given, ENDINGS)
    columns = _columns(shards, choice)
    work.partial.claim(listing_of(shards))
    tally, looks = Tally(), Looks()
    labels: dict[str, list[Label]] = {}
    names: dict[str, list[str]] = {}
    starts = {}
    for split, files in shards.items():
        labels[split], names[split] = [], []
        for file in files:
            starts[file] = len(looks)
            rows = _Rows(file, columns, len(looks))
            for _one in looks.look(rows.read(work.progress), asked.recipe, work):
                pass
            labels[split] += rows.labels
            names[split] += rows.names
    found = _found(str(given), columns, labels, names, (looks, asked.recipe, tally))
    sums = few_sums({name: checksum(f, "sha256") for f, name in names_of(starts).items()})

    def images_of(split: str, places: np.ndarray, how: Asked) -> StreamedPictures:
        stream = _stream_of([(file, starts[file]) for file in shards[split]], columns)
        row_of = found.row_of(split, places, len(looks))
        return StreamedPictures(stream, row_of, how, work.jobs)

    source = f"pictures in {shown(given.name)}"
    pictures = PictureSet(
        "parquet", str(given), source, sums, found.class_names, found.checked, found.notes
    )
    return source_of_pictures(pictures, asked, tally, images_of)


def _check_installed() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise EnsyncError(
            f"Parquet without the package pyarrow ({error})",
            "pyarrow, which Ensync uses for this alone",
            "install it with pip install 'ensync[parquet]', or pip install pyarrow",
        ) from error


def _columns(shards: Shards, choice: Choice) -> Columns:
    """Return the columns of the first file. Errors: EnsyncError unless all files have them."""
    first: Columns | None = None
    for file in [file for files in shards.values() for file in files]:
        with _opened(file) as table:
            found = columns_of(str(file), table.schema_arrow, choice)
        first = first or found
        if found != first:
            raise EnsyncError(
                f"{file} has other columns or class names than {next(iter(shards['train']))} "
                f"({found.note()})",
                "the same in all files",
                "choose them with --image-column and --label-column, or leave that file out",
            )
    if first is None:
        raise ValueError("no files")
    return first


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Open a file as pyarrow.parquet.ParquetFile; EnsyncError for one that is damaged."""
    from pyarrow.parquet import ParquetFile

    try:
        with named_errors(file):
            file.open("rb").close()
        # with a buffer, columns are read in pages, and not a whole row group at once
        with ParquetFile(file, buffer_size=BUFFER, page_checksum_verification=True) as table:
            yield table
    except EnsyncError:
        raise
    except Exception as error:  # of many types
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise EnsyncError(
            f"{file} is damaged, or no Parquet file ({why})",
            "a whole Parquet file",
            "fetch it again",
        ) from error


class _Rows:
    """The rows of a file: labels and names are there once its pictures are read."""

    def __init__(self, file: Path, columns: Columns, first: int) -> None:
        self.labels: list[Label] = []
        self.names: list[str] = []
        self._file, self._columns, self._first = file, columns, first

    def read(self, progress: Progress) -> Iterator[Encoded]:
        """Yield the pictures."""
        what = f"checking {self._file.name}"
        for (images, labels), total in _batches(self._file, self._columns, with_labels=True):
            for image, label in zip(images, labels, strict=True):
                row = len(self.labels)
                path = image.get("path") if isinstance(image, dict) else None
                self.labels.append(read_label(label) if isinstance(label, str) else label)
                name = f"row {row + 1} of {shown(self._file.name)}"
                self.names.append(f"{name} ({shown(path)})" if path else name)
                yield _encoded(self._first + row, image)
            progress(what, len(self.labels), total)


def _encoded(number: int, image: Any) -> Encoded:
    """Return a picture from a value of its column: bytes, or {"bytes": ..., "path": ...}."""
    if not isinstance(image, dict):
        data, problem = image, NO_PICTURE
    else:
        data, problem = image.get("bytes"), ONLY_PATH if image.get("path") else NO_PICTURE
    if data is not None and len(data) > LARGEST_FILE:
        data, problem = None, NOT_READ
    return Encoded(number, data, problem)


def _batches(
    file: Path, columns: Columns, with_labels: bool
) -> Iterator[tuple[list[list[Any]], int]]:
    """Yield (some rows, how many the file has): the pictures, and their labels where wanted."""
    wanted = [columns.image, columns.label] if with_labels else [columns.image]
    with _opened(file) as table:
        total = table.metadata.num_rows
        for batch in table.iter_batches(ROWS, columns=wanted):
            yield [batch.column(name).to_pylist() for name in wanted], total


def _stream_of(files: list[tuple[Path, int]], columns: Columns) -> Callable[[], Iterator[Encoded]]:
    """Return what reads the pictures of files, the first of each having this number."""

    def stream() -> Iterator[Encoded]:
        for file, number in files:
            for (images,), _total in _batches(file, columns, with_labels=False):
                for image in images:
                    yield _encoded(number, image)
                    number += 1

    return stream


def _found(
    place: str,
    columns: Columns,
    labels: dict[str, list[Label]],
    names: dict[str, list[str]],
    looked: tuple[Looks, Recipe, Tally],
) -> Found:
    """Return the pictures of each split, in the order of the files."""
    looks, how, tally = looked
    class_names, classes = classes_of(place, labels, columns.names)
    checked: dict[str, Checked] = {}
    numbers: dict[str, list[int]] = {}
    number = 0
    for split, of in labels.items():
        checked[split], numbers[split] = Checked(how, tally), []
        for name, label, number_of_class in zip(names[split], of, classes[split], strict=True):
            one, identity = looks[number]
            if not one.problem and label is None:
                one = Decoded(problem=NO_LABEL)
            checked[split].add(name, number_of_class, one, identity)
            numbers[split].append(number)
            number += 1
    return Found(class_names, checked, numbers, [columns.note()])
