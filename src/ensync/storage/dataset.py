"""Read a prepared dataset: checked once, then rows come straight from the file, without locks
and without a copy of our own.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from ensync.core.errors import EnsyncError, leads_nowhere, nearest, reason
from ensync.storage import layout
from ensync.storage.description import describe
from ensync.storage.layout import SPLITS, Layout, refusal
from ensync.storage.writers import writer_of


@dataclass(frozen=True)
class Change:
    """What has happened to a dataset file since it was opened; `in_place`: to the very bytes
    that are read from now on.
    """

    what: str
    in_place: bool


class Dataset:
    """An open dataset file. Images are uint8 rows of `features` = height * width * channels values,
    channels last.

    path, name, class_names, fingerprint, counts {split: int64 (classes,)}; shape (height, width,
    channels); sizes {split: rows}; mean, std float32 (channels,) of the training images in units of
    0..255; digests {split: uint8 (blocks, 32)}, {} where the file has none (digests.py);
    preparation {rule: value}, how the images became what they are. Any number of processes and
    threads may read at once; nothing is locked.
    """

    def __init__(self, path: Path, found: Layout, descriptor: int) -> None:
        self.path, self.layout, self._descriptor = path, found, descriptor
        self.name, self.fingerprint = found.texts["name"], found.fingerprint
        self.shape, self.sizes, self.class_names = found.shape, found.sizes, found.class_names
        self.mean, self.std, self.digests = found.mean, found.std, found.digests
        self.preparation: dict[str, Any] = found.tables["preparation"]
        self._opened = os.fstat(descriptor)
        self.features = int(np.prod(found.shape))
        self.classes = len(found.class_names)
        self.counts = {split: self._count(split) for split in SPLITS}

    def labels(self, split: str) -> np.ndarray:
        """Return the labels int64 (rows,) of a split."""
        labels = np.empty(self.sizes[self._known(split)], "<i8")
        self._fill(_bytes(labels), self.layout.offsets[f"labels/{split}"] or 0)
        return labels.astype(np.int64, copy=False)

    def nbytes(self, split: str) -> int:
        """Return the bytes that the images of a split take in memory."""
        return self.sizes[self._known(split)] * self.features

    def read(self, split: str, start: int, stop: int) -> np.ndarray:
        """Return the images uint8 (stop - start, features) of neighbouring rows."""
        out = np.empty((stop - start, self.features), np.uint8)
        self.read_into(split, start, stop, out)
        return out

    def read_into(self, split: str, start: int, stop: int, out: np.ndarray) -> None:
        """Fill out, uint8 with (stop - start) * features values in C order, with the images of
        neighbouring rows.
        """
        if not 0 <= start <= stop <= self.sizes[self._known(split)]:
            raise IndexError(f"rows {start}:{stop} of {self.sizes[split]} {split} rows")
        if out.nbytes != (stop - start) * self.features or out.dtype != np.uint8:
            raise ValueError(
                f"{out.dtype} {out.shape} for {stop - start} rows of {self.features} bytes"
            )
        self._fill(
            _bytes(out), (self.layout.offsets[f"images/{split}"] or 0) + start * self.features
        )

    def rows(self, split: str, rows: np.ndarray) -> np.ndarray:
        """Return the images uint8 (len(rows), features) of `rows`, which may come in any order and
        more than once.

        They are read in ascending order, neighbours together: one system call for each run.
        """
        rows = np.asarray(rows, np.int64)
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        if len(rows) and not 0 <= ascending[0] <= ascending[-1] < self.sizes[self._known(split)]:
            raise IndexError(
                f"rows {ascending[0]}..{ascending[-1]} of {self.sizes[split]} {split} rows"
            )
        out = np.empty((len(rows), self.features), np.uint8)
        view, base, size = _bytes(out), self.layout.offsets[f"images/{split}"] or 0, self.features
        for start, stop in _runs(ascending):
            self._fill(view[start * size : stop * size], base + int(ascending[start]) * size)
        if (order[1:] > order[:-1]).all():
            return out
        shuffled = np.empty_like(out)
        shuffled[order] = out
        return shuffled

    def describe(self) -> str:
        """Return what the file holds, as plain text of several lines."""
        return describe(self.path, self.layout, self.counts)

    def changed(self) -> Change | None:
        """Return what has happened to the file since it was opened; size, inode and time are
        compared, which costs a moment.
        """
        here = os.fstat(self._descriptor)
        if (here.st_size, here.st_mtime_ns) != (self._opened.st_size, self._opened.st_mtime_ns):
            return Change("was written to", True)
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return Change("was removed", False)
        except OSError as error:
            return Change(f"cannot be found any more because {reason(error)}", False)
        if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
            return Change("was replaced by another file", False)
        return None

    def close(self) -> None:
        """Close the file; reading again is an error."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _known(self, split: str) -> str:
        if split not in self.sizes:
            raise EnsyncError(
                f"the split '{split}'{nearest(split, SPLITS)}",
                "one of " + ", ".join(SPLITS),
                "choose one of them",
            )
        return split

    def _count(self, split: str) -> np.ndarray:
        """Return how many rows each class has, int64 (classes,). Errors: EnsyncError for a label
        that is no class.
        """
        labels = self.labels(split)
        outside = (labels < 0) | (labels >= self.classes)
        if outside.any():
            row = int(outside.argmax())
            raise refusal(
                self.path,
                f"gives row {row} of {split} the label {labels[row]}, and has {self.classes} "
                "classes",
            )
        return np.bincount(labels, minlength=self.classes)

    def _fill(self, view: memoryview, place: int) -> None:
        """Fill `view` with the bytes of the file from `place` on."""
        while view:
            try:
                done = os.preadv(self._descriptor, [view], place)
            except OSError as error:
                raise _unreadable(self.path, reason(error)) from error
            if not done:
                raise refusal(self.path, "has become shorter while it was read")
            view, place = view[done:], place + done


