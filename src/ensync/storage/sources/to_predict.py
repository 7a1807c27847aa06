"""Pictures to predict, made into images by the rules of the training."""

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.sources.decoding import Decoded, decode, recorded_recipe
from ensync.storage.sources.depth import check_depths
from ensync.storage.sources.folders import pictures_in
from ensync.storage.sources.names import shown
from ensync.storage.sources.picture_rows import in_parallel, note_picture, parts
from ensync.storage.sources.source import LISTED, first_few, named_errors
from ensync.storage.sources.tally import Tally


class PicturesRead(NamedTuple):
    """Images uint8 (n, height, width, channels), their n names, and notes for the user."""

    pixels: np.ndarray
    names: list[str]
    notes: list[str]


class Named(NamedTuple):
    """Picture files in the order in which they are named, and what was left out of directories."""

    files: list[Path]
    tally: Tally


class Sorted(NamedTuple):
    """Pictures that can be decoded, and the names of the others with what is wrong with each."""

    good: PicturesRead
    bad: list[tuple[str, str]]


def read_pictures(
    paths: Sequence[str | Path], shape: tuple[int, int, int], preparation: Mapping[str, object]
) -> PicturesRead:
    """Return pictures in a dataset's `shape`, made by the rules that its `preparation` records.

    paths: files, and directories, of which all pictures are taken.

    Errors: EnsyncError naming the first few files that cannot be decoded; then none is predicted.
    """
    named = find_pictures(paths)
    decoded = [
        one
        for _start, part in parts(named.files)
        for one in decode_pictures(part, shape, preparation)
    ]
    return sort_out(named, decoded, preparation).good


def decode_pictures(
    files: Sequence[Path], shape: tuple[int, int, int], preparation: Mapping[str, object]
) -> list[Decoded]:
    """Return what becomes of each picture, in threads."""
    how = recorded_recipe(preparation)
    return in_parallel(lambda path: decode(path, shape, how), list(files))


def sort_out(
    named: Named,
    decoded: Sequence[Decoded],
    preparation: Mapping[str, object],
    without_bad: bool = False,
) -> Sorted:
    """Return the pictures that were decoded from the files that were named.

    without_bad: leave out those that cannot be decoded, but not all. Errors: EnsyncError naming
    the first few of these, and for values that differ from those of the training.
    """
    how, tally = recorded_recipe(preparation), named.tally
    pairs = [(str(path), one) for path, one in zip(named.files, decoded, strict=True)]
    bad = [(name, one.problem) for name, one in pairs if one.problem]
    if bad and not (without_bad and len(bad) < len(pairs)):
        details = first_few([f"{shown(name)} {why}" for name, why in bad[:LISTED]], len(bad))
        what = f"{len(bad)} of {len(pairs)} pictures are bad: {details}"
        raise EnsyncError(what, "pictures that can be decoded", "leave them out or replace them")
    good = [(name, one) for name, one in pairs if not one.problem]
    for name, one in good:
        note_picture(one, shown(name), how, tally)
    depths = [(shown(name), one.depth) for name, one in good if one.depth]
    check_depths(
        depths, how.tagged, how.deep, "convert them to 8 bits as the training pictures were"
    )
    pixels = np.stack([one.pixels for _, one in good if one.pixels is not None])
    return Sorted(PicturesRead(pixels, [name for name, _ in good], tally.notes()), bad)


def find_pictures(paths: Sequence[str | Path]) -> Named:
    """Return the files that are named, and the pictures in the directories that are. Errors:
    EnsyncError where there are none, or one cannot be looked at.
    """
    tally = Tally()
    return Named(_named(paths, tally), tally)


def _named(paths: Sequence[str | Path], tally: Tally) -> list[Path]:
    """Return the files that are named, and the pictures in the directories that are."""
    files: list[Path] = []
    for path in map(Path, paths):
        with named_errors(path):
            is_directory = stat.S_ISDIR(path.stat().st_mode)
        files += pictures_in(path, tally) if is_directory else [path]
    if not files:
        raise EnsyncError("no pictures", "files or directories of pictures", "name at least one")
    return files
