"""NumPy archives (.npz): images and labels as arrays, in the names and shapes that people use.

    x_train y_train x_test y_test                    Keras' mnist.npz and their likes
    train_images train_labels, val_..., test_...     MedMNIST and their likes
    X y, or images labels                            one split
Images are (rows, height, width), (rows, height, width, 1 or 3), (rows, 1 or 3, height, width), or
(rows, N*N). Labels are numbers or words (rows,) or (rows, 1), or one-hot (rows, classes).
Nothing is ever unpickled: an array of objects is refused.
Source of the format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import re
import warnings
import zipfile
from dataclasses import dataclass
from math import isqrt, prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ensync.core.errors import EnsyncError
from ensync.storage.sources.depth import Values
from ensync.storage.sources.names import shown
from ensync.storage.sources.source import (
    Source,
    checksum,
    first_few,
    identities,
    named_errors,
    regular_file,
)

SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
CONTENTS = {
    "images": ("x", "image", "images", "data"),
    "labels": ("y", "label", "labels", "target", "targets"),
}
EXPECTED = "x_train and y_train, train_images and train_labels, X and y, or images and labels"
DEFLATE_RATIO = 1032  # deflate cannot compress better, so an array that promises more is damaged
DARK = 64  # a quarter of white: images without a brighter value are hardly of 0 to 255
LARGEST_LABEL = 10**9
BLOCK = 4096  # rows converted at a time


@dataclass(frozen=True)
class _Found:
    """The names of a split's two arrays."""

    images: str
    labels: str


def read_npz(path: str | Path, values: Values | None = None) -> Source:
    """Return the dataset of `path`: an archive, or a directory that holds just one.

    values: (black, white) of the images; without it they must be whole numbers 0 to 255. Errors:
    EnsyncError naming the array that is missing, damaged or doubtful, and those that were found.
    """
    path = _find(Path(path))
    try:
        with named_errors(path), zipfile.ZipFile(path) as archive:
            return _read(path, archive, values)
    except EnsyncError:
        raise
    # zipfile and the header's parser raise what they stumble on
    except Exception as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise _refusal(path, f"is cut short or damaged ({why})") from error


def _find(path: Path) -> Path:
    with named_errors(path):
        if not path.is_dir():
            return regular_file(path)
        found = sorted(file for file in path.iterdir() if file.suffix.lower() == ".npz")
    if len(found) == 1:
        return regular_file(found[0])
    has = f"{len(found)} .npz files ({first_few([shown(f.name) for f in found], len(found))})"
    raise EnsyncError(
        f"{path} has {has if found else 'no .npz file'}",
        "one .npz file",
        "name the file itself with --from",
    )


def _read(path: Path, archive: zipfile.ZipFile, values: Values | None) -> Source:
    names = [i.filename.removesuffix(".npy") for i in archive.infolist()]
    splits = _splits(path, names)
    used = {name for found in splits.values() for name in (found.images, found.labels)}
    others = [shown(name) for name in names if name not in used]
    notes = [f"{len(others)} other arrays left out: {first_few(others, len(others))}"] * bool(
        others
    )
    images = {}
    for split, found in splits.items():
        array = _array(path, archive, found.images)
        images[split] = _pixels(path, found.images, _pictures(path, found.images, array), values)
        notes += _changes(found.images, array, values)
    labels = {
        s: _labels(path, f.labels, _array(path, archive, f.labels)) for s, f in splits.items()
    }
    _check(path, splits, images, labels)
    classes = np.unique(np.concatenate(list(labels.values())))
    return Source(
        name="npz",
        images=images,
        labels={split: np.searchsorted(classes, array) for split, array in labels.items()},
        class_names=[str(name) for name in classes],
        source=f"NumPy archive: {shown(path.name)}",
        licence="as the file's owner says",
        checksums={shown(path.name): checksum(path, "sha256")},
        notes=notes,
        preparation={
            "colour": "grey" if images["train"].shape[3] == 1 else "RGB",
            "pixels": f"{values[0]:.17g} to {values[1]:.17g}" if values else "0..255 as they are",
        },
        identities={split: identities(array) for split, array in images.items()},
    )


