"""The dataset of a run: opened by every rank, its images once per node where memory allows, and
as they were written.
"""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensync.core.activity import Doing, doing, tick
from ensync.core.config import schema
from ensync.core.errors import EnsyncError
from ensync.mpi.shared_memory import node_shared, release
from ensync.mpi.world import Comm, agree_any, node_of, on_root, patient_barrier, share
from ensync.report.console import Console
from ensync.report.results import TestedOn
from ensync.runs.identity import Identity
from ensync.runs.memory import is_streamed
from ensync.storage.blocks import BlockReader
from ensync.storage.dataset import Change, Dataset, open_dataset
from ensync.storage.layout import SPLITS
from ensync.storage.redraw import Redraw, redraw
from ensync.storage.verification import check
from ensync.training.batches import BLOCK, BatchLoader, normalization


@dataclass
class SplitLoaders:
    """The three splits that a run works on, and what a network must know of the dataset it is, or
    was, trained on.

    file: the open dataset, None where there are only pictures. watches: whether this rank looks
    after the file for its node. other: what the test images are from, where that is not the run's
    own dataset.
    """

    identity: Identity
    train: BatchLoader
    validation: BatchLoader
    test: BatchLoader
    streamed: bool = False
    file: Dataset | None = None
    watches: bool = False
    other: Identity | None = None
    seen: Change | None = None
    in_shards: bool = False  # whether a member here reads a shard from the file
    compared: bool = False

    @property
    def dataset(self) -> Dataset:
        """The open dataset."""
        assert self.file is not None, "only pictures"
        return self.file

    def tested_on(self) -> TestedOn:
        """Return which dataset the test images are from."""
        tested = self.other or self.identity
        return TestedOn(str(self.dataset.path), tested.name, tested.fingerprint, self.other is None)

    def without_validation(self) -> "SplitLoaders":
        """Return these splits with no validation images, for a test that needs none."""
        v = self.validation
        none = v.with_images(np.zeros((0, self.identity.features), np.uint8), v.labels[:0])
        return replace(self, validation=none)

    @property
    def checks(self) -> str:
        """Say whether the images are compared with their digests."""
        return (
            "content checked"
            if self.file is None or self.file.digests or not self.streamed
            else "content not checked, as the file has no digests"
        )

    def train_of(self, rows: np.ndarray) -> BatchLoader:
        """Return the training loader of a member with these rows: streamed, it reads blocks of its
        own rows.
        """
        if not self.streamed or len(rows) == len(self.train):
            return self.train
        self.in_shards = True
        reader = BlockReader(self.dataset, "train", BLOCK.rows, BLOCK.blocks, rows)
        return self.train.with_images(reader, self.train.labels)

    def check_shards(self, comm: Comm) -> None:
        """Compare the training images with their digests where members read shards of them, of
        which no block has a digest. Collective, and done once.

        One rank of each node reads all of them, as one epoch does.
        """
        if (
            not self.streamed
            or self.compared
            or not self.dataset.digests
            or not agree_any(comm, self.in_shards)
        ):
            return
        self.compared = True
        _check_content(comm, self, ("train",))

    def check_unchanged(self, comm: Comm, console: Console) -> None:
        """Look after the file, and refuse to go on where what is streamed was written to; other
        changes are reported once. Collective.

        Images that are in memory stay what they were. So do those that are streamed from a file
        that was replaced or removed.
        """
        found = [
            change
            for change in share(comm, self.file.changed() if self.file and self.watches else None)
            if change
        ]
        if not found or (self.seen is not None and not self.streamed):
            return
        self.seen = next((change for change in found if change.in_place), found[0])
        if self.streamed and self.seen.in_place:
            raise EnsyncError(
                f"the dataset {self.dataset.path} {self.seen.what} while the run reads from it",
                "a file that stays as it is while it is streamed",
                "look at it with `ensync data verify`, and `ensync resume` from the newest "
                "checkpoint",
            )
        console.warn(
            f"the dataset {self.dataset.path} {self.seen.what} while the run trains; it goes on "
            "with the images that it found at its start"
        )

    def close(self) -> None:
        """Give the images' memory and the file back; no split can be read any more. Collective."""
        for loader in (self.train, self.validation, self.test):
            if isinstance(loader.images, np.ndarray):
                release(loader.images)
        if self.file is not None:
            self.file.close()


def open_loaders(
    comm: Comm,
    data: schema.Data,
    dtype: str,
    accept: Callable[[Dataset], Identity] = Identity.of,
) -> SplitLoaders:
    """Open a job's dataset on every rank, its images as they were written. Collective.

    dtype: of the normalised images. accept(dataset): return the identity that the run goes by, or
    raise EnsyncError because it is another's dataset.
    """
    return _open(comm, data, dtype, accept, SPLITS)


def open_other(
    comm: Comm, data: schema.Data, dtype: str, accept: Callable[[Dataset], Identity]
) -> SplitLoaders:
    """Open another dataset, which is at data.path, for its test images only, which are normalised
    as the run's own. Collective.
    """
    loaders = _open(comm, data, dtype, accept, ("test",))
    return replace(loaders, other=Identity.of(loaders.dataset))


