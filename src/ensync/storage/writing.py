"""Write a dataset file: check its source, cut the splits, fill the file, put it in its place."""

import filecmp
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensync import __version__
from ensync.core.errors import EnsyncError, reason
from ensync.storage.atomic import (
    clean_temporaries,
    naming_errors,
    put_in_place,
    temporary_beside,
)
from ensync.storage.copies import shared_rows
from ensync.storage.filling import fill
from ensync.storage.layout import SPLITS, Layout
from ensync.storage.left_out import name_left_out
from ensync.storage.partial import Partial
from ensync.storage.sources.source import Source, first_few
from ensync.storage.splitting import Part, cut, lacking
from ensync.storage.work import ALONE, Work

VALIDATION_PART, TEST_PART = 0.1, 0.2  # of the training images, where nothing else is asked for
LARGEST_PART = 0.9  # of the training images that may be cut away
SPARE = 1 << 20  # bytes of HDF5's own tables, more than it ever takes


@dataclass(frozen=True)
class Written:
    """A dataset file that is in place; `changed` is False when an identical one was there already.

    notes: for the user's eyes, and in the file (rows left out or in two splits, files that are not
    the published ones). before: the fingerprint of the dataset that was there, "" of a damaged one,
    None of none. names: the file that names all that is left out, where the notes do not.
    """

    path: Path
    fingerprint: str
    changed: bool
    notes: tuple[str, ...] = ()
    before: str | None = None
    names: Path | None = None


def write_dataset(
    path: str | os.PathLike[str],
    source: Source,
    validation: float | None = None,
    seed: int = 1,
    work: Work = ALONE,
    test: float = TEST_PART,
) -> Written:
    """Write `source` as one dataset file that replaces `path` at once; an identical file is left
    alone.

    validation, test: parts of the training images to cut, stratified, by `seed`, where the source
    has no such split. Errors: EnsyncError when the source is unfit, `path` holds something else, or
    the disk refuses; `path` is then as it was.
    """
    path = Path(path)
    if validation is not None and "validation" in source.images:
        raise EnsyncError(
            f"--validation {validation} with validation images of their own",
            "one of them",
            "leave --validation out",
        )
    validation = VALIDATION_PART if validation is None else validation
    _check(source, validation, test, seed)
    check_target(path)
    parts = cut(source, validation, test, seed)
    notes = [
        *source.notes,
        *shared_rows(source, {split: (part.origin, part.rows) for split, part in parts.items()}),
        *lacking(source, parts),
    ]
    plan = _plan(source, parts, _preparation(source, validation, test, seed), notes)
    _make_room(path, plan, work.partial.room())
    before = _fingerprint_at(path)
    with _place(path, plan, work.partial) as temporary:
        fingerprint = fill(temporary, source, parts, plan, work)
        changed = not (path.exists() and filecmp.cmp(temporary, path, shallow=False))
        if changed:
            put_in_place(temporary, path)
    return Written(
        path, fingerprint, changed, tuple(notes), before, name_left_out(path, source.left_out)
    )


@contextmanager
def _place(path: Path, plan: Layout, partial: Partial) -> Iterator[Path]:
    """Yield the file to write into: one that a later call can go on with, or a temporary."""
    said = plan.header() + json.dumps([plan.texts, plan.tables], sort_keys=True).encode()
    kept = partial.begin(said, sum(plan.sizes.values()))
    if kept is None:
        with temporary_beside(path) as temporary:
            yield temporary
        return
    with naming_errors(path):
        yield kept


def _fingerprint_at(path: Path) -> str | None:
    """Return the fingerprint of the dataset at `path`, "" of one that is damaged, None where
    there is none.
    """
    from ensync.storage.dataset import open_dataset

    if not path.exists():
        return None
    try:
        with open_dataset(path) as dataset:
            return dataset.fingerprint
    except EnsyncError:
        return ""