def _splits(path: Path, names: list[str]) -> dict[str, _Found]:
    """Return the arrays of each split by their names. Errors: EnsyncError in doubt."""
    found: dict[tuple[str, str], str] = {}
    has = f"{path} has the arrays {first_few([shown(n) for n in names], len(names)) or 'none'}"
    for name in names:
        key = _meaning(name)
        if key is None:
            continue
        if key in found:
            given = f"{has}; {shown(found[key])} and {shown(name)} are both {key[0]} {key[1]}"
            raise EnsyncError(given, "one of them", "save the archive again without the other")
        found[key] = name
    splits = [s for s in SPLITS if s == "train" or {(s, "images"), (s, "labels")} & found.keys()]
    for key in [(split, content) for split in splits for content in CONTENTS]:
        if key not in found:
            raise EnsyncError(
                f"{has}, of which none is named as {key[0]} {key[1]}",
                EXPECTED,
                "save the arrays under such names with numpy.savez",
            )
    return {s: _Found(found[s, "images"], found[s, "labels"]) for s in splits}


def _meaning(name: str) -> tuple[str, str] | None:
    """Return (split, content) that a name such as x_train or images tells, None for another."""
    words = re.split(r"[_\-. ]", name.lower())
    contents = [c for c, known in CONTENTS.items() for word in words if word in known]
    splits = [s for s, known in SPLITS.items() for word in words if word in known]
    if len(contents) != 1 or len(words) != 1 + len(splits) or len(splits) > 1:
        return None
    return (splits or ["train"])[0], contents[0]


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return an array of the archive. Its size is checked before memory is taken for it."""
    members = {i.filename: i for i in archive.infolist()}
    member = members.get(f"{name}.npy") or members[name]
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _refusal(path, f"holds {name} in a compression that NumPy does not write")
    with archive.open(member) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about headers of Python 2
        header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, _fortran, dtype = header[npy.read_magic(file)](file)
        if dtype.hasobject:
            raise EnsyncError(
                f"{path} holds {name} as Python objects, which only unpickling could read",
                "an array of numbers or words",
                "save it again with a dtype such as uint8 or int64",
            )
        size = prod(shape) * dtype.itemsize
        if dtype.itemsize == 0 or size > min(member.file_size, DEFLATE_RATIO * path.stat().st_size):
            raise _refusal(path, f"declares {size:,} bytes for {name}, which it cannot hold")
    with archive.open(member) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array: np.ndarray = npy.read_array(file, allow_pickle=False)
        if file.read(1):  # also has zipfile compare the checksum
            raise _refusal(path, f"holds more for {name} than its header declares")
    return array


def _pictures(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """Return images (rows, height, width, 1 or 3) of any numeric type."""
    shape = array.shape
    if array.dtype.kind not in "uif" or not array.size:
        what = "no values" if not array.size else f"values of type {array.dtype}"
        raise EnsyncError(f"{path}: {name} has {what}", "numbers", "save other images")
    if array.ndim == 2 and isqrt(shape[1]) ** 2 == shape[1]:
        return array.reshape(shape[0], isqrt(shape[1]), -1, 1)
    if array.ndim == 3:
        return array[..., None]
    if array.ndim == 4 and shape[3] in (1, 3):
        return array
    if array.ndim == 4 and shape[1] in (1, 3):
        return array.transpose(0, 2, 3, 1)
    raise EnsyncError(
        f"{path}: {name} has the shape {_text(shape)}",
        "(rows, height, width), or the same with 1 or 3 channels last or first",
        "save it in such a shape",
    )


def _pixels(path: Path, name: str, array: np.ndarray, values: Values | None) -> np.ndarray:
    """Return images uint8, by a straight line from black and white where those are given."""
    least, most = float(array.min()), float(array.max())
    if not np.isfinite([least, most]).all():
        raise EnsyncError(
            f"{path}: {name} has values that are not finite", "finite ones", "correct the array"
        )
    if values is None:
        if array.dtype.kind == "f" or least < 0 or most > 255 or most < DARK:
            likely = 1 if most <= 1 else 255 if most <= 255 else 2 ** int(most).bit_length() - 1
            raise EnsyncError(
                f"{path}: {name} is {array.dtype} with values from {least:g} to {most:g}",
                "integers 0 to 255, or the values of black and white",
                f"say which with --range BLACK,WHITE, such as --range 0,{likely}",
            )
        return np.ascontiguousarray(array.astype(np.uint8))
    black, white = values
    out = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), BLOCK):
        rows = array[start : start + BLOCK].astype(np.float64).clip(black, white)
        out[start : start + BLOCK] = np.rint((rows - black) * (255 / (white - black)))
    return out


def _changes(name: str, array: np.ndarray, values: Values | None) -> list[str]:
    """Return notes about what a reader of the prepared file must know."""
    notes = []
    if array.ndim == 4 and array.shape[3] not in (1, 3):
        notes.append(f"{name} has its channels first, and is stored with them last")
    black, white = values or (-np.inf, np.inf)
    if outside := int(np.count_nonzero((array < black) | (array > white))):
        notes.append(f"{outside:,} values of {name} outside {black:g} to {white:g}, cut off")
    return notes


def _labels(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """Return the class of each row, int64 or words (rows,)."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    elif array.ndim == 2 and array.dtype.kind in "buif" and array.size:
        ones = array == 1
        wrong = np.flatnonzero(~((ones | (array == 0)).all(1) & (ones.sum(1) == 1)))
        if len(wrong):
            raise EnsyncError(
                f"{path}: row {wrong[0]} of {name} {_text(array.shape)} is not one-hot",
                "one class for each row",
                "save the number of each row's class",
            )
        array = array.argmax(1)
    if array.ndim != 1 or array.dtype.kind not in "buifUS" or not len(array):
        raise EnsyncError(
            f"{path}: {name} is {array.dtype} of the shape {_text(array.shape)}",
            "a number or a word for each row, or one-hot rows",
            "save the number of each row's class",
        )
    return _words(path, name, array) if array.dtype.kind in "US" else _numbers(path, name, array)


