"""The dataset of a run: opened by every rank, its images once per node where memory allows."""

import os
from dataclasses import dataclass

import numpy as np

from ensync.feed import BLOCK, Feed, normalization
from ensync.mpi.shared_memory import node_shared, release
from ensync.mpi.world import Comm, on_root
from ensync.settings import Job
from ensync.storage.blocks import BlockReader
from ensync.storage.dataset import Dataset, open_dataset

SHARE_OF_MEMORY = 0.5   # of what the node has free; beyond it the dataset is streamed


@dataclass
class Feeds:
    """The three splits of one dataset, and what a network must know of it."""

    dataset: Dataset
    train: Feed
    validation: Feed
    test: Feed
    streamed: bool

    def train_of(self, rows: np.ndarray) -> Feed:
        """Return the training feed of a member with these rows: streamed, it reads blocks of its own rows."""
        if not self.streamed or len(rows) == len(self.train):
            return self.train
        reader = BlockReader(self.dataset, "train", BLOCK.rows, BLOCK.blocks, rows)
        return Feed(reader, self.train.labels, self.train.mean, self.train.inverse_std)

    def close(self) -> None:
        """Give the images' memory and the file back; no split can be read any more. Collective."""
        for feed in (self.train, self.validation, self.test):
            if isinstance(feed.images, np.ndarray):
                release(feed.images)
        self.dataset.close()


def open_feeds(comm: Comm, job: Job) -> Feeds:
    """Open the job's dataset on every rank. Collective."""
    on_root(comm, lambda: open_dataset(job.data.path).close())   # the sentence about a bad file, once
    dataset = open_dataset(job.data.path)
    streamed = on_root(comm, lambda: _streamed(job, dataset))
    shift = normalization(job.data.normalization, dataset.mean, dataset.std, np.dtype(job.training.dtype))

    def feed(split: str) -> Feed:
        rows = dataset.sizes[split]
        if streamed:
            return Feed(BlockReader(dataset, split, BLOCK.rows, BLOCK.blocks), dataset.labels(split), *shift)
        images = node_shared(comm, (rows, dataset.features), np.uint8, lambda out: dataset.read_into(split, 0, rows, out))
        return Feed(images, dataset.labels(split), *shift)

    return Feeds(dataset, feed("train"), feed("validation"), feed("test"), streamed)


def _streamed(job: Job, dataset: Dataset) -> bool:
    if job.data.placement != "auto":
        return job.data.placement == "stream"
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sum(dataset.nbytes(split) for split in dataset.sizes) > SHARE_OF_MEMORY * free
