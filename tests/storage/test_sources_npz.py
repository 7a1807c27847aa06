"""NumPy archives come in to the value, in the names and shapes that people use; what is doubtful is
refused with the names of the arrays.
"""

import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy
from samples import pictures, prepare

from ensync.core.errors import EnsyncError
from ensync.storage.dataset import open_dataset
from ensync.storage.sources.npz import read_npz

IMAGES, LABELS = pictures(30, 6, 5, 3), np.arange(30) % 3
GREY = IMAGES[..., 0]


def read(path, values=None, save=np.savez, **arrays):
    """Read an archive of these arrays."""
    save(path / "a.npz", **arrays)
    return read_npz(path / "a.npz", values)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_keras_names_come_in_to_the_value(tmp_path, save):
    source = read(
        tmp_path, None, save, x_train=GREY, y_train=LABELS, x_test=GREY[:9], y_test=LABELS[:9]
    )
    assert source.images["train"].dtype == np.uint8 and source.images["train"].shape[1:] == (
        6,
        5,
        1,
    )
    assert np.array_equal(source.images["train"][..., 0], GREY)
    assert source.labels["test"].tolist() == LABELS[:9].tolist() and source.notes == []
    assert source.class_names == ["0", "1", "2"] and source.preparation["colour"] == "grey"


def test_medmnist_names_give_three_splits_in_one_file(tmp_path):
    sizes = {"train": 30, "val": 6, "test": 9}
    arrays = {f"{split}_images": IMAGES[:size] for split, size in sizes.items()}
    arrays |= {f"{split}_labels": LABELS[:size, None] for split, size in sizes.items()}
    np.savez(tmp_path / "pathmnist.npz", **arrays)
    with open_dataset(prepare("npz", tmp_path / "d.h5", tmp_path).path) as dataset:
        assert dataset.sizes == {"train": 30, "validation": 6, "test": 9}
        assert dataset.shape == (6, 5, 3) and dataset.preparation["validation"] == "as given"
        assert np.array_equal(dataset.rows("test", np.arange(9)).reshape(9, 6, 5, 3), IMAGES[:9])


@pytest.mark.parametrize(
    "names",
    [
        ("X", "y"),
        ("images", "labels"),
        ("train_x", "train_y"),
        ("data", "target"),
        ("x-train", "Y"),
        ("Xtrain", "trainY"),
        ("trainImages", "labels_tr"),
        ("inputs", "class"),
    ],
)
def test_one_split_under_its_usual_names(tmp_path, names):
    source = read(tmp_path, **dict(zip(names, (IMAGES, LABELS), strict=True)))
    assert list(source.images) == ["train"] and np.array_equal(source.images["train"], IMAGES)


# name: (images, their values, what comes in)
SHAPES = {
    "channels first": (IMAGES.transpose(0, 3, 1, 2), None, IMAGES),
    "one channel first": (GREY[:, None], None, GREY[..., None]),
    "Fortran order": (np.asfortranarray(IMAGES), None, IMAGES),
    "int64": (IMAGES.astype(np.int64), None, IMAGES),
    "big-endian": (IMAGES.astype(">u2"), None, IMAGES),
    "rows of pixels": (GREY[:, :5].reshape(30, 25), None, GREY[:, :5, :, None]),
    "shares": (IMAGES / 255, (0.0, 1.0), IMAGES),
    "float32 about 0": (IMAGES.astype(np.float32) / 127.5 - 1, (-1.0, 1.0), IMAGES),
    "12 bits": (IMAGES.astype(np.uint16) * 16, (0.0, 4080.0), IMAGES),
    "few grey values": (GREY // 16, (0.0, 15.0), (GREY // 16 * 17)[..., None]),
}


@pytest.mark.parametrize("way", SHAPES)
def test_each_shape_and_type_comes_in_to_the_value(tmp_path, way):
    images, values, expected = SHAPES[way]
    source = read(tmp_path, values, x_train=images, y_train=LABELS)
    assert np.array_equal(source.images["train"], expected)
    assert source.images["train"].flags.c_contiguous
    first = ["x_train has its channels first, and is stored with them last"]
    assert source.notes == first * ("first" in way)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS[:, None],
        LABELS.astype(np.uint8),
        LABELS.astype(np.float64),
        np.eye(3)[LABELS],
        np.eye(3, dtype=bool)[LABELS],
    ],
)
def test_labels_of_each_kind(tmp_path, labels):
    source = read(tmp_path, X=IMAGES, y=labels)
    assert source.labels["train"].dtype == np.int64
    assert np.array_equal(source.labels["train"], LABELS)


@pytest.mark.parametrize("kind", ["U", "S"])
def test_words_are_class_names(tmp_path, kind):
    source = read(tmp_path, X=IMAGES, y=np.array(["wolf", "cat", "dog"]).astype(kind)[LABELS])
    assert source.class_names == ["cat", "dog", "wolf"]
    assert source.labels["train"][:3].tolist() == [2, 0, 1]


def test_what_is_left_out_or_cut_off_is_noted(tmp_path):
    source = read(tmp_path, (0.0, 200.0), X=GREY, y=LABELS, ids=LABELS, mean=np.float64(3))
    assert source.notes == [
        "2 other arrays left out: ids; mean",
        f"{np.count_nonzero(GREY > 200)} values of X outside 0 to 200, cut off",
    ]


