"""NumPy archives (.npz): images and labels as arrays, in the names and shapes that people use.

    x_train y_train x_test y_test                    Keras' mnist.npz and their likes
    train_images train_labels, val_..., test_...     MedMNIST and their likes
    Xtrain Ytrain, trainX trainY, X_tr y_te          the same without a stroke, or shortened
    X y, or images labels                            one split
Images are (rows, height, width), (rows, height, width, 1 or 3), (rows, 1 or 3, height, width), or
(rows, N*N). Labels are numbers or words (rows,) or (rows, 1), or one-hot (rows, classes).
Nothing is ever unpickled: an array of objects is refused.
Source of the format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import re
import warnings
import zipfile
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ensync.core.errors import EnsyncError
from ensync.storage.sources.arrays import Named, Origin, source_of_arrays
from ensync.storage.sources.depth import Values
from ensync.storage.sources.names import shown
from ensync.storage.sources.source import (
    Source,
    checksum,
    first_few,
    named_errors,
    regular_file,
)

SPLITS = {
    "train": ("train", "training", "tr"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "te"),
}
CONTENTS = {
    "images": ("x", "image", "images", "img", "imgs", "data", "inputs", "pixels"),
    "labels": ("y", "label", "labels", "target", "targets", "class", "cls"),
}
EXPECTED = "x_train and y_train, train_images and train_labels, X and y, or images and labels"
DEFLATE_RATIO = 1032  # deflate cannot compress better, so an array that promises more is damaged


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
    origin = Origin(
        str(path),
        "npz",
        f"NumPy archive: {shown(path.name)}",
        {shown(path.name): checksum(path, "sha256")},
        notes,
    )
    return source_of_arrays(origin, splits, lambda name: _array(path, archive, name), values)


def _splits(path: Path, names: list[str]) -> dict[str, Named]:
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
    return {s: Named(found[s, "images"], found[s, "labels"]) for s in splits}


def _meaning(name: str) -> tuple[str, str] | None:
    """Return (split, content) that a name such as x_train or images tells, None for another."""
    words = [part for word in re.split(r"[_\-. ]", name.lower()) for part in _apart(word)]
    contents = [c for c, known in CONTENTS.items() for word in words if word in known]
    splits = [s for s, known in SPLITS.items() for word in words if word in known]
    if len(contents) != 1 or len(words) != 1 + len(splits) or len(splits) > 1:
        return None
    return (splits or ["train"])[0], contents[0]


def _apart(word: str) -> tuple[str, ...]:
    """Return the two words that xtrain or testimages is made of; the word itself for others."""
    contents, splits = (
        [one for known in table.values() for one in known] for table in (CONTENTS, SPLITS)
    )
    pairs = [pair for one in contents for two in splits for pair in ((one, two), (two, one))]
    return next((pair for pair in pairs if "".join(pair) == word), (word,))


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


def _refusal(path: Path, why: str) -> EnsyncError:
    return EnsyncError(
        f"{path} {why}", "an archive of numpy.savez", "fetch the file again, or save it again"
    )
