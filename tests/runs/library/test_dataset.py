"""Arrays become the very file that `ensync data prepare npz` makes of them, and come back."""

import numpy as np
import pytest
from samples import pictures, prepare

import ensync
from ensync.core.errors import EnsyncError
from ensync.storage.dataset import open_dataset

IMAGES, LABELS = pictures(60, 6, 5, 3), np.arange(60) % 3
GREY = IMAGES[..., 0]


def arrays_of(path):
    """Return all that a dataset's fingerprint and digests cover."""
    with open_dataset(path) as found:
        digests = {split: array.tolist() for split, array in found.digests.items()}
        return found.fingerprint, digests, found.mean.tolist(), found.std.tolist()


@pytest.mark.parametrize(
    "arrays, options",
    [
        ({"X": IMAGES, "y": LABELS}, {}),
        ({"X": GREY, "y": np.array(["cat", "dog", "ant"])[LABELS]}, {"seed": 3}),
        ({"X": GREY, "y": LABELS, "x_test": GREY[:9], "y_test": LABELS[:9]}, {"validation": 0.2}),
        (
            {"X": GREY / 255, "y": LABELS, "x_val": GREY[:6] / 255, "y_val": LABELS[:6]},
            {"values": (0, 1)},
        ),
    ],
    ids=["numbers", "words", "test", "validation"],
)
def test_arrays_are_written_as_an_archive_of_them_is_prepared(tmp_path, arrays, options):
    np.savez(tmp_path / "a.npz", **arrays)
    others = {"values": "0,1"} if "values" in options else {}
    prepared = prepare("npz", tmp_path / "a.h5", tmp_path / "a.npz", **options | others)
    given = {
        split: (arrays[f"x_{short}"], arrays[f"y_{short}"])
        for split, short in (("validation", "val"), ("test", "test"))
        if f"x_{short}" in arrays
    }
    written = ensync.Dataset.write(
        tmp_path / "b.h5", arrays["X"].tolist(), arrays["y"], **options, **given
    )
    assert written.fingerprint == prepared.fingerprint
    assert arrays_of(tmp_path / "b.h5") == arrays_of(tmp_path / "a.h5")


def cut(images, labels, size):
    """Yield batches of so many rows; the last may have fewer."""
    for first in range(0, len(images), size):
        yield images[first : first + size], labels[first : first + size]


WORDS = np.array(["cat", "dog", "zebra"])[LABELS]
BATCHES = {  # (arrays, batches of them, options)
    "a generator": ((IMAGES, LABELS), cut(IMAGES, LABELS, 7), {}),
    "one batch": ((GREY, LABELS), [(GREY, LABELS)], {"seed": 3}),
    "single pairs": ((IMAGES, WORDS), list(zip(IMAGES, WORDS, strict=True)), {}),
    "words of other lengths": ((GREY, WORDS), cut(GREY, WORDS, 1), {"validation": 0}),
    "values": ((GREY / 255, LABELS), cut(GREY / 255, LABELS, 11), {"values": (0, 1)}),
    "channels first": (
        (IMAGES.transpose(0, 3, 1, 2), LABELS),
        cut(IMAGES.transpose(0, 3, 1, 2), np.eye(3)[LABELS], 9),
        {},
    ),
    "a dark batch": (
        (np.sort(GREY, axis=0), LABELS),
        cut(np.sort(GREY, axis=0), LABELS, 2),
        {"class_names": ["x", "y", "z"]},
    ),
}


@pytest.mark.parametrize("way", BATCHES)
def test_batches_are_written_as_the_arrays_that_they_are_cut_from(tmp_path, way):
    arrays, batches, options = BATCHES[way]
    whole = ensync.Dataset.write(tmp_path / "a.h5", *arrays, **options)
    written = ensync.Dataset.write(tmp_path / "d" / "b.h5", batches, **options)
    assert arrays_of(tmp_path / "d" / "b.h5") == arrays_of(tmp_path / "a.h5")
    assert written.describe().partition("\n")[2] == whole.describe().partition("\n")[2]
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["b.h5"]


def test_every_split_may_come_in_batches(tmp_path):
    pair = (IMAGES[:9], LABELS[:9])
    ensync.Dataset.write(tmp_path / "a.h5", IMAGES, LABELS, test=pair, validation=pair)
    parts = {"test": cut(*pair, 4), "validation": [pair]}
    ensync.Dataset.write(tmp_path / "b.h5", cut(IMAGES, LABELS, 50), **parts)
    assert arrays_of(tmp_path / "a.h5") == arrays_of(tmp_path / "b.h5")


def failing():
    yield IMAGES[:5], LABELS[:5]
    raise RuntimeError("mine")


