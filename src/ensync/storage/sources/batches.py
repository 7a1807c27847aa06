"""Images and labels that come in batches, once, from any Python program: kept on the disk until
all are there, since neither their number nor their classes are known before.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from ensync.core.errors import EnsyncError, reason
from ensync.storage.scattering import ImagesInFile, write_at
from ensync.storage.sources.arrays import (
    DARK,
    Named,
    Origin,
    Part,
    check_values,
    cut_note,
    labels_of,
    limits_of,
    order_note,
    outside,
    pictures_of,
    pixels_of,
)
from ensync.storage.sources.depth import Values
from ensync.storage.sources.source import identities

PAIRS = "pairs (images, labels), or (image, label)"


def part_of_batches(
    origin: Origin, named: Named, batches: Iterable[Any], values: Values | None, directory: Path
) -> Part:
    """Return a split whose batches (images, labels) come one after the other, each once.

    directory: where the images wait, in a file without a name, as long as the part is used.
    values: (black, white) of the images. Errors: EnsyncError naming the batch that is doubtful.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=directory)
    except OSError as error:
        raise _unwritable(directory, error) from error
    spool = _Spool(origin, named, values, file)
    for number, batch in enumerate(batches, start=1):
        spool.add(*_pair(origin, number, batch), number)
    return spool.part()


def _pair(origin: Origin, number: int, batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of a batch, or of one image and its label."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise EnsyncError(
            f"{origin}: batch {number} is {type(batch).__name__}", PAIRS, "give such pairs"
        )
    try:
        images, labels = np.asarray(batch[0]), np.asarray(batch[1])
    except (ValueError, TypeError) as error:
        raise EnsyncError(
            f"{origin}: batch {number} cannot be made an array ({error})",
            "rows of one shape",
            "give arrays of NumPy",
        ) from error
    return (images[None], labels[None]) if labels.ndim == 0 else (images, labels)


class _Spool:
    """The batches so far: pixels in a file, labels in memory."""

    def __init__(self, origin: Origin, named: Named, values: Values | None, file: IO[bytes]):
        self._origin, self._named, self._values, self._file = origin, named, values, file
        self._shape: tuple[int, ...] = ()
        self._labels: list[np.ndarray] = []
        self._identities: list[np.ndarray] = []
        self._rows, self._size, self._most, self._outside = 0, 0, 0.0, 0
        self._dtype, self._notes = np.dtype(np.uint8), list[str]()

    def add(self, images: np.ndarray, labels: np.ndarray, number: int) -> None:
        """Add a batch. Errors: EnsyncError."""
        name = f"{self._named.images} of batch {number}"
        pictures = pictures_of(self._origin, name, images)
        least, most = limits_of(self._origin, name, pictures)
        # one batch may be dark, all may not
        check_values(self._origin, name, pictures.dtype, (least, max(most, DARK)), self._values)
        found = labels_of(self._origin, f"{self._named.labels} of batch {number}", labels)
        self._check(number, pictures, found)
        pixels = pixels_of(pictures, self._values)
        try:
            write_at(self._file.fileno(), self._size, pixels)
        except OSError as error:
            raise _unwritable(Path("the place of temporary images"), error) from error
        self._labels.append(found)
        self._identities.append(identities(pixels))
        self._outside += outside(pictures, self._values)
        self._notes = self._notes or order_note(self._named.images, images)
        self._rows, self._size = self._rows + len(found), self._size + pixels.nbytes
        self._most, self._dtype = max(self._most, most), pictures.dtype

    def _check(self, number: int, images: np.ndarray, labels: np.ndarray) -> None:
        """Raise EnsyncError unless a batch fits to itself and to the first."""
        if len(images) != len(labels):
            what = f"batch {number} has {len(images)} images and {len(labels)} labels"
            raise EnsyncError(f"{self._origin}: {what}", "as many labels", "correct the batch")
        self._shape = self._shape or images.shape[1:]
        if images.shape[1:] != self._shape:
            shapes = [" x ".join(map(str, shape)) for shape in (images.shape[1:], self._shape)]
            what = f"batch {number} has images of {shapes[0]} and the first of {shapes[1]}"
            raise EnsyncError(f"{self._origin}: {what}", "one shape", "resize or crop the images")
        if self._labels and labels.dtype.kind != self._labels[0].dtype.kind:
            what = f"one of batch {number} and the first has words as labels, the other numbers"
            raise EnsyncError(f"{self._origin}: {what}", "the same in all", "correct the labels")

    def part(self) -> Part:
        """Return what came. Errors: EnsyncError when it is nothing, or dark altogether."""
        if not self._labels:
            raise EnsyncError(
                f"{self._origin}: the {self._named.images} have no batch",
                PAIRS,
                "give at least one, and no generator that was used up",
            )
        name, height, width, channels = self._named.images, *self._shape
        check_values(self._origin, name, self._dtype, (0.0, self._most), self._values)
        return Part(
            ImagesInFile(self._file, 0, (self._rows, height, width, channels)),
            np.concatenate(self._labels),
            np.concatenate(self._identities),
            [*self._notes, *cut_note(name, self._outside, self._values)],
        )


def _unwritable(place: Path, error: OSError) -> EnsyncError:
    return EnsyncError(
        f"{place} cannot be written because {reason(error)}",
        "a directory with room for all images twice",
        "choose another path",
    )
