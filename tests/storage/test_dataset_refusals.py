"""A dataset file that violates data/README.md is refused with the reason, whoever made it and
however large it says it is.
"""

import fcntl
import os

import h5py
import numpy as np
import pytest
from samples import pictures

from ensync.core.errors import EnsyncError
from ensync.storage.dataset import open_dataset
from ensync.storage.sources.source import Source
from ensync.storage.verification import check
from ensync.storage.writing import write_dataset


@pytest.fixture
def path(tmp_path):
    """A valid dataset: 40 images of 4 x 4."""
    images, labels = {"train": pictures(40, 4, 4, 1)}, {"train": np.arange(40) % 2}
    write_dataset(tmp_path / "a.h5", Source("s", images, labels, ["a", "b"], "x", "y"))
    open_dataset(tmp_path / "a.h5").close()
    return tmp_path / "a.h5"


def refused(path, sentence):
    """Check that opening raises the one sentence."""
    with pytest.raises(EnsyncError) as caught:
        open_dataset(path)
    text = str(caught.value)
    assert sentence in text and str(path) in text and "\n" not in text


def replace(name, **how):
    """Return a change that puts another dataset in place of one."""

    def change(file):
        del file[name]
        file.create_dataset(name, **how)

    return change


def link(name, target):
    """Return a change that puts a link in place of an object."""

    def change(file):
        del file[name]
        file[name] = target

    return change


def drop(name):
    """Return a change that removes an object."""
    return lambda file: file.__delitem__(name)


def attribute(name, value):
    """Return a change of an attribute; None removes it."""
    return lambda file: (
        file.attrs.__setitem__(name, value) if value is not None else file.attrs.__delitem__(name)
    )


def value(name, place, number):
    """Return a change of one value."""
    return lambda file: file[name].__setitem__(place, number)


def external(file):
    """Put the images into another file."""
    del file["images/train"]
    file.create_dataset("images/train", (28, 4, 4, 1), "u1", external=[("/etc/passwd", 0, 28 * 16)])


def virtual(file):
    """Put a view of another file in place of the images."""
    del file["images/train"]
    layout = h5py.VirtualLayout((28, 4, 4, 1), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (28, 4, 4, 1))
    file.create_virtual_dataset("images/train", layout)


def zeros(*shape):
    """Return zero bytes of a shape."""
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (drop("images"), "lacks 'images/train'"),
        (drop("images/validation"), "lacks 'images/validation'"),
        (drop("labels/test"), "lacks 'labels/test'"),
        (drop("mean"), "lacks 'mean'"),
        (drop("class_names"), "lacks 'class_names'"),
        (drop("fingerprint"), "lacks 'fingerprint'"),
        (attribute("format", None), "is an HDF5 file of another kind"),
        (attribute("format", np.bytes_(b"other")), "is an HDF5 file of another kind"),
        (
            attribute("format", "a text of variable length"),
            "has an attribute 'format' that is not a short text",
        ),
        (attribute("version", 2), "has version 2 of the format"),
        (attribute("version", None), "has no version"),
        (attribute("version", "1"), "has no version"),
        (attribute("licence", None), "lacks the attribute 'licence'"),
        (attribute("source", np.bytes_(b"\xff\xfe")), "is damaged (UnicodeDecodeError"),
        (attribute("name", np.bytes_(b"red \x1b[31m")), "with characters that cannot be printed"),
        (
            attribute("checksums", np.bytes_(b"[1]")),
            "has an attribute 'checksums' that is not a flat table",
        ),
        (
            attribute("notes", np.bytes_(b"[[1]]")),
            "has an attribute 'notes' that is not a flat list",
        ),
        (attribute("notes", np.bytes_(b"[")), "is damaged (JSONDecodeError"),
        (attribute("preparation", np.bytes_(b"{" * 5000)), "is damaged (JSONDecodeError"),
        (attribute("notes", np.bytes_(b"[" * 5000)), "is damaged (RecursionError"),
        (
            replace("images/train", data=np.zeros((28, 4, 4, 1), np.float32)),
            "has no 'images/train' of type u1 with 4 dimensions",
        ),
        (
            replace("images/train", data=zeros(28, 4, 4)),
            "has no 'images/train' of type u1 with 4 dimensions",
        ),
        (
            replace("images/train", data=zeros(27, 4, 4, 1)),
            "has train images of shape (27, 4, 4, 1) and labels of shape (29,)",
        ),
        (replace("images/test", data=zeros(8, 4, 5, 1)), "has test images of shape (8, 4, 5, 1)"),
        (replace("images/train", data=zeros(29, 4, 4, 2)), "has images of shape (4, 4, 2)"),
        (replace("images/train", data=zeros(0, 4, 4, 1)), "has no training images"),
        (
            replace("images/train", shape=(29, 4, 4, 1), dtype="u1", chunks=(1, 4, 4, 1)),
            "stores 'images/train' in pieces",
        ),
        (
            replace("images/train", data=zeros(29, 4, 4, 1), compression="gzip"),
            "stores 'images/train' in pieces, compressed",
        ),
        (
            replace("images/train", shape=(2**40, 4, 4, 1), dtype="u1"),
            "declares 'images/train' as 17592186044416 bytes",
        ),
        (
            replace("images/train", shape=(2**60, 4, 4, 1), dtype="u1", chunks=(64, 4, 4, 1)),
            "stores 'images/train' in pieces",
        ),
        (
            replace("labels/train", shape=(2**40,), dtype="i8"),
            "declares 'labels/train' as 8796093022208 bytes",
        ),
        (replace("labels/train", data=np.zeros(29, np.int32)), "has no 'labels/train' of type <i8"),
        (
            replace("mean", data=np.zeros(2, np.float32)),
            "has mean, std or fingerprint of the wrong length",
        ),
        (replace("mean", shape=(2**40,), dtype="f4"), "declares 'mean' as"),
        (value("std", 0, 0), "has a mean or std that is not a positive number"),
        (value("std", 0, np.nan), "has a mean or std that is not a positive number"),
        (value("mean", 0, np.inf), "has a mean or std that is not a positive number"),
        (value("labels/train", 3, 2), "gives row 3 of train the label 2, and has 2 classes"),
        (value("labels/validation", 0, -1), "gives row 0 of validation the label -1"),
        (value("fingerprint", slice(None), 0), "has no fingerprint"),
        (
            replace("class_names", data=np.array([b"a", b"a"])),
            "has class names that are empty, twice there",
        ),
        (replace("class_names", data=np.array([b"a"])), "has 1 class names"),
        (replace("class_names", data=np.array([b"a", b"\x1b[2J"])), "cannot be printed"),
        (
            replace("class_names", data=["a", "b"], dtype=h5py.string_dtype()),
            "lacks 'class_names', a list of texts of fixed length",
        ),
        (replace("class_names", shape=(2**40,), dtype="S8"), "declares 'class_names' as"),
        (
            link("images/train", h5py.SoftLink("/images/test")),
            "lacks 'images/train' or links it to another place",
        ),
        (
            link("images", h5py.ExternalLink("/etc/passwd", "/x")),
            "lacks 'images/train' or links it",
        ),
        (link("class_names", h5py.SoftLink("/mean")), "lacks 'class_names'"),
        (replace("images", data=zeros(3)), "lacks 'images/train'"),
        (external, "stores 'images/train' in pieces, compressed or in another file"),
        (virtual, "stores 'images/train' in pieces, compressed or in another file"),
    ],
)
def test_each_violation_has_its_sentence(path, change, sentence):
    with h5py.File(path, "r+") as file:
        change(file)
    refused(path, sentence)


