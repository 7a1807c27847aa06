"""`ensync.Dataset`: a dataset file as arrays, and arrays as a dataset file."""

import html
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias, TypedDict, TypeGuard, Unpack

import numpy as np
from numpy.typing import ArrayLike

from ensync.core.errors import EnsyncError, nearest
from ensync.storage.dataset import open_dataset
from ensync.storage.sources.arrays import Named, Origin, Part, part_of, source_of_parts
from ensync.storage.sources.batches import part_of_batches
from ensync.storage.sources.depth import Values
from ensync.storage.writing import LARGEST_PART, TEST_PART, check_target, write_dataset

PathLike: TypeAlias = str | os.PathLike[str]
Batches: TypeAlias = Iterable[tuple[Any, Any]]
Share: TypeAlias = float | tuple[ArrayLike, ArrayLike] | Batches | None
LONGEST = 80  # characters of an option that a refusal shows
ORIGIN = Origin(
    "the arrays given", "arrays", "arrays of a Python program", range_option="values=({}, {})"
)


class WriteOptions(TypedDict, total=False):
    """What `Dataset.write` takes by keyword; its docstring explains each."""

    validation: Share
    test: Share
    class_names: Sequence[str] | None
    seed: int | None
    values: tuple[float, float] | None


class Dataset:
    """A prepared dataset file, open for reading.

    path, name, class_names; shape (height, width, channels) of an image; sizes {split: rows} of the
    splits "train", "validation" and "test"; fingerprint, by which a run knows its dataset.

    Errors: EnsyncError for a file that is no dataset.

    >>> import ensync, numpy as np
    >>> images, labels = np.full((60, 8, 8), 255, np.uint8), np.arange(60) % 3
    >>> dataset = ensync.Dataset.write("data/blank.h5", images, labels)
    >>> dataset.shape, dataset.sizes
    ((8, 8, 1), {'train': 43, 'validation': 5, 'test': 12})
    """

    def __init__(self, path: PathLike) -> None:
        self._file = open_dataset(path)
        self.path, self.name = self._file.path, self._file.name
        self.class_names = list(self._file.class_names)
        self.shape, self.sizes = self._file.shape, dict(self._file.sizes)
        self.fingerprint = self._file.fingerprint

    def images(self, split: str = "train") -> np.ndarray:
        """Return the images of a split, uint8 (rows, height, width, channels), read from the file.

        Errors: EnsyncError for a name that is no split.

        >>> ensync.Dataset("data/digits.h5").images("test").shape
        (359, 8, 8, 1)
        """
        out = np.empty((len(self.labels(split)), *self.shape), np.uint8)
        self._file.read_into(split, 0, len(out), out)
        return out

    def labels(self, split: str = "train") -> np.ndarray:
        """Return the labels of a split, int64 (rows,); class_names[label] is the class's name.

        Errors: EnsyncError for a name that is no split.

        >>> ensync.Dataset("data/digits.h5").labels("test")[:4]
        array([0, 1, 7, 9])
        """
        return self._file.labels(split)

    def describe(self) -> str:
        """Return what the file holds, as `ensync data describe` prints it.

        >>> print(ensync.Dataset("data/digits.h5").describe().splitlines()[0])
        data/digits.h5: digits
        """
        return self._file.describe()

    @classmethod
    def write(
        cls,
        path: PathLike,
        images: ArrayLike | Batches,
        labels: ArrayLike | None = None,
        **options: Unpack[WriteOptions],
    ) -> Self:
        """Write arrays as a dataset file, which replaces a dataset at `path`, and open it.

        images: of the training, (rows, height, width), the same with 1 or 3 channels last or first,
        or (rows, N*N); integers 0 to 255, or other numbers with `values`. labels: (rows,) whole
        numbers or words, or one-hot (rows, classes). Without labels, images are an iterable of
        batches (images, labels), or of single pairs (image, label): a generator, or a dataset of
        another library. It is gone through once, and the images wait beside `path`, not in memory.
        validation, test: a pair (images, labels) of arrays, a list or another iterable of batches,
        or the share of the training images to cut off, stratified [default: 0.1, 0.2].
        class_names: of the labels 0, 1, ..., or the words in the order of their labels [default:
        the labels found, in ascending order]. seed: of the cuts [default: 1]. values: (black,
        white) of the images. The file is that of `ensync data prepare npz` for the same arrays.

        Errors: EnsyncError for arrays that do not belong together, and for a file that cannot be
        written; what is at `path` stays then.

        >>> images, labels = np.full((40, 6, 6, 3), 255, np.uint8), ["cat", "dog"] * 20
        >>> pets = ensync.Dataset.write("data/pets.h5", images, labels, validation=0, test=0.25)
        >>> pets.class_names, pets.sizes
        (['cat', 'dog'], {'train': 30, 'validation': 0, 'test': 10})
        >>> batches = ((images[n : n + 10], labels[n : n + 10]) for n in range(0, 40, 10))
        >>> ensync.Dataset.write("data/same.h5", batches).sizes
        {'train': 29, 'validation': 3, 'test': 8}
        """
        _check_options(options)
        if labels is None and not _are_batches(images):
            what = f"images of type {type(images).__name__} without labels"
            raise EnsyncError(what, "labels, or batches (images, labels)", "give the labels, too")
        target, seed = Path(path), options.get("seed")
        check_target(target)
        validation, test = options.get("validation"), options.get("test")
        train = images if labels is None else (images, labels)
        given = {"train": train, "validation": validation, "test": test}
        shares = {split: share for split, share in given.items() if _is_share(share)}
        splits = {split: _named(split) for split in given if split not in shares}
        values = options.get("values")
        parts = {
            split: _part(named, given[split], values, target) for split, named in splits.items()
        }
        names = options.get("class_names")
        source = source_of_parts(ORIGIN, splits, parts, values, names)
        share = shares.get("test")
        write_dataset(
            target,
            source,
            shares.get("validation"),
            1 if seed is None else int(seed),
            test=TEST_PART if share is None else share,
        )
        return cls(target)

    def close(self) -> None:
        """Close the file; reading again is an error. `with` does it, and the garbage collector.

        >>> with ensync.Dataset("data/digits.h5") as dataset:
        ...     dataset.name
        'digits'
        """
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        sizes = ", ".join(f"{rows:,} {split}" for split, rows in self.sizes.items())
        return (
            f"<Dataset '{self.name}' at {self.path}: {' x '.join(map(str, self.shape))}, "
            f"{len(self.class_names)} classes, {sizes} images>"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what the file holds."""
        return f"<pre>{html.escape(self.describe())}</pre>"


def _named(split: str) -> Named:
    """Return what the arrays of a split are called in a refusal."""
    before = "" if split == "train" else f"{split} "
    return Named(f"{before}images", f"{before}labels")


def _part(named: Named, given: Any, values: Values | None, target: Path) -> Part:
    """Return a split of a pair of arrays, or of an iterable of batches."""
    if not _is_pair(given):
        return part_of_batches(ORIGIN, named, given, values, target.parent)
    arrays = {name: _array(name, array) for name, array in zip((named.images, named.labels), given)}
    return part_of(ORIGIN, named, arrays.__getitem__, values)


def _array(name: str, values: ArrayLike) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise EnsyncError(
            f"{ORIGIN}: {name} cannot be made an array ({error})",
            "rows of one shape",
            "give an array of NumPy",
        ) from error


def _check_options(options: Mapping[str, object]) -> None:
    """Raise EnsyncError unless each option is known, and of a form that it can have."""
    for name, value in options.items():
        shown = " ".join(f"{name}={value!r}"[:LONGEST].split())
        if name not in FORMS:
            known = nearest(name, FORMS)
            raise EnsyncError(f"{shown}{known}", "one of " + ", ".join(FORMS), "leave it out")
        fits, words = FORMS[name]
        if value is not None and not fits(value):
            raise EnsyncError(shown, words, "give it so, or leave it out")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _is_share(value: object) -> TypeGuard[float | None]:
    return value is None or _is_number(value)


def _is_split(value: Any) -> bool:
    if _is_number(value):
        return bool(0 <= value <= LARGEST_PART)
    return _is_pair(value) or (_are_batches(value) and not isinstance(value, tuple))


def _are_batches(value: object) -> bool:
    listed = hasattr(value, "__iter__") or hasattr(value, "__getitem__")
    return listed and not isinstance(value, str | bytes | dict | np.ndarray)


def _are_values(value: Any) -> bool:
    return _is_pair(value) and all(map(_is_number, value)) and bool(value[0] != value[1])


def _are_names(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and all(isinstance(name, str) and name.isprintable() and name for name in value)
        and len(set(value)) == len(value) > 1
    )


def _is_seed(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 0


_SPLIT = f"a share from 0 to {LARGEST_PART}, a pair (images, labels), or batches of such"
FORMS: dict[str, tuple[Callable[[object], bool], str]] = {  # whether a value fits, what would
    "validation": (_is_split, _SPLIT),
    "test": (_is_split, _SPLIT),
    "class_names": (_are_names, "a list of two names or more, each another"),
    "seed": (_is_seed, "a whole number of at least 0"),
    "values": (_are_values, "a pair (black, white) of different numbers"),
}
