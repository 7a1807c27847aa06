"""Pictures to predict, made into images by the rules of the training."""

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.sources.decoding import decode, recorded_recipe
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


def read_pictures(
    paths: Sequence[str | Path], shape: tuple[int, int, int], preparation: Mapping[str, object]
) -> PicturesRead:
    """Return pictures in a dataset's `shape`, made by the rules that its `preparation` records.

    paths: files, and directories, of which all pictures are taken.

    Errors: EnsyncError naming the first few files that cannot be decoded; then none is predicted.
    """
    how, tally = recorded_recipe(preparation), Tally()
    files = _named(paths, tally)
    names = [str(path) for path in files]
    decoded = [
        one
        for _start, part in parts(files)
        for one in in_parallel(lambda path: decode(path, shape, how), part)
    ]
    problems = [
        f"{shown(name)} {one.problem}"
        for name, one in zip(names, decoded, strict=True)
        if one.problem
    ]
    if problems:
        details = first_few(problems[:LISTED], len(problems))
        what = f"{len(problems)} of {len(files)} pictures are bad: {details}"
        raise EnsyncError(what, "pictures that can be decoded", "leave them out or replace them")
    for name, one in zip(names, decoded, strict=True):
        note_picture(one, shown(name), how, tally)
    depths = [
        (shown(name), one.depth) for name, one in zip(names, decoded, strict=True) if one.depth
    ]
    check_depths(
        depths, how.tagged, how.deep, "convert them to 8 bits as the training pictures were"
    )
    return PicturesRead(
        np.stack([one.pixels for one in decoded if one.pixels is not None]), names, tally.notes()
    )


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