def test_what_is_no_hdf5_file_is_told(tmp_path):
    path = tmp_path / "a.h5"
    refused(path, "does not exist")
    path.touch()
    refused(path, "is not an HDF5 file")
    path.write_bytes(os.urandom(10_000))
    refused(path, "is not an HDF5 file")
    refused(tmp_path, "is a directory")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is not a file")
    (tmp_path / "circle").symlink_to("circle")
    refused(tmp_path / "circle", "cannot be read because")
    with h5py.File(path, "w"):
        pass
    refused(path, "is an HDF5 file of another kind")


def test_every_length_is_too_short_but_the_whole(path):
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 97), len(whole) - 1}:
        path.write_bytes(whole[:length])
        refused(path, "is cut short" if length > 2000 else "is")
    path.write_bytes(whole)
    check(open_dataset(path))


def test_a_flipped_pixel_or_label_is_found_by_verify(path):
    for name, place, number in (("images/test", (3, 1, 1, 0), 77), ("labels/train", 0, 1)):
        with h5py.File(path, "r+") as file:
            before = file[name][place]
            file[name][place] = number if before != number else 0
        with (
            open_dataset(path) as dataset,
            pytest.raises(EnsyncError, match="is damaged: rows 0 to .* are not as written"),
        ):
            check(dataset)
        with h5py.File(path, "r+") as file:
            file[name][place] = before
    check(open_dataset(path))


def test_a_file_that_shrinks_while_it_is_read_is_told(path):
    with open_dataset(path) as dataset:
        os.truncate(path, 3000)
        with pytest.raises(EnsyncError, match="has become shorter while it was read"):
            check(dataset)


def test_a_file_that_is_replaced_while_it_is_read_stays_readable(path, tmp_path):
    with open_dataset(path) as dataset:
        before = dataset.read("train", 0, 10)
        images, labels = {"train": pictures(40, 4, 4, 1, seed=9)}, {"train": np.arange(40) % 2}
        assert write_dataset(path, Source("s", images, labels, ["a", "b"], "x", "y")).changed
        assert np.array_equal(dataset.read("train", 0, 10), before)


def test_a_lock_of_another_program_stops_no_reader(path):
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with open_dataset(path) as dataset:
            assert dataset.read("train", 0, 3).shape == (3, 16)