def open_dataset(path: str | os.PathLike[str]) -> Dataset:
    """Open the dataset at `path` for reading after checking that it is what data/README.md
    specifies.

    Errors: EnsyncError with the reason for any other file. Cost: all labels are read, of the images
    nothing.
    """
    path = Path(path)
    found, descriptor = _open(path)
    return Dataset(path, found, descriptor)


def _open(path: Path) -> tuple[Layout, int]:
    """Return what the file says of itself, checked, and a descriptor of it; HDF5 has no part in
    reading the arrays.
    """
    _check_regular(path)
    descriptor = -1
    try:
        with h5py.File(path, "r", locking=False) as file:
            descriptor = os.dup(file.id.get_vfd_handle())
            layout.check_format(path, file)
            return layout.read(path, file, os.fstat(descriptor).st_size), descriptor
    except BaseException as error:
        if descriptor >= 0:
            os.close(descriptor)
        if isinstance(error, EnsyncError) or not isinstance(error, Exception):
            raise
        raise refused(path, error) from error


def foreign(path: Path) -> str:
    """Return why the file at `path` is not one of Ensync's datasets, whole or damaged; "" when
    it is.
    """
    try:
        _check_regular(path)
        with h5py.File(path, "r", locking=False) as file:
            layout.check_format(path, file)
    except EnsyncError as error:
        return error.given
    except Exception as error:
        return refused(path, error).given
    return ""


def _check_regular(path: Path) -> None:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise refusal(path, f"is {'a directory' if stat.S_ISDIR(mode) else 'not a file'}")
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        from ensync.storage.sources.names import resembling  # here, since the sources load Pillow

        raise EnsyncError(
            f"{path} does not exist{leads_nowhere(path) or resembling(path)}",
            "a prepared dataset",
            "make it with 'ensync data prepare', or correct data.path",
        ) from error
    except OSError as error:
        raise _unreadable(path, reason(error)) from error


def _unreadable(path: Path, why: str) -> EnsyncError:
    return EnsyncError(
        f"{path} cannot be read because {why}",
        "a readable file",
        "check the file and its permissions",
    )


def refused(path: Path, error: Exception) -> EnsyncError:
    """Return what is wrong with the file; h5py lets many types through, and their texts are
    about the inside of its library.
    """
    if writer := writer_of(path):
        return EnsyncError(
            f"{path} is open for writing in {writer}",
            "a file that nobody writes to",
            "close it there, then try again",
        )
    text = str(error)
    if "already open for write" in text:
        return EnsyncError(
            f"{path} was open for writing in a program that did not close it",
            "a file that was closed after its last change",
            "remove it and make it again with 'ensync data prepare', or take the mark off with "
            "'h5clear -s' and ask 'ensync data verify'",
        )
    if "signature not found" in text:
        return refusal(path, "is not an HDF5 file")
    if "truncated" in text or "end of file" in text.lower():
        return refusal(path, "is cut short")
    return refusal(
        path, f"is damaged ({type(error).__name__}: {text.splitlines()[0][:200] if text else ''})"
    )


def _bytes(array: np.ndarray) -> memoryview:
    return memoryview(array).cast("B") if array.size else memoryview(b"")  # nothing cannot be cast


def _runs(ascending: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, stop) of the stretches of `ascending` whose values follow each other by
    one.
    """
    if not len(ascending):
        return []
    breaks = np.flatnonzero(np.diff(ascending) != 1) + 1
    edges = [0, *breaks.tolist(), len(ascending)]
    return list(zip(edges[:-1], edges[1:], strict=True))