WRONG_BATCHES = [
    (iter(()), EnsyncError, "the images have no batch"),
    (GREY, EnsyncError, "images of type ndarray without labels"),
    ([IMAGES], EnsyncError, "batch 1 is ndarray; expected pairs"),
    ([(IMAGES, LABELS[:3])], EnsyncError, "batch 1 has 60 images and 3 labels"),
    ([(IMAGES, LABELS), (IMAGES[:, 1:], LABELS)], EnsyncError, "batch 2 has images of 5 x 5 x 3"),
    ([(IMAGES, LABELS), (GREY, WORDS)], EnsyncError, "batch 2 has images of 6 x 5 x 1"),
    ([(GREY, LABELS), (GREY, WORDS)], EnsyncError, "one of batch 2 and the first has words"),
    ([(GREY, LABELS), (GREY / 255, LABELS)], EnsyncError, "images of batch 2 is float64"),
    ([(GREY // 16, LABELS)] * 2, EnsyncError, "images is uint8 with values from 0 to 15"),
    ([([[1, 2], [3]], LABELS)], EnsyncError, "batch 1 cannot be made an array"),
    (failing(), RuntimeError, "mine"),
]


@pytest.mark.parametrize("batches, error, sentence", WRONG_BATCHES)
def test_a_wrong_batch_is_told_by_its_number(tmp_path, batches, error, sentence):
    with pytest.raises(error, match=sentence):
        ensync.Dataset.write(tmp_path / "d.h5", batches)
    assert not list(tmp_path.iterdir())


def test_images_and_labels_come_back(tmp_path):
    path = tmp_path / "d.h5"
    dataset = ensync.Dataset.write(path, GREY, LABELS, test=(GREY[:9], LABELS[:9]), validation=0)
    assert (dataset.shape, dataset.sizes) == ((6, 5, 1), {"train": 60, "validation": 0, "test": 9})
    assert np.array_equal(dataset.images("test")[..., 0], GREY[:9])
    assert dataset.labels("test").tolist() == LABELS[:9].tolist()
    assert np.array_equal(np.sort(dataset.images().ravel()), np.sort(GREY.ravel()))
    assert dataset.images("validation").shape == (0, 6, 5, 1)
    with ensync.Dataset(path) as again:
        assert repr(again) == repr(dataset) and "60 train" in repr(again)


def test_a_notebook_shows_it_with_names_that_are_no_markup(tmp_path):
    dataset = ensync.Dataset.write(tmp_path / "d.h5", GREY, LABELS, class_names=["<b>", "y", "z"])
    shown = dataset._repr_html_()
    assert shown.startswith("<pre>") and "&lt;b&gt;" in shown and "<b>" not in shown


@pytest.mark.parametrize("labels", [LABELS, np.array(["x", "y", "z"])[LABELS]])
def test_class_names_are_those_of_the_labels_in_their_order(tmp_path, labels):
    dataset = ensync.Dataset.write(
        tmp_path / "d.h5",
        GREY,
        labels,
        class_names=["x", "y", "z", "never"],
        test=(GREY[:9], labels[:9]),
    )
    assert dataset.class_names == ["x", "y", "z", "never"]
    assert dataset.labels("test").tolist() == LABELS[:9].tolist()


MISTAKES = [
    ((GREY, LABELS[:9]), {}, "images has 60 rows and labels 9"),
    ((GREY / 255, LABELS), {}, r"say which with values=\(BLACK, WHITE\), such as values=\(0, 1\)"),
    ((GREY, LABELS), {"class_names": ["a", "b"]}, "the label 2, and there are 2 class names"),
    ((GREY, LABELS), {"class_names": ["a", "a"]}, "names or more, each another"),
    ((GREY, LABELS), {"validaton": 0.1}, "did you mean 'validation'"),
    ((GREY, LABELS), {"validation": 1.5}, "a share from 0 to 0.9"),
    ((GREY, LABELS), {"test": (GREY[:9], LABELS[:9] + 7)}, "classes that the training images lack"),
    ((GREY, LABELS), {"seed": -1}, "a whole number of at least 0"),
    ((GREY, LABELS), {"values": (3, 3)}, "a pair"),
    (([[1, 2], [3]], LABELS), {}, "images cannot be made an array"),
]


@pytest.mark.parametrize("arrays, options, sentence", MISTAKES)
def test_a_mistake_is_told_in_a_sentence_and_nothing_is_written(
    tmp_path, arrays, options, sentence
):
    with pytest.raises(EnsyncError, match=sentence):
        ensync.Dataset.write(tmp_path / "d.h5", *arrays, **options)
    assert not list(tmp_path.iterdir())


def test_what_is_no_dataset_is_neither_opened_nor_replaced(tmp_path):
    (tmp_path / "d.h5").write_text("notes")
    with pytest.raises(EnsyncError, match="is not an HDF5 file"):
        ensync.Dataset(tmp_path / "d.h5")
    with pytest.raises(EnsyncError, match="is no dataset that could be replaced"):
        ensync.Dataset.write(tmp_path / "d.h5", GREY, LABELS)
    with pytest.raises(EnsyncError, match="'tset'"):
        ensync.Dataset.write(tmp_path / "e.h5", GREY, LABELS).images("tset")