def _check(source: Source, validation: float, test: float, seed: int) -> None:
    for name, part in (("validation", validation), ("test", test)):
        if not 0 <= part <= LARGEST_PART:
            raise EnsyncError(
                f"--{name} {part}", f"a part from 0 to {LARGEST_PART}", "choose another"
            )
    if seed < 0:
        raise EnsyncError(f"--seed {seed}", "a whole number of at least 0", "choose another")
    if len(source.class_names) < 2 or len(np.unique(source.labels["train"])) < 2:
        raise EnsyncError(
            f"{source.name} has training images of one class only",
            "two classes or more",
            "add another class",
        )
    _check_classes(source)
    shapes = {images.shape[1:] for images in source.images.values()}
    if len(shapes) != 1:
        raise EnsyncError(
            f"{source.name} has training and test images of different shapes {shapes}",
            "one shape",
            "correct the files",
        )


def _check_classes(source: Source) -> None:
    """Raise EnsyncError when another split has images of a class that train lacks: no network
    could name them rightly.
    """
    known = np.unique(source.labels["train"])
    for split, labels in source.labels.items():
        alien, counts = np.unique(labels[~np.isin(labels, known)], return_counts=True)
        if len(alien):
            named = [
                f"'{source.class_names[label]}' ({count} image{'s' if count > 1 else ''})"
                for label, count in zip(alien, counts, strict=True)
            ]
            what = (
                f"the {split} images of {source.name} have {len(alien)} "
                f"class{'es' if len(alien) > 1 else ''} that the training images lack: "
            )
            raise EnsyncError(
                what + first_few(named, len(named)),
                "the classes of the training images",
                "add training images of them, or take them out",
            )


def _preparation(
    source: Source, validation: float, test: float, seed: int
) -> dict[str, float | int | str]:
    """Return how the images became what they are: where the splits come from, and the source's
    own rules.
    """
    splits = {
        "validation": "as given" if "validation" in source.images else validation,
        "test": "as published" if "test" in source.images else test,
    }
    return {
        "program": f"ensync {__version__}",
        "kind": source.name,
        **splits,
        "seed": seed,
        **source.preparation,
    }


def _plan(
    source: Source,
    parts: dict[str, Part],
    preparation: dict[str, float | int | str],
    notes: list[str],
) -> Layout:
    height, width, channels = map(int, source.images["train"].shape[1:])
    texts = {
        "creator": f"ensync {__version__}",
        "name": source.name,
        "source": source.source,
        "licence": source.licence,
    }
    tables = {"checksums": source.checksums, "notes": notes, "preparation": preparation}
    sizes = {split: len(parts[split].rows) for split in SPLITS}
    return Layout((height, width, channels), sizes, source.class_names, texts, tables)


def _make_room(path: Path, plan: Layout, there: int) -> None:
    """Clear what killed runs left beside `path`; raise EnsyncError when the file cannot fit (it
    may take hours to find out). there: the bytes of it that are on the disk.
    """
    needed = sum(plan.sizes.values()) * (int(np.prod(plan.shape)) + 8) + SPARE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clean_temporaries(path.parent)
        free = shutil.disk_usage(path.parent).free + there
    except OSError as error:
        raise EnsyncError(
            f"{path.parent} cannot be used because {reason(error)}",
            "a writable directory",
            "write to another path",
        ) from error
    if free < needed:
        raise EnsyncError(
            f"{path.parent} has {free / 1e6:.1f} MB free",
            f"{needed / 1e6:.1f} MB for {path.name}",
            "make room, or write it to another directory",
        )


def check_target(path: Path) -> None:
    """Raise EnsyncError when something else than a dataset, whole or damaged, is at `path`, or
    nothing can be.
    """
    from ensync.storage.dataset import foreign

    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise EnsyncError(
            f"{path} cannot be written because {reason(error)}",
            "a name and a directory that can be",
            "write to another path",
        ) from error
    if why := foreign(path):
        raise EnsyncError(
            f"{path} is there and is no dataset that could be replaced ({why})",
            "a free name",
            "remove it, or write to another path",
        )