ONE_HOT = np.eye(3)[LABELS]
ONE_HOT[4, 0] = 1
OBJECTS = np.array([{"a": 1}] * 30, dtype=object)
# name: (arrays, parts of the sentence)
REFUSED = {
    "unknown names": (
        {"a": IMAGES, "b": LABELS},
        ["has the arrays a; b, of which none is named as train images", "x_train and y_train"],
    ),
    "no arrays": ({}, ["has the arrays none, of which none"]),
    "no labels": ({"x_train": IMAGES}, ["the arrays x_train, of which none", "train labels"]),
    "test without labels": (
        {"X": IMAGES, "y": LABELS, "x_test": IMAGES},
        ["the arrays X; y; x_test, of which none is named as test labels"],
    ),
    "twice": (
        {"X": IMAGES, "y": LABELS, "train_images": IMAGES},
        ["X and train_images are both train images"],
    ),
    "lengths": ({"X": IMAGES, "y": LABELS[1:]}, ["X has 30 rows and y 29"]),
    "shapes": (
        {"X": IMAGES, "y": LABELS, "x_test": IMAGES[:, 1:], "y_test": LABELS},
        ["x_test has images of 5 x 5 x 3 and X of 6 x 5 x 3"],
    ),
    "shares": (
        {"X": IMAGES / 255, "y": LABELS},
        ["X is float64 with values from 0 to 1;", "--range 0,1"],
    ),
    "whole floats": ({"X": IMAGES * 1.0, "y": LABELS}, ["X is float64", "--range 0,255"]),
    "dark": ({"X": GREY // 16, "y": LABELS}, ["X is uint8 with values from 0 to 15", "0,255"]),
    "16 bits": ({"X": GREY * np.uint16(16), "y": LABELS}, ["to 4080", "--range 0,4095"]),
    "below 0": ({"X": GREY.astype(int) - 9, "y": LABELS}, ["with values from -9 to"]),
    "not finite": ({"X": np.where(GREY > 9, np.nan, GREY), "y": LABELS}, ["not finite"]),
    "four channels": (
        {"X": np.zeros((30, 4, 4, 4), np.uint8), "y": LABELS},
        ["X has the shape (30, 4, 4, 4)"],
    ),
    "no square": ({"X": GREY.reshape(30, 30), "y": LABELS}, ["X has the shape (30, 30)"]),
    "complex": ({"X": GREY * 1j, "y": LABELS}, ["X has values of type complex128"]),
    "empty": ({"X": IMAGES[:0], "y": LABELS[:0]}, ["X has no values"]),
    "two classes in a row": ({"X": IMAGES, "y": ONE_HOT}, ["row 4 of y (30, 3) is not one-hot"]),
    "labels of three axes": ({"X": IMAGES, "y": IMAGES}, ["y is uint8 of the shape (30, 6, 5, 3)"]),
    "half labels": ({"X": IMAGES, "y": LABELS / 2}, ["y has the label 0.5"]),
    "labels without end": ({"X": IMAGES, "y": LABELS + 1e300}, ["y has the label 1e+300"]),
    "an empty word": ({"X": IMAGES, "y": np.array(["", "b", "c"])[LABELS]}, ["class name ''"]),
    "words and numbers": (
        {"X": IMAGES, "y": LABELS, "x_test": IMAGES, "y_test": LABELS.astype(str)},
        ["one of y_test and y holds words"],
    ),
    "objects for images": ({"X": OBJECTS, "y": LABELS}, ["holds X as Python objects"]),
    "objects for labels": ({"X": IMAGES, "y": OBJECTS}, ["holds y as Python objects"]),
}


@pytest.mark.parametrize("way", REFUSED)
def test_what_is_wrong_or_doubtful_is_refused_by_name(tmp_path, way):
    arrays, parts = REFUSED[way]
    with pytest.raises(EnsyncError) as caught:
        read(tmp_path, **arrays)
    for part in ["a.npz", *parts]:
        assert part in str(caught.value)


def test_damaged_files_are_refused(tmp_path):
    read(tmp_path, X=IMAGES, y=LABELS)
    whole = (tmp_path / "a.npz").read_bytes()
    for data in (whole[:-100], whole[:50], b"", b"PK", whole.replace(b"NUMPY", b"DUMPY")):
        (tmp_path / "a.npz").write_bytes(data)
        with pytest.raises(EnsyncError, match="a.npz is cut short or damaged"):
            read_npz(tmp_path / "a.npz")


def test_an_array_that_declares_more_than_the_file_holds_takes_no_memory(tmp_path):
    header = {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 6, 5)}
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("X", "y"):
            with archive.open(f"{name}.npy", "w") as file:
                npy.write_array_header_1_0(file, header)
    with pytest.raises(EnsyncError, match="declares 32,985,348,833,280 bytes for X,"):
        read_npz(tmp_path / "a.npz")


def test_a_directory_holds_one_archive(tmp_path):
    with pytest.raises(EnsyncError, match=r"has no \.npz file"):
        read_npz(tmp_path)
    read(tmp_path, X=IMAGES, y=LABELS)
    assert read_npz(tmp_path).class_names == ["0", "1", "2"]
    (tmp_path / "b.npz").write_bytes(b"")
    with pytest.raises(EnsyncError, match=r"has 2 \.npz files \(a\.npz; b\.npz\)"):
        read_npz(tmp_path)
    with pytest.raises(EnsyncError, match="does not exist"):
        read_npz(tmp_path / "c.npz")
