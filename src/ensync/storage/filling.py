"""Fill a dataset file: stream the images of its splits into it, then seal it."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ensync.storage import layout
from ensync.storage.digests import LENGTH, Digester
from ensync.storage.layout import FINGERPRINT, SPLITS, WHOLE, Layout
from ensync.storage.scattering import ImagesInFile, scatter, write_at
from ensync.storage.sources.source import Ahead, Images, Source, Streamed
from ensync.storage.splitting import Part
from ensync.storage.work import Work

PIECE = 4 << 20  # bytes of images on their way at a time


def fill(temporary: Path, source: Source, parts: dict[str, Part], plan: Layout, work: Work) -> str:
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
