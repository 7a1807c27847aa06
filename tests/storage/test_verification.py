"""Damage of a dataset's content is found, named and refused; what is being written by another is
not called damaged.
"""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from samples import pictures

from ensync.cli import data
from ensync.core.errors import EnsyncError
from ensync.storage import filling
from ensync.storage.blocks import BlockReader
from ensync.storage.checkpoint import (
    checkpoint_name,
    load_checkpoint,
    load_newest_valid,
    newest_valid,
    save_checkpoint,
)
from ensync.storage.dataset import open_dataset
from ensync.storage.sources.source import Source
from ensync.storage.verification import check, faults
from ensync.storage.writing import write_dataset

ROWS = 4000  # 3,600 for training: four blocks, the last of them shorter


def source(**changes):
    images, labels = (
        {"train": pictures(ROWS, 4, 3, 1), "test": pictures(9, 4, 3, 1, seed=1)},
        {"train": np.arange(ROWS) % 2, "test": np.arange(9) % 2},
    )
    return Source(
        **dict(
            name="s", images=images, labels=labels, class_names=["a", "b"], source="x", licence="y"
        )
        | changes
    )


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A dataset that was written in pieces which no block begins or ends with."""
    monkeypatch.setattr(filling, "PIECE", 12 * 700)
    write_dataset(tmp_path / "a.h5", source())
    return tmp_path / "a.h5"


def overwrite(path, name, place, number):
    with h5py.File(path, "r+") as file:
        file[name][place] = number if file[name][place] != number else 1 - number


def without_digests(path):
    """Make of the dataset one as it was written before there were digests."""
    with h5py.File(path, "r+") as file:
        del file["digests"]


DAMAGE = [
    ("images/train", (1024, 0, 0, 0), "rows 1,024 to 2,047 of train are"),
    ("images/train", (3599, 3, 2, 0), "rows 3,072 to 3,599 of train are"),
    ("labels/validation", 0, "rows 0 to 399 of validation are"),
    ("images/test", (8, 1, 1, 0), "rows 0 to 8 of test are"),
]


@pytest.mark.parametrize(("name", "place", "words"), DAMAGE)
def test_overwritten_content_is_named_and_refused(path, name, place, words):
    with open_dataset(path) as dataset:
        assert faults(dataset) == {"train": "", "validation": "", "test": ""}
    overwrite(path, name, place, 0)
    with open_dataset(path) as dataset:
        loaded = {split: dataset.read(split, 0, rows) for split, rows in dataset.sizes.items()}
        for images in (None, loaded):
            with pytest.raises(EnsyncError, match=f"is damaged: {words} not as written"):
                check(dataset, images)
    without_digests(path)
    with open_dataset(path) as dataset:
        for images in (None, loaded):
            with pytest.raises(
                EnsyncError,
                match="is damaged: its images, labels or class names are not as written",
            ):
                check(dataset, images)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("mean", 0, 7),
        ("class_names", 1, b"c"),
        ("fingerprint", 70, 48),
        ("digests/train", (0, 0), 48),
    ],
)
def test_overwritten_descriptions_are_refused_at_once(path, name, place, value):
    with h5py.File(path, "r+") as file:
        file[name][place] = value if file[name][place] != value else value + 1
    with pytest.raises(EnsyncError, match="is damaged: what it says of its images"):
        open_dataset(path)


def test_a_file_of_before_is_read_and_checked_by_its_fingerprint(path):
    without_digests(path)
    with open_dataset(path) as dataset:
        assert dataset.digests == {} and faults(dataset) == {"file": ""}


def test_digests_of_another_number_of_rows_are_refused(path):
    with h5py.File(path, "r+") as file:
        del file["digests/train"]
        file["digests/train"] = np.zeros((3, 32), np.uint8)
    with pytest.raises(EnsyncError, match="has digests of another number of rows"):
        open_dataset(path)


def told(path):
    """What `ensync data verify` prints, four words a line, and the refusal after it."""
    said, refusal = [], None
    try:
        for line in data.verdicts(str(path)):
            said.append(line)
    except EnsyncError as error:
        refusal = error
    return [line.split()[:4] for line in said], refusal


def test_verify_tells_each_splits_verdict(path):
    whole = [
        ["train", "3,600", "images", "as"],
        ["validation", "400", "images", "as"],
        ["test", "9", "images", "as"],
        [str(path), "is", "as", "it"],
    ]
    assert told(path) == (whole, None)
    overwrite(path, "images/validation", (7, 0, 0, 0), 0)
    said, refusal = told(path)
    assert said == [whole[0], ["validation", "400", "images", "damaged:"], whole[2]]
    assert (
        "rows 0 to 399 of validation are not as written" in str(refusal) and refusal.exit_code == 2
    )
    without_digests(path)
    said, refusal = told(path)
    assert said[0] == [
        "file",
        "4,009",
        "images",
        "damaged:",
    ] and "its images, labels or class names are not as written" in str(refusal)


def test_streamed_blocks_are_checked_when_they_are_first_read(path):
    overwrite(path, "images/train", (2100, 0, 0, 0), 0)
    with open_dataset(path) as dataset:
        reader = BlockReader(dataset, "train", 1024, 2, labels=dataset.labels("train"))
        reader.batch(np.array([0, 1500]))
        with pytest.raises(EnsyncError, match="rows 2,048 to 3,071 of train are not as written"):
            reader.batch(np.array([2050]))


CHANGES = {
    "a pixel": lambda s: s.images["train"].__setitem__(
        (5, 0, 0, 0), s.images["train"][5, 0, 0, 0] ^ 1
    ),
    "a label": lambda s: s.labels["train"].__setitem__(5, 1 - s.labels["train"][5]),
    "a class": lambda s: s.class_names.__setitem__(0, "c"),
    "the seed": None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_fingerprint_changes_with(tmp_path, change):
    other = source()
    if CHANGES[change]:
        CHANGES[change](other)
    first = write_dataset(tmp_path / "a.h5", source())
    assert (
        first.fingerprint
        != write_dataset(tmp_path / "b.h5", other, seed=1 if CHANGES[change] else 2).fingerprint
    )


def test_preparing_again_mends_what_is_damaged_and_adds_digests(path):
    before = path.read_bytes()
    for spoil in (
        lambda: overwrite(path, "images/train", (0, 0, 0, 0), 0),
        lambda: overwrite(path, "mean", 0, 0),
        lambda: without_digests(path),
    ):
        spoil()
        assert write_dataset(path, source()).changed and path.read_bytes() == before
    assert not write_dataset(path, source()).changed


def test_what_happens_to_an_open_file_is_told(path, tmp_path):
    with open_dataset(path) as dataset:
        assert dataset.changed() is None
        write_dataset(path, source(), seed=2)
        change = dataset.changed()
        assert change.what == "was replaced by another file" and not change.in_place
    with open_dataset(path) as dataset:
        overwrite(path, "images/train", (0, 0, 0, 0), 0)
        assert dataset.changed().in_place
        path.unlink()
        assert dataset.changed().what == "was written to"
    write_dataset(path, source())
    with open_dataset(path) as dataset:
        path.unlink()
        assert dataset.changed().what == "was removed" and not dataset.changed().in_place


@pytest.mark.parametrize("kind", ["dataset", "checkpoint"])
def test_a_file_open_in_a_writer_is_not_called_damaged(path, tmp_path, kind):
    """HDF5 changes the first bytes while it has a file open, and a program that is killed leaves
    them so.
    """
    save_checkpoint(tmp_path / "checkpoint.h5", {}, {"a": np.zeros(10)})
    file, look = {
        "dataset": (path, open_dataset),
        "checkpoint": (tmp_path / "checkpoint.h5", load_checkpoint),
    }[kind]
    code = (
        "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print(flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    writer.stdout.readline()
    try:
        with pytest.raises(
            EnsyncError,
            match=rf"is open for writing in another process \({writer.pid}\); .*close it there",
        ) as caught:
            look(file)
        assert "damaged" not in str(caught.value)
    finally:
        writer.kill()
        writer.wait()
    if kind == "dataset":
        with pytest.raises(
            EnsyncError, match="was open for writing in a program that did not close it"
        ):
            look(file)
        with pytest.raises(EnsyncError, match="no dataset that could be replaced .* remove it"):
            write_dataset(path, source())


@pytest.mark.parametrize("look", [newest_valid, load_newest_valid])
def test_a_checkpoint_that_is_pruned_meanwhile_gives_way_to_the_newer_one(
    tmp_path, monkeypatch, look
):
    """A run in training writes its next checkpoint and removes the one that was just listed."""
    from ensync.storage import checkpoint

    old, new = (tmp_path / checkpoint_name(epoch, 10 * epoch) for epoch in (1, 2))
    save_checkpoint(old, {"epoch": 1}, {"a": np.zeros(10)})
    listed = checkpoint.checkpoints

    def listed_then_pruned(directory):
        found = listed(directory)
        if old.exists():
            save_checkpoint(new, {"epoch": 2}, {"a": np.ones(10)})
            old.unlink()
        return found

    monkeypatch.setattr(checkpoint, "checkpoints", listed_then_pruned)
    found, rejected = look(tmp_path)
    assert (found if look is newest_valid else found.path) == new and rejected == []
