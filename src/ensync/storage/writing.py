"""Write a dataset file: cut the splits, lay out the file, stream the images into it, seal it."""

import filecmp
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensync import __version__
from ensync.core.errors import EnsyncError, reason
from ensync.core.sharding import Purpose, generator
from ensync.storage import layout
from ensync.storage.atomic import (
    clean_temporaries,
    naming_errors,
    put_in_place,
    temporary_beside,
)
from ensync.storage.copies import shared_rows
from ensync.storage.digests import LENGTH, Digester
from ensync.storage.layout import FINGERPRINT, SPLITS, WHOLE, Layout
from ensync.storage.left_out import name_left_out
from ensync.storage.partial import Partial
from ensync.storage.scattering import ImagesInFile, scatter, write_at
from ensync.storage.sources.source import Ahead, Images, Source, Streamed, first_few
from ensync.storage.work import ALONE, Work

PIECE = 4 << 20  # bytes of images on their way at a time
VALIDATION_PART, TEST_PART = 0.1, 0.2  # of the training images, where nothing else is asked for
LARGEST_PART = 0.9  # of the training images that may be cut away
SPARE = 1 << 20  # bytes of HDF5's own tables, more than it ever takes
VALIDATION, TEST = 0, 1  # streams of random numbers


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


@dataclass(frozen=True)
class _Part:
    """A split of the file: which rows of which split of the source."""

    origin: str
    rows: np.ndarray


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
        *_lacking(source, parts),
    ]
    plan = _plan(source, parts, _preparation(source, validation, test, seed), notes)
    _make_room(path, plan, work.partial.room())
    before = _fingerprint_at(path)
    with _place(path, plan, work.partial) as temporary:
        fingerprint = _fill(temporary, source, parts, plan, work)
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


def cut(source: Source, validation: float, test: float, seed: int) -> dict[str, _Part]:
    """Return the rows of each split: those cut from train in a random order (of `seed`), those
    given in the order of the source.

    The random order is for sources sorted by class: blocks of neighbouring rows then hold all
    classes.
    """
    labels = source.labels["train"]
    rows = np.arange(len(labels))
    given = {
        split: _Part(split, np.arange(len(source.labels[split])))
        for split in ("validation", "test")
        if split in source.labels
    }
    tests = given.get("test")
    if tests is None:
        chosen = stratified(labels, test, generator(seed, Purpose.SPLIT, TEST))
        tests, rows = _Part("train", rows[chosen]), rows[~chosen]
    random = generator(seed, Purpose.SPLIT, VALIDATION)
    rows = random.permutation(rows)
    if "validation" in given:
        return {"train": _Part("train", rows), "validation": given["validation"], "test": tests}
    chosen = stratified(labels[rows], validation, random)
    return {
        "train": _Part("train", rows[~chosen]),
        "validation": _Part("train", rows[chosen]),
        "test": tests,
    }


def stratified(labels: np.ndarray, part: float, random: np.random.Generator) -> np.ndarray:
    """Return a mask bool (rows,) of round(part * rows) rows with the classes in proportion (largest
    remainders, ties by lot).

    At least one row of each class stays out of it; other classes then give more, and the rows are
    fewer only when none can.
    """
    mask = np.zeros(len(labels), bool)
    for label, count in enumerate(_taken(np.bincount(labels), part, random)):
        if count > 0:
            mask[random.permutation(np.flatnonzero(labels == label))[:count]] = True
    return mask


def _taken(counts: np.ndarray, part: float, random: np.random.Generator) -> np.ndarray:
    """Return how many rows int64 (classes,) a cut takes of each class, which has counts int64
    (classes,).
    """
    shares, room = counts * part, np.maximum(counts - 1, 0)
    taken: np.ndarray = np.minimum(np.floor(shares).astype(np.int64), room)
    lot = random.spawn(1)[0].permutation(
        len(counts)
    )  # a stream of its own: the rows chosen do not depend on it
    while (short := round(part * counts.sum()) - int(taken.sum())) > 0 and (taken < room).any():
        able = np.flatnonzero(taken < room)
        remainders = np.round(shares - taken, 9)[able]  # equal ones differ by rounding
        taken[able[np.lexsort((lot[able], -remainders))][:short]] += 1
    return taken


def _lacking(source: Source, parts: dict[str, _Part]) -> list[str]:
    """Return a note for each split cut from train, not empty, that has no image of some classes."""
    notes = []
    for split, part in ((split, part) for split, part in parts.items() if part.origin != split):
        counts = np.bincount(
            source.labels[part.origin][part.rows], minlength=len(source.class_names)
        )
        names = [f"'{source.class_names[label]}'" for label in np.flatnonzero(counts == 0)]
        if names and len(part.rows):
            images = f"{len(part.rows):,} {split} image{'s' * (len(part.rows) > 1)}"
            notes.append(
                f"the {images} have none of {len(names)} of {len(counts)} classes: "
                f"{first_few(names, len(names))}"
            )
    return notes


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
    parts: dict[str, _Part],
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


