"""Images that come in an order of their own, written each to its row of a file.

A dataset's rows are in random order, while archives and tables are read from their beginning to
their end. So each image goes where it belongs when it comes, and memory holds a few at a time.
"""

import os
from collections.abc import Callable, Sequence
from math import prod
from typing import IO

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.sources.source import Streamed

NOWHERE = -1


def scatter(
    descriptor: int,
    images: Streamed,
    homes: Sequence[tuple[int, np.ndarray]],
    progress: Callable[[int, int], None] = lambda done, total: None,
    skip: int = 0,
) -> None:
    """Write streamed images into an open file.

    homes: (offset of the first, rows int64 in the order of the file) of each split of the file.
    progress(images done, of how many). skip: how many of the first are in the file already.
    Errors: EnsyncError when another number of images comes.
    """
    total, *shape = images.shape
    place = _places(total, prod(shape), homes)
    done = skip
    if done == total:
        return
    for rows, pixels in images.pieces(skip):
        for row, image in zip(rows.tolist(), np.ascontiguousarray(pixels)):
            if place[row] != NOWHERE:
                write_at(descriptor, int(place[row]), image)
        done += len(rows)
        progress(done, total)
    if done != total:
        raise EnsyncError(
            f"a source that gave {total:,} pictures at first and {done:,} later",
            "files that do not change meanwhile",
            "prepare again",
        )


def _places(total: int, size: int, homes: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
    """Return the offset int64 (total,) of each row's image of `size` bytes."""
    place = np.full(total, NOWHERE, np.int64)
    for first, rows in homes:
        place[rows] = first + size * np.arange(len(rows))
    return place


class ImagesInFile:
    """Images uint8 (rows, height, width, channels) that lie in an open file, or in the file of a
    descriptor, from `offset` on.
    """

    def __init__(self, file: IO[bytes] | int, offset: int, shape: tuple[int, int, int, int]):
        self.shape = shape
        self._file, self._offset = file, offset

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of rows int64. Neighbours are read at once."""
        out = np.empty((len(rows), *self.shape[1:]), np.uint8)
        starts = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        for first, last in zip(starts, starts[1:]):
            if first < last:
                self._read(int(rows[first]), out[first:last])
        return out

    def _read(self, row: int, out: np.ndarray) -> None:
        """Fill `out` with the images from a row on."""
        descriptor = self._file if isinstance(self._file, int) else self._file.fileno()
        view, offset = memoryview(out).cast("B"), self._offset + prod(self.shape[1:]) * row
        while view:
            count = os.preadv(descriptor, [view], offset)
            if not count:
                raise EnsyncError(
                    "a file that has become shorter while it was written",
                    "one that nothing else writes to",
                    "prepare again",
                )
            view, offset = view[count:], offset + count


def write_at(descriptor: int, offset: int, array: np.ndarray) -> None:
    """Write an array, contiguous, at an offset of an open file."""
    view = memoryview(array).cast("B") if array.size else memoryview(b"")
    while view:
        done = os.pwrite(descriptor, view, offset)
        view, offset = view[done:], offset + done
