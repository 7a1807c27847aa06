"""IDX files, the format of MNIST and its likes: big-endian header, then one byte for each pixel or
label.

    images   0x00000803, count, rows, columns (uint32 each), count * rows * columns bytes
    labels   0x00000801, count,                              count bytes
Source of the format: http://yann.lecun.com/exdb/mnist/ (section "File formats").
"""

import gzip
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from ensync.core.errors import EnsyncError, plural
from ensync.storage.published import PUBLISHED, other_owner
from ensync.storage.sources.source import Source, checksum, named_errors, regular_file

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
LARGEST = 1 << 32  # bytes one file may hold once decompressed
GZIP_RATIO = 1032  # deflate cannot compress better, so a header that promises more is wrong
PIECE = 1 << 20  # bytes read at a time


def read_idx(directory: str | Path, name: str) -> Source:
    """Return the dataset `name` (mnist, fashion-mnist) from the four files in `directory`, as
    published or decompressed.

    Errors: EnsyncError naming the file that is missing, damaged, or another dataset's.
    """
    directory, published = Path(directory), PUBLISHED[name]
    paths = {split: [_find(directory, file) for file in pair] for split, pair in FILES.items()}
    sums = {path.name: checksum(path) for pair in paths.values() for path in pair}
    notes = [note for file, md5 in sums.items() if (note := _compare(name, directory / file, md5))]
    images = {split: _read_array(pair[0], 3)[..., None] for split, pair in paths.items()}
    labels = {split: _read_array(pair[1], 1) for split, pair in paths.items()}
    for split, (image_path, label_path) in paths.items():
        _check_pair(
            image_path, label_path, images[split], labels[split], len(published.class_names)
        )
    _check_same_size(paths, images)
    return Source(
        name=name,
        images=images,
        labels={split: array.astype(np.int64) for split, array in labels.items()},
        class_names=list(published.class_names),
        source=published.source,
        licence=published.licence,
        checksums=sums,
        notes=notes,
    )


def _find(directory: Path, name: str) -> Path:
    with named_errors(directory):
        present = {path.name for path in directory.iterdir()}
    for candidate in (f"{name}.gz", name):
        if candidate in present:
            return regular_file(directory / candidate)
    raise EnsyncError(
        f"{directory} has no {name}.gz",
        "the four published IDX files",
        "give their directory with --from, or fetch them with --download",
    )


def _compare(name: str, path: Path, md5: str) -> str | None:
    """Return a note when a compressed file is not the published one. Errors: EnsyncError when it
    belongs to another dataset.
    """
    digest = md5.removeprefix("md5:")
    owner = other_owner(name, path.name, digest)
    if owner:
        raise EnsyncError(
            f"{path} is the file of {owner}",
            f"the file of {PUBLISHED[name].title}",
            "check --from and the dataset's name",
        )
    if path.suffix == ".gz" and digest != PUBLISHED[name].files[path.name]:
        return f"{path.name} is not the published file: its MD5 is {digest}"
    return None


def _read_array(path: Path, dimensions: int) -> np.ndarray:
    """Return the array uint8 of an IDX file with `dimensions` dimensions."""
    compressed = path.suffix == ".gz"
    size = path.stat().st_size
    try:
        with named_errors(path), gzip.open(path) if compressed else path.open("rb") as file:
            shape = _read_shape(path, file, dimensions, size * GZIP_RATIO if compressed else size)
            return _read_exactly(path, file, shape)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _refusal(path, f"is cut short or damaged ({error})") from error


def _read_shape(path: Path, file: BufferedIOBase, dimensions: int, largest: int) -> tuple[int, ...]:
    (magic,) = struct.unpack(">I", _read(path, file, 4))
    if magic != 0x800 + dimensions:
        raise _refusal(path, f"starts with 0x{magic:08x}, not with 0x{0x800 + dimensions:08x}")
    shape = struct.unpack(f">{dimensions}I", _read(path, file, 4 * dimensions))
    count = 1
    for extent in shape:
        count *= extent  # whole numbers of Python: no overflow
    if count == 0 or count > min(largest, LARGEST):
        raise _refusal(path, f"declares {' x '.join(map(str, shape))} bytes, which it cannot hold")
    return shape


def _read_exactly(path: Path, file: BufferedIOBase, shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(shape, np.uint8)
    view = memoryview(array).cast("B")
    for start in range(0, len(view), PIECE):
        piece = view[start : start + PIECE]
        piece[:] = _read(path, file, len(piece))
    if file.read(1):
        raise _refusal(path, f"holds more than the {len(view)} bytes its header declares")
    return array


def _read(path: Path, file: BufferedIOBase, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise _refusal(path, "is cut short")
    return data


def _check_pair(
    image_path: Path, label_path: Path, images: np.ndarray, labels: np.ndarray, classes: int
) -> None:
    if len(images) != len(labels):
        raise EnsyncError(
            f"{image_path.name} holds {plural(len(images), 'image')} and {label_path.name} "
            f"{plural(len(labels), 'label')}",
            "one label for each image",
            "take both files from the same publication",
        )
    if labels.max() >= classes:
        row = int(np.argmax(labels >= classes))
        raise _refusal(
            label_path,
            f"gives image {row} the label {labels[row]}, and there are {classes} classes",
        )


def _check_same_size(paths: dict[str, list[Path]], images: dict[str, np.ndarray]) -> None:
    train, test = images["train"].shape[1:3], images["test"].shape[1:3]
    if train != test:
        raise _refusal(
            paths["test"][0],
            f"holds images of {test[0]} x {test[1]} pixels and the training file {train[0]} x "
            f"{train[1]}",
        )


def _refusal(path: Path, why: str) -> EnsyncError:
    return EnsyncError(
        f"{path} {why}",
        "an IDX file as published",
        "fetch the file again, or prepare with --download",
    )