def _fill(
    temporary: Path, source: Source, parts: dict[str, _Part], plan: Layout, work: Work
) -> str:
    """Write the file, as far as an earlier call has not, and return its fingerprint."""
    partial = work.partial
    with temporary.open("r+b", buffering=0) as file:
        target = _Target(file.fileno(), plan)
        for origin, images in source.images.items():
            if isinstance(images, Streamed):
                rows = {split: part.rows for split, part in parts.items() if part.origin == origin}
                target.scatter(images, rows, work, f"those of {origin}")
        for split, part in parts.items():
            target.begin(split, source.labels[part.origin][part.rows])
            images, there, done = source.images[part.origin], partial.written(split), 0
            for piece, old in _pieces(images, part.rows, target.written(split), there):
                target.add_images(split, piece, old)
                done += len(piece)
                if not old:
                    partial.wrote(split, done)
                work.progress(f"writing {split} images", done, len(part.rows))
            target.end(split)
        return target.seal()


def _pieces(
    images: Images | Streamed, rows: np.ndarray, written: Images, there: int
) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield the images of `rows` in their order, about PIECE bytes at a time, and whether they are
    in the file already.

    written: the images in the file; there: how many of the first are in it, where they did not come
    in an order of their own.
    """
    count = len(rows) if isinstance(images, Streamed) else there
    for piece in _batches(written, np.arange(count)):
        yield piece, True
    if not isinstance(images, Streamed):
        for piece in _batches(images, rows[count:]):
            yield piece, False


class _Target:
    """The file while it is written, split after split: HDF5's tables first, the fingerprint
    last.
    """

    def __init__(self, descriptor: int, plan: Layout) -> None:
        blank = layout.blank(plan)
        self._descriptor = descriptor
        self._next = {
            name: offset or 0 for name, offset in blank.offsets.items()
        }  # where the next part of an array goes
        self._plan, self._digest = plan, hashlib.sha256(plan.header())
        self._digesters: dict[str, Digester] = {}
        self._labels = np.zeros(0, np.int64)
        self._counts = np.zeros(
            (plan.shape[2], 256), np.int64
        )  # of each pixel value in each channel of train
        if os.fstat(descriptor).st_size == blank.size:  # an earlier call has begun it
            return
        for offset, table in blank.tables.items():
            write_at(descriptor, offset, np.frombuffer(table, np.uint8))
        os.ftruncate(descriptor, blank.size)

    def begin(self, split: str, labels: np.ndarray) -> None:
        """Begin a split with these labels int64 (n,)."""
        self._labels, self._digesters[split] = labels.astype("<i8"), Digester(labels)

    def scatter(self, images: Streamed, rows: dict[str, np.ndarray], work: Work, part: str) -> None:
        """Write streamed images, of which the rows int64 of each split are these, from where an
        earlier call has stopped; part: what they are called in what it has left.
        """
        firsts = {split: self._next[f"images/{split}"] for split in rows}

        def tell(done: int, total: int) -> None:
            work.partial.wrote(part, done)
            work.progress("decoding pictures", done, total)

        homes = [(firsts[split], rows[split]) for split in rows]
        scatter(self._descriptor, images, homes, tell, work.partial.written(part))

    def written(self, split: str) -> ImagesInFile:
        """Return the images of a split that are in the file, before the first is added."""
        shape = (self._plan.sizes[split], *self._plan.shape)
        return ImagesInFile(self._descriptor, self._next[f"images/{split}"], shape)

    def add_images(self, split: str, images: np.ndarray, there: bool = False) -> None:
        """Write the next images uint8 (n, height, width, channels) of a split, unless they are
        there.
        """
        if split == "train":
            self._counts += [
                np.bincount(images[..., channel].ravel(), minlength=256)
                for channel in range(len(self._counts))
            ]
        self._digest.update(images)
        self._digesters[split].add(images)
        if there:
            self._next[f"images/{split}"] += images.nbytes
        else:
            self._put(f"images/{split}", images)

    def end(self, split: str) -> None:
        """Write the labels and digests of a split, after its images."""
        self._digest.update(self._labels)
        self._put(f"labels/{split}", self._labels)
        self._put(f"digests/{split}", self._found(split))

    def _found(self, split: str) -> np.ndarray:
        return np.frombuffer(b"".join(self._digesters[split].found), np.uint8).reshape(-1, LENGTH)

    def seal(self) -> str:
        """Write mean, std, fingerprint and the digest of the whole, and return the fingerprint."""
        mean, std = moments(self._counts)
        fingerprint = FINGERPRINT + self._digest.hexdigest()
        sealed = replace(
            self._plan,
            mean=mean.astype("<f4"),
            std=std.astype("<f4"),
            fingerprint=fingerprint,
            digests={s: self._found(s) for s in SPLITS},
        )
        self._put("mean", sealed.mean)
        self._put("std", sealed.std)
        self._put("fingerprint", np.frombuffer(fingerprint.encode(), np.uint8))
        self._put(WHOLE, np.frombuffer(sealed.whole_digest(), np.uint8))
        return fingerprint

    def _put(self, name: str, array: np.ndarray) -> None:
        write_at(self._descriptor, self._next[name], array)
        self._next[name] += array.nbytes


def _batches(images: Images, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the images of `rows` in their order, about PIECE bytes at a time."""
    step = max(1, PIECE // int(np.prod(images.shape[1:])))
    if isinstance(images, Ahead):
        yield from images.ahead(rows, step)
        return
    for start in range(0, len(rows), step):
        yield np.ascontiguousarray(images[rows[start : start + step]])


def moments(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation float64 (channels,) from how often each pixel value
    occurs, int64 (channels, 256).

    Exact, whatever the order. A channel that never changes gets 1, so that dividing by it leaves it
    as it is.
    """
    values = np.arange(256.0)
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean, np.where(variance > 0, np.sqrt(variance), 1.0)
