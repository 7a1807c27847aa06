"""Images and labels as arrays: brought to one form, or refused with the name of the array.

Images are (rows, height, width), (rows, height, width, 1 or 3), (rows, 1 or 3, height, width), or
(rows, N*N). Labels are numbers or words (rows,) or (rows, 1), or one-hot (rows, classes).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isqrt

import numpy as np

from ensync.core.errors import EnsyncError, plural
from ensync.storage.sources.depth import Values
from ensync.storage.sources.source import LISTED, Images, Source, identities

DARK = 64  # a quarter of white: images without a brighter value are hardly of 0 to 255
LARGEST_LABEL = 10**9
BLOCK = 4096  # rows converted at a time


@dataclass(frozen=True)
class Named:
    """The names of a split's two arrays."""

    images: str
    labels: str


@dataclass(frozen=True)
class Origin:
    """Where arrays come from: what a refusal begins with, and what the dataset file says of it.

    range_option: how the user gives the values of black and white.
    """

    text: str
    name: str
    source: str
    checksums: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    range_option: str = "--range {},{}"

    def __str__(self) -> str:
        return self.text

    def range_of(self, black: str, white: str) -> str:
        """Return how to say that these are the values of black and white."""
        return self.range_option.format(black, white)


@dataclass(frozen=True)
class Part:
    """The images of a split uint8 (rows, height, width, channels), their labels (rows,), int64 or
    words, what `identities` says of the images, and what a reader of the dataset must know.
    """

    images: Images
    labels: np.ndarray
    identities: np.ndarray
    notes: list[str] = field(default_factory=list)


def source_of_arrays(
    origin: Origin,
    splits: Mapping[str, Named],
    array_of: Callable[[str], np.ndarray],
    values: Values | None = None,
    class_names: Sequence[str] | None = None,
) -> Source:
    """Return the dataset of arrays, which `array_of` gives by their names, one at a time.

    values, class_names: as of `source_of_parts`. Errors: EnsyncError naming the array that is
    doubtful.
    """
    parts = {split: part_of(origin, named, array_of, values) for split, named in splits.items()}
    return source_of_parts(origin, splits, parts, values, class_names)


def part_of(
    origin: Origin, named: Named, array_of: Callable[[str], np.ndarray], values: Values | None
) -> Part:
    """Return a split of two arrays. Errors: EnsyncError."""
    array = array_of(named.images)
    images = pictures_of(origin, named.images, array)
    limits = limits_of(origin, named.images, images)
    check_values(origin, named.images, images.dtype, limits, values)
    pixels = pixels_of(images, values)
    count = outside(array, values)
    notes = [*order_note(named.images, array), *cut_note(named.images, count, values)]
    return Part(
        pixels, labels_of(origin, named.labels, array_of(named.labels)), identities(pixels), notes
    )


def source_of_parts(
    origin: Origin,
    splits: Mapping[str, Named],
    parts: Mapping[str, Part],
    values: Values | None = None,
    class_names: Sequence[str] | None = None,
) -> Source:
    """Return the dataset of its splits.

    values: (black, white) that the images had; without it they were whole numbers 0 to 255.
    class_names: of the labels 0, 1, ..., or the words in this order; without it the labels found,
    in ascending order. Errors: EnsyncError for splits that do not go together.
    """
    images = {split: part.images for split, part in parts.items()}
    labels = {split: part.labels for split, part in parts.items()}
    _check(origin, splits, images, labels)
    if class_names is None:
        classes = np.unique(np.concatenate(list(labels.values())))
        labels = {split: np.searchsorted(classes, array) for split, array in labels.items()}
        class_names = [str(name) for name in classes]
    else:
        labels = {s: _among(origin, splits[s].labels, a, class_names) for s, a in labels.items()}
    return Source(
        name=origin.name,
        images=images,
        labels=labels,
        class_names=list(class_names),
        source=origin.source,
        licence="as the file's owner says",
        checksums=origin.checksums,
        notes=[*origin.notes, *(note for part in parts.values() for note in part.notes)],
        preparation={
            "colour": "grey" if images["train"].shape[3] == 1 else "RGB",
            "pixels": f"{values[0]:.17g} to {values[1]:.17g}" if values else "0..255 as they are",
        },
        identities={split: part.identities for split, part in parts.items()},
    )


def pictures_of(origin: Origin, name: str, array: np.ndarray) -> np.ndarray:
    """Return images (rows, height, width, 1 or 3) of any numeric type."""
    shape = array.shape
    if array.dtype.kind not in "uif" or not array.size:
        what = "no values" if not array.size else f"values of type {array.dtype}"
        raise EnsyncError(f"{origin}: {name} has {what}", "numbers", "save other images")
    if array.ndim == 2 and isqrt(shape[1]) ** 2 == shape[1]:
        return array.reshape(shape[0], isqrt(shape[1]), -1, 1)
    if array.ndim == 3:
        return array[..., None]
    if array.ndim == 4 and shape[3] in (1, 3):
        return array
    if array.ndim == 4 and shape[1] in (1, 3):
        return array.transpose(0, 2, 3, 1)
    raise EnsyncError(
        f"{origin}: {name} has the shape {_text(shape)}",
        "(rows, height, width), or the same with 1 or 3 channels last or first",
        "save it in such a shape",
    )


Limits = tuple[float, float]  # the smallest and the largest value of images


def limits_of(origin: Origin, name: str, array: np.ndarray) -> Limits:
    """Return the limits of images. Errors: EnsyncError where some are not finite."""
    limits = float(array.min()), float(array.max())
    if not np.isfinite(limits).all():
        raise EnsyncError(
            f"{origin}: {name} has values that are not finite",
            "finite ones",
            "correct the array",
        )
    return limits


