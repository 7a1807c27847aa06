"""The HDF5 file of a dataset: what stands where, made in `blank` and demanded in `read`.
data/README.md is the specification.

HDF5 makes and describes the file; the arrays themselves are written and read with plain system
calls at the addresses it gives (contiguous, uncompressed): shuffled rows come several times faster,
threads may read at once, and a full disk is reported when it happens.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ensync import __version__
from ensync.core.errors import EnsyncError
from ensync.storage import digests
from ensync.storage.sparse_file import PAGE, SparseFile

FORMAT, VERSION = "ensync-dataset", 1
SPLITS = ("train", "validation", "test")
LONGEST_TEXT = 60_000  # bytes of an attribute
LARGEST_SIDE = 65_536  # pixels
MOST_CLASSES = 65_536
TEXTS = ("creator", "name", "source", "licence")
TABLES = {"checksums": dict, "notes": list, "preparation": dict}  # attributes in JSON
FINGERPRINT = "sha256:"
WHOLE = "digests/whole"
FINGERPRINT_LENGTH = len(FINGERPRINT) + 64
LIBRARY = (
    "v110",
    "v110",
)  # the file format that carries checksums in its own tables and that tools since 2016 can read


@dataclass(frozen=True)
class Layout:
    """What a dataset file says of itself, and where its arrays are (bytes from the start of the
    file; None when empty).
    """

    shape: tuple[int, int, int]
    sizes: dict[str, int]
    class_names: list[str]
    texts: dict[str, str]
    tables: dict[str, Any]
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    std: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    fingerprint: str = ""
    offsets: dict[str, int | None] = field(default_factory=dict)
    digests: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # by split, uint8 (blocks, 32); none in files of before

    def header(self) -> bytes:
        """Return what the fingerprint covers before images and labels."""
        parts = {
            "format": FORMAT,
            "version": VERSION,
            "shape": self.shape,
            "sizes": self.sizes,
            "class_names": self.class_names,
        }
        return json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()

    def whole_digest(self) -> bytes:
        """Return the digest of everything but images and labels, of which it covers the digests."""
        found = hashlib.sha256(self.header())
        found.update(json.dumps([self.texts, self.tables], sort_keys=True).encode())
        found.update(
            self.mean.astype("<f4").tobytes()
            + self.std.astype("<f4").tobytes()
            + self.fingerprint.encode()
        )
        for split in SPLITS:
            found.update(np.ascontiguousarray(self.digests[split]))
        return found.digest()


@dataclass(frozen=True)
class Blank:
    """A file before its arrays are written: HDF5's own tables {address: bytes}, size
    in bytes, addresses of the arrays.
    """

    tables: dict[int, bytes]
    size: int
    offsets: dict[str, int | None]


def blank(layout: Layout) -> Blank:
    """Return the file that `layout` describes, with room for every array.

    It is made in memory, because HDF5 crashes on a full disk. Arrays begin at multiples of a page,
    which doubles the speed of reading.
    """
    plain = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plain.set_layout(h5py.h5d.CONTIGUOUS)
    plain.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plain.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    image = SparseFile()
    with h5py.File(
        image, "w", libver=LIBRARY, alignment_threshold=PAGE, alignment_interval=PAGE
    ) as file:
        file.attrs["version"] = np.int64(VERSION)
        for name, text in {
            "format": FORMAT,
            **layout.texts,
            **{key: json.dumps(value) for key, value in layout.tables.items()},
        }.items():
            file.attrs.create(
                name,
                np.bytes_(text.encode()),
                dtype=h5py.string_dtype("utf-8", max(1, len(text.encode()))),
            )
        names = [name.encode() for name in layout.class_names]
        file.create_dataset(
            "class_names", data=np.array(names, h5py.string_dtype("utf-8", max(map(len, names))))
        )
        shapes = _shapes(layout)
        datasets = {
            name: file.create_dataset(name, shape, dtype, dcpl=plain)
            for name, (shape, dtype) in shapes.items()
        }
        offsets = {name: dataset.id.get_offset() for name, dataset in datasets.items()}
    return Blank(
        {number * PAGE: bytes(page) for number, page in image.pages.items()}, image.size, offsets
    )


def _shapes(layout: Layout) -> dict[str, tuple[tuple[int, ...], str]]:
    channels = layout.shape[2]
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "mean": ((channels,), "<f4"),
        "std": ((channels,), "<f4"),
        "fingerprint": ((FINGERPRINT_LENGTH,), "u1"),
    }
    shapes[WHOLE] = (digests.LENGTH,), "u1"
    for split, rows in layout.sizes.items():
        shapes[f"digests/{split}"] = ((digests.blocks(rows), digests.LENGTH), "u1")
    for split, rows in layout.sizes.items():
        shapes[f"labels/{split}"] = ((rows,), "<i8")
    for split, rows in layout.sizes.items():
        shapes[f"images/{split}"] = ((rows, *layout.shape), "u1")
    return shapes


def read(path: Path, file: h5py.File, size: int) -> Layout:
    """Return what the open `file` of `size` bytes says of itself after checking all of it but the
    arrays' values.

    Nothing is read before its size is known to be small, and nothing outside this file is followed.
    Errors: EnsyncError; whatever h5py raises on a damaged file.
    """
    texts = {name: _text(path, file, name) for name in TEXTS}
    tables = {name: _table(path, file, name, kind) for name, kind in TABLES.items()}
    images = {split: _dataset(path, file, f"images/{split}", "u1", 4, size) for split in SPLITS}
    labels = {split: _dataset(path, file, f"labels/{split}", "<i8", 1, size) for split in SPLITS}
    shape, sizes = _check_shapes(path, images, labels)
    numbers = {name: _dataset(path, file, name, "<f4", 1, size) for name in ("mean", "std")}
    fingerprint = _dataset(path, file, "fingerprint", "u1", 1, size)
    if any(array.shape != (shape[2],) for array in numbers.values()) or fingerprint.shape != (
        FINGERPRINT_LENGTH,
    ):
        raise refusal(path, "has mean, std or fingerprint of the wrong length")
    mean, std = numbers["mean"][()], numbers["std"][()]
    if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
        raise refusal(path, "has a mean or std that is not a positive number")
    offsets = {f"images/{split}": images[split].id.get_offset() for split in SPLITS}
    offsets |= {f"labels/{split}": labels[split].id.get_offset() for split in SPLITS}
    stated = _fingerprint(path, fingerprint)
    found = Layout(
        shape,
        sizes,
        _class_names(path, file, size),
        texts,
        tables,
        mean,
        std,
        stated,
        offsets,
        _digests(path, file, sizes, size),
    )
    if found.digests and found.whole_digest() != file[WHOLE][()].tobytes():
        raise refusal(
            path,
            "is damaged: what it says of its images (class names, mean, std, preparation, ...) "
            "is not as it was written",
        )
    return found


def check_format(path: Path, file: h5py.File) -> None:
    """Raise EnsyncError unless `file` is a dataset of a version known here."""
    if "format" not in file.attrs or _text(path, file, "format") != FORMAT:
        raise refusal(path, "is an HDF5 file of another kind")
    version = file.attrs.get_id("version") if "version" in file.attrs else None
    if version is None or version.shape != () or version.dtype.kind not in "iu":
        raise refusal(path, "has no version")
    number = int(file.attrs["version"])
    if number != VERSION:
        raise refusal(
            path,
            f"has version {number} of the format, and this Ensync ({__version__}) reads version "
            f"{VERSION}",
        )


def refusal(path: Path, why: str) -> EnsyncError:
    """Return the error that refuses the file at `path`."""
    return EnsyncError(
        f"{path} {why}",
        "a dataset as specified in data/README.md",
        "make it again with 'ensync data prepare'",
    )


def _text(path: Path, file: h5py.File, name: str) -> str:
    """Return an attribute of fixed length, at most LONGEST_TEXT bytes of printable UTF-8."""
    if name not in file.attrs:
        raise refusal(path, f"lacks the attribute '{name}'")
    attribute = file.attrs.get_id(name)
    if (
        attribute.dtype.kind != "S"
        or attribute.shape != ()
        or attribute.dtype.itemsize > LONGEST_TEXT
    ):
        raise refusal(path, f"has an attribute '{name}' that is not a short text")
    text = bytes(file.attrs[name]).decode()
    if not text.isprintable():
        raise refusal(path, f"has an attribute '{name}' with characters that cannot be printed")
    return text


def _table(path: Path, file: h5py.File, name: str, kind: type) -> Any:
    value = json.loads(_text(path, file, name))
    entries = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value if isinstance(value, list) else ())
    )
    if not isinstance(value, kind) or not all(
        isinstance(entry, (str, int, float)) and str(key).isprintable() for key, entry in entries
    ):
        raise refusal(
            path,
            f"has an attribute '{name}' that is not a flat {'table' if kind is dict else 'list'}",
        )
    return value


def _dataset(
    path: Path, file: h5py.File, name: str, dtype: str, dimensions: int, size: int
) -> h5py.Dataset:
    """Return the dataset `name` when it lies, whole and plain, in this very file."""
    place: Any = file
    for part in name.split("/"):
        if not isinstance(place, h5py.Group) or not isinstance(
            place.get(part, getlink=True), h5py.HardLink
        ):
            raise refusal(path, f"lacks '{name}' or links it to another place or file")
        place = place[part]
    if (
        not isinstance(place, h5py.Dataset)
        or place.dtype != np.dtype(dtype)
        or len(place.shape or ()) != dimensions
    ):
        raise refusal(path, f"has no '{name}' of type {dtype} with {dimensions} dimensions")
    _check_storage(path, name, place, size)
    return place


def _check_storage(path: Path, name: str, dataset: h5py.Dataset, size: int) -> None:
    properties = dataset.id.get_create_plist()
    if (
        properties.get_layout() != h5py.h5d.CONTIGUOUS
        or properties.get_external_count()
        or properties.get_nfilters()
    ):
        raise refusal(path, f"stores '{name}' in pieces, compressed or in another file")
    nbytes = math.prod(dataset.shape) * dataset.dtype.itemsize
    offset = dataset.id.get_offset()
    if nbytes and (offset is None or offset + nbytes > size):
        raise refusal(
            path,
            f"declares '{name}' as {nbytes} bytes, which the file ({size} bytes) does not hold",
        )


def _check_shapes(
    path: Path, images: Mapping[str, h5py.Dataset], labels: Mapping[str, h5py.Dataset]
) -> tuple[tuple[int, int, int], dict[str, int]]:
    height, width, channels = shape = images["train"].shape[1:]
    sizes = {split: images[split].shape[0] for split in SPLITS}
    if not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE and channels in (1, 3)):
        raise refusal(path, f"has images of shape {shape}")
    if not sizes["train"]:
        raise refusal(path, "has no training images")
    for split in SPLITS:
        if images[split].shape[1:] != shape or labels[split].shape != (sizes[split],):
            raise refusal(
                path,
                f"has {split} images of shape {images[split].shape} and labels of shape "
                f"{labels[split].shape}",
            )
    return shape, sizes


def _class_names(path: Path, file: h5py.File, size: int) -> list[str]:
    link = file.get("class_names", getlink=True)
    dataset = file["class_names"] if isinstance(link, h5py.HardLink) else None
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.dtype.kind != "S"
        or len(dataset.shape or ()) != 1
    ):
        raise refusal(path, "lacks 'class_names', a list of texts of fixed length")
    _check_storage(path, "class_names", dataset, size)
    if not 2 <= len(dataset) <= MOST_CLASSES or dataset.dtype.itemsize > LONGEST_TEXT:
        raise refusal(path, f"has {len(dataset)} class names of {dataset.dtype.itemsize} bytes")
    names = [bytes(name).decode() for name in dataset[()]]
    if len(set(names)) != len(names) or not all(name and name.isprintable() for name in names):
        raise refusal(path, "has class names that are empty, twice there or cannot be printed")
    return names


def _digests(
    path: Path, file: h5py.File, sizes: Mapping[str, int], size: int
) -> dict[str, np.ndarray]:
    """Return the digests uint8 (blocks, 32) of each split, {} where the file has none."""
    if "digests" not in file:
        return {}
    found = {split: _dataset(path, file, f"digests/{split}", "u1", 2, size) for split in SPLITS}
    expected = {split: (digests.blocks(rows), digests.LENGTH) for split, rows in sizes.items()}
    if _dataset(path, file, WHOLE, "u1", 1, size).shape != (digests.LENGTH,) or any(
        found[split].shape != expected[split] for split in SPLITS
    ):
        raise refusal(path, "has digests of another number of rows")
    return {split: dataset[()] for split, dataset in found.items()}


def _fingerprint(path: Path, dataset: h5py.Dataset) -> str:
    text = bytes(dataset[()]).decode("ascii")
    if (
        not text.startswith(FINGERPRINT)
        or not text.isalnum()
        and not text.replace(":", "", 1).isalnum()
    ):
        raise refusal(path, "has no fingerprint: it was not written to its end")
    return text