def only_pictures(
    identity: Identity, data: schema.Data, dtype: str, images: np.ndarray
) -> SplitLoaders:
    """Return loaders of nothing but pictures uint8 (n, height, width, channels) to be classified,
    without labels and without a file.
    """
    none = _nothing(identity, data, dtype)
    return SplitLoaders(identity, none, none, pictures(none, images))


def pictures(like: BatchLoader, images: np.ndarray) -> BatchLoader:
    """Return a loader of pictures uint8 (n, height, width, channels) without labels, normalised as
    another loader.
    """
    return like.with_images(images.reshape(len(images), -1), np.zeros(len(images), np.int64))


def _nothing(identity: Identity, data: schema.Data, dtype: str) -> BatchLoader:
    shift = normalization(data.normalization, identity.mean, identity.std, np.dtype(dtype))
    images, labels = np.zeros((0, identity.features), np.uint8), np.zeros(0, np.int64)
    return BatchLoader(images, labels, *shift, identity.shape)


def _open(
    comm: Comm,
    data: schema.Data,
    dtype: str,
    accept: Callable[[Dataset], Identity],
    splits: Sequence[str],
) -> SplitLoaders:
    dataset, identity = _open_everywhere(comm, data.path, accept)
    streamed = on_root(comm, lambda: is_streamed(data.placement, dataset))
    none = _nothing(identity, data, dtype)
    redrawn = _redrawn(data, dataset, streamed) if "validation" in splits else None
    moved = redrawn.labels(dataset) if redrawn else {}

    def loader(split: str) -> BatchLoader:
        if split not in splits:
            return none
        rows = dataset.sizes[split]
        labels = moved[split] if split in moved else dataset.labels(split)
        if streamed:
            reader = BlockReader(dataset, split, BLOCK.rows, BLOCK.blocks, labels=labels)
            return none.with_images(reader, labels)
        images = node_shared(
            comm,
            (rows, dataset.features),
            np.uint8,
            redrawn.fill(dataset, split)
            if redrawn and split in moved
            else lambda out: dataset.read_into(split, 0, rows, out),
        )
        return none.with_images(images, labels)

    node = node_of(comm)
    watches = node.rank == 0
    node.Free()
    loaders = SplitLoaders(
        identity, loader("train"), loader("validation"), loader("test"), streamed, dataset, watches
    )
    if not streamed:
        _check_content(comm, loaders, splits, moved)
    return loaders


def _redrawn(data: schema.Data, dataset: Dataset, streamed: bool) -> Redraw | None:
    """Return which images change places by data.validation_seed, None where it is not set."""
    if not data.validation_seed:
        return None
    if streamed:
        raise EnsyncError(
            f"data.validation_seed = {data.validation_seed} with {dataset.path}, which is streamed",
            "images in memory",
            "set data.placement = 'memory', or leave data.validation_seed out",
        )
    return redraw(dataset, data.validation_seed)


def _open_everywhere(
    comm: Comm, path: str | os.PathLike[str], accept: Callable[[Dataset], Identity]
) -> tuple[Dataset, Identity]:
    """Open one dataset on every rank and return it with what `accept` makes of it, the same for
    all. Collective.
    """
    on_root(comm, lambda: _accepted(path, accept))  # the sentence about a bad file, once
    dataset, failure = None, None
    try:
        dataset = open_dataset(path)
    except EnsyncError as error:
        failure = error
    found = share(comm, failure or (dataset.fingerprint if dataset else ""))
    for rank, one in enumerate(found):
        if isinstance(one, EnsyncError):
            raise one
        if one != found[0]:
            raise EnsyncError(
                f"rank {rank} finds another dataset at {path} than rank 0",
                "the same file on every node",
                "copy one file to all nodes, or share it",
            )
    assert dataset is not None
    return dataset, accept(dataset)


def _accepted(path: str | os.PathLike[str], accept: Callable[[Dataset], Identity]) -> None:
    with open_dataset(path) as dataset:
        accept(dataset)


def _check_content(
    comm: Comm, loaders: SplitLoaders, splits: Sequence[str], moved: Collection[str] = ()
) -> None:
    """Refuse images and labels that are not as they were written; one rank of each node looks.
    Collective.

    moved: splits whose images in memory are not those of the file, which is read again.
    """
    images = {split: getattr(loaders, split).images for split in splits if split not in moved}
    held = {split: array for split, array in images.items() if isinstance(array, np.ndarray)}
    failure = None
    if loaders.watches:
        try:
            with doing(Doing.READING):
                check(loaders.dataset, held, splits, lambda *_: tick())
        except EnsyncError as error:
            failure = error
    patient_barrier(comm)  # the others sleep, for the threads that look
    if heard := [one for one in share(comm, failure) if one is not None]:
        loaders.close()
        raise heard[0]