def check_values(
    origin: Origin, name: str, dtype: np.dtype, limits: Limits, values: Values | None
) -> None:
    """Raise EnsyncError for images of which it is not said what is black and white."""
    least, most = limits
    if values is None and (dtype.kind == "f" or least < 0 or most > 255 or most < DARK):
        likely = 1 if most <= 1 else 255 if most <= 255 else 2 ** int(most).bit_length() - 1
        raise EnsyncError(
            f"{origin}: {name} is {dtype} with values from {least:g} to {most:g}",
            "integers 0 to 255, or the values of black and white",
            f"say which with {origin.range_of('BLACK', 'WHITE')}, such as "
            f"{origin.range_of('0', str(likely))}",
        )


def pixels_of(array: np.ndarray, values: Values | None) -> np.ndarray:
    """Return images uint8, by a straight line from black and white where those are given."""
    if values is None:
        return np.ascontiguousarray(array.astype(np.uint8, copy=False))
    black, white = values
    out = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), BLOCK):
        rows = array[start : start + BLOCK].astype(np.float64).clip(black, white)
        out[start : start + BLOCK] = np.rint((rows - black) * (255 / (white - black)))
    return out


def order_note(name: str, array: np.ndarray) -> list[str]:
    """Return the note about channels that come first."""
    if array.ndim == 4 and array.shape[3] not in (1, 3):
        return [f"{name} has its channels first, and is stored with them last"]
    return []


def outside(array: np.ndarray, values: Values | None) -> int:
    """Return how many values lie outside those of black and white."""
    if values is None:
        return 0
    black, white = values
    return int(np.count_nonzero((array < black) | (array > white)))


def cut_note(name: str, count: int, values: Values | None) -> list[str]:
    """Return the note about values outside those of black and white, of which there are so many."""
    if values is None or not count:
        return []
    return [f"{count:,} values of {name} outside {values[0]:g} to {values[1]:g}, cut off"]


def labels_of(origin: Origin, name: str, array: np.ndarray) -> np.ndarray:
    """Return the class of each row, int64 or words (rows,)."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and array.dtype.kind in "buif" and array.size:
        ones = array == 1
        wrong = np.flatnonzero(~((ones | (array == 0)).all(1) & (ones.sum(1) == 1)))
        if len(wrong):
            raise EnsyncError(
                f"{origin}: row {wrong[0]} of {name} {_text(array.shape)} is not one-hot",
                "one class for each row",
                "save the number of each row's class",
            )
        array = array.argmax(1)
    if array.ndim != 1 or array.dtype.kind not in "buifUS" or not len(array):
        raise EnsyncError(
            f"{origin}: {name} is {array.dtype} of the shape {_text(array.shape)}",
            "a number or a word for each row, or one-hot rows",
            "save the number of each row's class",
        )
    return (
        _words(origin, name, array) if array.dtype.kind in "US" else _numbers(origin, name, array)
    )


def _words(origin: Origin, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    wrong = [word for word in np.unique(array) if not word or not word.isprintable()]
    if wrong:
        raise EnsyncError(
            f"{origin}: {name} has the class name {str(wrong[0])[:40]!a}",
            "names that can be printed",
            "save other names",
        )
    return array


def _numbers(origin: Origin, name: str, array: np.ndarray) -> np.ndarray:
    wrong = array[~(np.abs(array.astype(np.float64)) <= LARGEST_LABEL)]
    wrong = wrong if len(wrong) else array[array != np.rint(array)]
    if len(wrong):
        raise EnsyncError(
            f"{origin}: {name} has the label {wrong[0]}",
            "whole numbers",
            "save the number of each row's class",
        )
    return array.astype(np.int64)


def _among(origin: Origin, name: str, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return labels int64 (rows,) as numbers of the classes, which words name."""
    if labels.dtype.kind == "U":
        place = {word: number for number, word in enumerate(classes)}
        numbers = np.array([place.get(str(word), -1) for word in labels], np.int64)
    else:
        numbers = labels
    wrong = labels[(numbers < 0) | (numbers >= len(classes))]
    if len(wrong):
        known = ", ".join(map(repr, classes[:LISTED])) + ", ..." * (len(classes) > LISTED)
        raise EnsyncError(
            f"{origin}: {name} has the label {wrong[0].item()!r}, and there are "
            f"{len(classes)} class names ({known})",
            "a name for each label",
            "correct the labels, or give the other names, too",
        )
    return numbers


def _check(
    origin: Origin,
    splits: Mapping[str, Named],
    images: Mapping[str, Images],
    labels: Mapping[str, np.ndarray],
) -> None:
    """Raise EnsyncError unless the arrays belong together."""
    train = splits["train"]
    for split, found in splits.items():
        if images[split].shape[0] != len(labels[split]):
            raise EnsyncError(
                f"{origin}: {found.images} has {plural(images[split].shape[0], 'row')} and "
                f"{found.labels} {len(labels[split])}",
                "one label for each image",
                "save both of the same rows",
            )
        if images[split].shape[1:] != images["train"].shape[1:]:
            raise EnsyncError(
                f"{origin}: {found.images} has images of {_size(images[split])} and {train.images} "
                f"of {_size(images['train'])}",
                "one shape",
                "save both alike",
            )
        if labels[split].dtype.kind != labels["train"].dtype.kind:
            raise EnsyncError(
                f"{origin}: one of {found.labels} and {train.labels} holds words, the other "
                "numbers",
                "the same in both",
                "save both alike",
            )


def _text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _size(images: Images) -> str:
    return " x ".join(map(str, images.shape[1:]))