def _words(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    wrong = [word for word in np.unique(array) if not word or not word.isprintable()]
    if wrong:
        raise EnsyncError(
            f"{path}: {name} has the class name {str(wrong[0])[:40]!a}",
            "names that can be printed",
            "save other names",
        )
    return array


def _numbers(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    wrong = array[~(np.abs(array.astype(np.float64)) <= LARGEST_LABEL)]
    wrong = wrong if len(wrong) else array[array != np.rint(array)]
    if len(wrong):
        raise EnsyncError(
            f"{path}: {name} has the label {wrong[0]}",
            "whole numbers",
            "save the number of each row's class",
        )
    return array.astype(np.int64)


def _check(
    path: Path,
    splits: dict[str, _Found],
    images: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
) -> None:
    """Raise EnsyncError unless the arrays belong together."""
    train = splits["train"]
    for split, found in splits.items():
        if len(images[split]) != len(labels[split]):
            raise EnsyncError(
                f"{path}: {found.images} has {len(images[split])} rows and {found.labels} "
                f"{len(labels[split])}",
                "one label for each image",
                "save both of the same rows",
            )
        if images[split].shape[1:] != images["train"].shape[1:]:
            raise EnsyncError(
                f"{path}: {found.images} has images of {_size(images[split])} and {train.images} "
                f"of {_size(images['train'])}",
                "one shape",
                "save both alike",
            )
        if labels[split].dtype.kind != labels["train"].dtype.kind:
            raise EnsyncError(
                f"{path}: one of {found.labels} and {train.labels} holds words, the other numbers",
                "the same in both",
                "save both alike",
            )


def _text(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _size(images: np.ndarray) -> str:
    return " x ".join(map(str, images.shape[1:]))


def _refusal(path: Path, why: str) -> EnsyncError:
    return EnsyncError(
        f"{path} {why}", "an archive of numpy.savez", "fetch the file again, or save it again"
    )
