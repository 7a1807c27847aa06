"""IDX files come in to the byte, and every damage has its sentence."""

import gzip
import struct

import numpy as np
import pytest
from samples import idx_images, idx_labels, published, write_idx

from ensync.core.errors import EnsyncError
from ensync.storage.sources import idx
from ensync.storage.sources.digits import read_digits
from ensync.storage.sources.idx import read_idx

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def test_images_and_labels_come_in_to_the_byte(tmp_path):
    made = write_idx(tmp_path)
    source = read_idx(tmp_path, "mnist")
    for split, (images, labels) in made.items():
        assert source.images[split].dtype == np.uint8
        assert np.array_equal(source.images[split], images[..., None])
        assert source.labels[split].dtype == np.int64 and source.labels[split].tolist() == labels
    assert source.class_names == list("0123456789")
    assert (
        all("is not the published file" in note for note in source.notes) and len(source.notes) == 4
    )


def test_decompressed_files_are_read_too(tmp_path):
    made = write_idx(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert np.array_equal(read_idx(tmp_path, "mnist").images["test"][..., 0], made["test"][0])


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_published_files_are_known(name):
    source = read_idx(published(name), name)
    assert source.images["train"].shape == (60_000, 28, 28, 1) and source.images["test"].shape == (
        10_000,
        28,
        28,
        1,
    )
    assert source.notes == []
    raw = gzip.decompress((published(name) / TRAIN_IMAGES).read_bytes())
    assert source.images["train"].tobytes() == raw[16:]
    assert (
        source.labels["train"].astype(np.uint8).tobytes()
        == gzip.decompress((published(name) / TRAIN_LABELS).read_bytes())[8:]
    )


def test_another_datasets_files_are_refused():
    with pytest.raises(EnsyncError, match="is the file of Fashion-MNIST"):
        read_idx(published("fashion-mnist"), "mnist")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            TRAIN_IMAGES,
            gzip.compress(idx_labels([1, 2])),
            "starts with 0x00000801, not with 0x00000803",
        ),
        (TRAIN_IMAGES, gzip.compress(b"\0\0\x08"), "is cut short"),
        (
            TRAIN_IMAGES,
            gzip.compress(idx_images(np.zeros((40, 5, 4), np.uint8))[:-1]),
            "is cut short",
        ),
        (
            TRAIN_IMAGES,
            gzip.compress(idx_images(np.zeros((40, 5, 4), np.uint8)))[:-4],
            "is cut short or damaged",
        ),
        (
            TRAIN_IMAGES,
            gzip.compress(idx_images(np.zeros((40, 5, 4), np.uint8)) + b"x"),
            "holds more than the 800 bytes",
        ),
        (TRAIN_IMAGES, b"not gzip at all", "is cut short or damaged"),
        (TRAIN_IMAGES, b"", "is cut short"),
        (
            TRAIN_IMAGES,
            gzip.compress(struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1)),
            "declares 4294967295 x",
        ),
        (
            TRAIN_IMAGES,
            gzip.compress(struct.pack(">4I", 0x803, 0, 28, 28)),
            "declares 0 x 28 x 28 bytes",
        ),
        (
            TRAIN_IMAGES,
            gzip.compress(idx_images(np.zeros((40, 6, 4), np.uint8))),
            "holds images of 5 x 4 pixels and the training file 6 x 4",
        ),
        (
            TRAIN_LABELS,
            gzip.compress(idx_labels([0] * 39)),
            "40 images and train-labels-idx1-ubyte.gz 39 labels",
        ),
        (TRAIN_LABELS, gzip.compress(idx_labels([0] * 39 + [10])), "gives image 39 the label 10"),
    ],
)
def test_each_damage_has_its_sentence(tmp_path, name, content, sentence):
    write_idx(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EnsyncError) as caught:
        read_idx(tmp_path, "mnist")
    assert sentence in str(caught.value) and "-ubyte" in str(caught.value)


def test_a_bomb_is_refused_before_it_goes_off(tmp_path, monkeypatch):
    write_idx(tmp_path)
    zeros = 50_000_000
    (tmp_path / TRAIN_IMAGES).write_bytes(
        gzip.compress(struct.pack(">4I", 0x803, zeros, 1, 1) + bytes(zeros))
    )
    monkeypatch.setattr(idx, "LARGEST", zeros - 1)
    with pytest.raises(EnsyncError, match="declares 50000000 x 1 x 1 bytes, which it cannot hold"):
        read_idx(tmp_path, "mnist")


def test_missing_files_and_directories_are_named(tmp_path):
    with pytest.raises(EnsyncError, match="does not exist"):
        read_idx(tmp_path / "nowhere", "mnist")
    with pytest.raises(EnsyncError, match="has no train-images-idx3-ubyte.gz"):
        read_idx(tmp_path, "mnist")
    write_idx(tmp_path)
    (tmp_path / TRAIN_IMAGES).unlink()
    (tmp_path / TRAIN_IMAGES).mkdir()
    with pytest.raises(EnsyncError, match="is a directory"):
        read_idx(tmp_path, "mnist")


def test_digits_are_scaled_to_the_full_range():
    from sklearn.datasets import load_digits

    source = read_digits()
    original = load_digits()
    assert source.images["train"].shape == (1797, 8, 8, 1) and list(source.images) == ["train"]
    assert np.array_equal(
        source.images["train"][..., 0], np.floor(original.images * 255 / 16 + 0.5)
    )
    assert np.array_equal(source.labels["train"], original.target)
    assert source.checksums["digits.csv.gz"].startswith("sha256:")
