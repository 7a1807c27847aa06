"""A split read through blocks gives the same rows, holds no more than it should and reads each
block once in an epoch.
"""

import numpy as np
import pytest
from samples import pictures

from ensync.core.sharding import (
    bootstrap_rows,
    epoch_order,
    local_rows,
    shard_rows,
    steps_per_epoch,
)
from ensync.storage.blocks import BlockReader
from ensync.storage.dataset import open_dataset
from ensync.storage.sources.source import Source
from ensync.storage.writing import write_dataset

ROWS = 1000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """1,000 training images of 3 x 3."""
    path = tmp_path_factory.mktemp("blocks") / "a.h5"
    train, test = pictures(ROWS, 3, 3, 1), pictures(10, 3, 3, 1)
    labels = {"train": np.arange(ROWS) % 2, "test": np.arange(10) % 2}
    write_dataset(
        path, Source("s", {"train": train, "test": test}, labels, ["a", "b"], "", ""), validation=0
    )
    with open_dataset(path) as dataset:
        yield dataset


def check(reader, whole, rows):
    """Ask for rows and compare them with the file."""
    images, places = reader.batch(rows)
    assert images.dtype == np.uint8 and places.dtype == np.int64 and places.shape == rows.shape
    assert np.array_equal(images[places], whole[rows])
    return images


@pytest.mark.parametrize("batch", [1, 7, 32, 100, 400])
@pytest.mark.parametrize(("size", "rank"), [(1, 0), (3, 1)])
def test_an_epoch_reads_each_block_once(dataset, batch, size, rank):
    whole, window = dataset.read("train", 0, ROWS), (30, 4)
    reader = BlockReader(dataset, "train", *window)
    for epoch in range(3):
        order = epoch_order(ROWS, 1, epoch, window)
        before = reader.blocks_read
        for step in range(steps_per_epoch(ROWS, batch)):
            images = check(reader, whole, local_rows(order, step, batch, size, rank))
            assert len(images) <= 4 * 30 + max(30, batch)
        assert reader.blocks_read - before <= -(-ROWS // 30)


@pytest.mark.parametrize("choose", [shard_rows, bootstrap_rows])
def test_a_members_rows_are_cut_into_blocks_of_their_own(dataset, choose):
    whole, window = dataset.read("train", 0, ROWS), (30, 4)
    rows = choose(dataset.labels("train"), 4, 2, seed=5)
    reader = BlockReader(dataset, "train", *window, rows=rows)
    order = rows[epoch_order(len(rows), 1, 0, window)]
    for step in range(steps_per_epoch(len(rows), 32)):
        check(reader, whole, order[32 * step : 32 * step + 32])
    blocks = -(-len(rows) // 30)
    assert reader.blocks_read <= (blocks if choose is shard_rows else 3 * blocks)


def test_any_order_gives_the_right_rows(dataset):
    whole, random = dataset.read("train", 0, ROWS), np.random.default_rng(0)
    reader = BlockReader(dataset, "train", 64, 3)
    for rows in (
        np.arange(ROWS),
        np.arange(ROWS)[::-1],
        random.permutation(ROWS),
        random.integers(0, ROWS, 50),
        np.zeros(0, np.int64),
        np.array([999]),
    ):
        check(reader, whole, rows)


def test_a_split_smaller_than_the_buffer_is_held_whole(dataset):
    reader = BlockReader(dataset, "test", 64, 16)
    for _ in range(3):
        images = check(reader, dataset.read("test", 0, 10), np.arange(10)[::-1])
    assert reader.blocks_read == 1 and len(images) == 2 * 64


def test_an_empty_split_gives_no_rows(dataset):
    images, places = BlockReader(dataset, "validation", 64, 4).batch(np.zeros(0, np.int64))
    assert images.shape[1] == 9 and len(places) == 0
