"""Trees of class folders as users have them: what is left out is named, mistakes are refused."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image
from samples import pictures, prepare, write_pictures

from ensync.core.errors import EnsyncError
from ensync.storage.dataset import open_dataset
from ensync.storage.sources.images import read_images
from ensync.storage.sources.source import named_errors
from ensync.storage.sources.to_predict import read_pictures


def picture(path, seed=0):
    """Write a picture whose bytes follow from the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pictures(1, 9, 12, 3, seed)[0]).save(path, format="png")


def put(tree, directory):
    """Make the files of a tree: each a picture of its own, or what its name says."""
    for seed, name in enumerate(tree):
        path = directory / name.split(" ")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        elif " -> " in name:
            path.symlink_to(name.split(" -> ")[1])
        elif name.endswith((".txt", ".db", ".heic", "DS_Store", "annotation")):
            path.write_bytes(b"x")
        elif name.endswith(" (damaged)"):
            path.write_bytes(b"\x89PNG\r\n")
        else:
            picture(path, 1000 + seed)
    return directory


GOOD = ("a/1.png", "a/2.PNG", "b/1.JPG", "b/2.png")


@pytest.mark.parametrize(
    ("tree", "notes"),
    [
        (
            ["__MACOSX/a/._1.png", "@eaDir/x.png", "Thumbs.db", "a/Thumbs.db"],
            ["left out, made by the system: 4 (@eaDir; Thumbs.db; __MACOSX; a/Thumbs.db)"],
        ),
        (
            [".ipynb_checkpoints/a.png", "a/.DS_Store", "a/._1.png", ".git/x.txt"],
            ["left out, hidden: 4 (.git; .ipynb_checkpoints; a/.DS_Store; a/._1.png)"],
        ),
        (
            ["z.png", "labels.txt", "a/x.heic"],
            [
                "left out, beside the class folders: 1 (z.png)",
                "left out, no picture by its name: 2 (labels.txt; a/x.heic)",
            ],
        ),
        (
            ["a/more/1.png", "a/more/deep/2.png", "b/old/"],
            [
                "left out, a folder within a folder of pictures: 2 "
                "(a/more/ with 2 pictures; b/old/ with 0 pictures)"
            ],
        ),
        (
            ["b/é.png", "b/e\u0301.png", "b/x.png", "b/X.png"],
            [
                "names that differ only in capitals or Unicode form, both kept: 2 "
                r"(b/'X.png' and 'x.png'; b/'e\u0301.png' and '\xe9.png')"
            ],
        ),
        (["a/\x1b[31m.txt"], [r"left out, no picture by its name: 1 (a/\x1b[31m.txt)"]),
    ],
)
def test_what_is_left_out_is_counted_and_named(tmp_path, tree, notes):
    source = read_images(put([*GOOD, *tree], tmp_path), 8)
    assert source.class_names == ["a", "b"] and source.notes == notes
    assert source.preparation["left out"] == sum(
        int(note.split(": ")[1].split(" ")[0]) for note in notes if note.startswith("left out")
    )
    assert len(source.labels["train"]) == 4 + (4 if "both kept" in notes[0] else 0)


@pytest.mark.parametrize(
    ("tree", "sentence"),
    [
        (
            ["photos/a/1.png", "photos/b/1.png"],
            r"/photos has no pictures but folders \(a; b\); .*give --from .*/photos",
        ),
        (["1.png", "2.png"], r"has no folders but 2 pictures \(such as 1.png\)"),
        (
            [*GOOD, "c/"],
            "the class folder .*/c has no pictures; .*move the folder away if it is no class",
        ),
        (
            [*GOOD, "c/1.heic", "c/notes.txt"],
            r"/c has no pictures but 2 other files \(1.heic; notes.txt\)",
        ),
        (["a/1.png", "a/2.png"], "has one class folder only, 'a'"),
        (
            [*GOOD, "train/1.png"],
            "has 'a'; 'b' beside train; .*a class cannot be called like a split",
        ),
        ([*GOOD, "test/a/1.png"], "has test/ beside a; b and no train/"),
        (["Val/a/1.png", "Test/a/1.png"], "has Val/ and no train/"),
        (["train/a/1.png", "Train/a/1.png"], "has Train/ and train/, both for train"),
        (
            ["train/a/1.png", "train/b/1.png", "VAL/c/1.png"],
            "VAL has 'c', which the training pictures lack",
        ),
        (
            ["train/a/1.png", "train/b/1.png", "test/c/"],
            "test has 'c', which the training pictures lack",
        ),
        (
            ["train/a/1.png", "train/B/1.png", "test/b/1.png"],
            r"test has 'b' \(that is 'b', and train has 'B'\), which",
        ),
        (
            [*GOOD, "é/1.png", "e\u0301/1.png"],
            r"has the folders 'e\\u0301' and '\\xe9', which look alike",
        ),
        ([*GOOD, "A/1.png"], "has the folders 'A' and 'a', which look alike"),
        ([*GOOD, "c -> nowhere"], "has links to nothing: c; "),
        (
            [*GOOD, "b/3.png -> ../annex/3.png"],
            r"1 of 5 pictures are bad: b/3.png links to nothing: was its data fetched\?",
        ),
        ([*GOOD, "b/3.png -> 3.png"], "1 of 5 pictures are bad: b/3.png links to nothing"),
        ([*GOOD, "c/1.png (damaged)"], "1 of 5 pictures are bad: c/1.png"),
    ],
)
def test_likely_mistakes_are_refused(tmp_path, tree, sentence):
    with pytest.raises(EnsyncError, match=sentence):
        read_images(put(tree, tmp_path), 8)


def test_a_class_of_which_nothing_can_be_read_is_refused_when_bad_pictures_are_skipped(tmp_path):
    put([*GOOD, "a/3.png (damaged)"], tmp_path)
    assert read_images(tmp_path, 8, bad_rows="skip").preparation["left out"] == 1
    put(["c/1.png (damaged)", "c/2.png -> nowhere"], tmp_path)
    with pytest.raises(EnsyncError, match="no training picture can be read of 'c'"):
        read_images(tmp_path, 8, bad_rows="skip")


@pytest.mark.parametrize(
    "names",
    [("train", "val", "test"), ("TRAIN", "Valid", "Testing"), ("Training", "validation", "TEST")],
)
def test_splits_are_known_in_any_capitalisation(tmp_path, names):
    train, validation, test = names
    tree = [f"{train}/a/{n}.png" for n in range(4)] + [
        f"{train}/b/1.png",
        f"{validation}/b/1.png",
        f"{test}/a/1.png",
        f"{test}/b/",
        "x.png",
    ]
    done = prepare("images", tmp_path / "d.h5", put(tree, tmp_path / "in"), size=8)
    assert done.notes == (
        "left out, beside the class folders: 1 (x.png)",
        f"classes of train without a folder in another split: 1 ({validation}/a/)",
        f"left out, a class folder without pictures: 1 ({test}/b/)",
    )
    with open_dataset(done.path) as dataset:
        assert dataset.sizes == {"train": 5, "validation": 1, "test": 1}
        assert (
            dataset.labels("validation").tolist() == [1]
            and dataset.preparation["validation"] == "as given"
        )


def test_a_validation_directory_may_lie_beside_or_among_the_splits(tmp_path):
    place = put(
        ["train/a/1.png", "train/b/1.png", "dev/a/1.png", "dev/b/2.png", "test/a/1.png"], tmp_path
    )
    source = read_images(place, 8, validation=place / "dev")
    assert source.labels["validation"].tolist() == [0, 1] and source.labels["test"].tolist() == [0]
    assert read_images(place / "train", 8, validation=place / "dev").labels["train"].tolist() == [
        0,
        1,
    ]
    put(["val/a/1.png"], place)
    with pytest.raises(
        EnsyncError, match="--validation-from .*dev with .*val; expected one of them"
    ):
        read_images(place, 8, validation=place / "dev")
    shutil.rmtree(place / "dev")
    assert read_images(place, 8, validation=place / "val").labels["validation"].tolist() == [0]
    with pytest.raises(EnsyncError, match="nowhere does not exist"):
        read_images(place, 8, validation=place / "nowhere")


def test_a_class_folder_that_is_a_link_is_followed_and_told(tmp_path):
    put(GOOD, tmp_path / "in")
    picture(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "in" / "c").symlink_to(tmp_path / "elsewhere")
    source = read_images(tmp_path / "in", 8)
    assert source.class_names == ["a", "b", "c"] and source.notes == [
        f"class folders that are links, followed: 1 (c to {tmp_path}/elsewhere)"
    ]


def test_the_order_of_the_file_system_changes_nothing(tmp_path, monkeypatch):
    put(
        ["train/" + name for name in (*GOOD, "b/x.txt", "a/.x", "a/.y")]
        + ["test/b/1.png", "z.txt", "y.txt"],
        tmp_path,
    )
    first, scan = read_images(tmp_path, 8), os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda path: sorted(scan(path), key=lambda entry: entry.name, reverse=True)
    )
    second = read_images(tmp_path, 8)
    assert (
        first.notes == second.notes
        and first.checksums == second.checksums
        and first.names == second.names
    )
    assert read_pictures([tmp_path / "train" / "a"], (8, 8, 3), {}).names == [
        str(tmp_path / "train" / "a" / name) for name in ("1.png", "2.PNG")
    ]


def test_copies_are_told_within_a_split_and_between_splits(tmp_path):
    put(["train/" + name for name in GOOD] + ["test/a/1.png", "test/b/9.png"], tmp_path / "in")
    shutil.copy(tmp_path / "in/train/a/1.png", tmp_path / "in/test/b/leak.png")
    shutil.copy(tmp_path / "in/train/a/1.png", tmp_path / "in/train/a/3.png")
    shutil.copy(tmp_path / "in/train/b/2.png", tmp_path / "in/train/a/4.png")
    done = prepare("images", tmp_path / "d.h5", tmp_path / "in", size=8, validation=0)
    assert done.notes == (
        "copies of another picture of their class, kept: 1 (train/a/3.png of train/a/1.png)",
        "copies of a picture of another class, kept: 1 (train/b/2.png of train/a/4.png)",
        *[
            note
            for note in done.notes
            if note.startswith(
                "test images that are training images, too: 1 (test/b/leak.png is train/a/"
            )
        ],
    )
    assert len(done.notes) == 3


def test_a_cut_that_parts_copies_is_told(tmp_path):
    put([f"{label}/{n}.png" for label in "ab" for n in range(5)], tmp_path / "in")
    for label in "ab":
        for n in range(5):
            shutil.copy(tmp_path / f"in/{label}/{n}.png", tmp_path / f"in/{label}/copy{n}.png")
    done = prepare("images", tmp_path / "d.h5", tmp_path / "in", size=8, validation=0)
    with open_dataset(done.path) as dataset:
        train, test = (dataset.read(split, 0, dataset.sizes[split]) for split in ("train", "test"))
    leaked = sum((train == row).all(axis=1).any() for row in test)
    assert leaked and done.notes[-1].startswith(
        f"test images that are training images, too: {leaked} ("
    )


def test_predict_names_what_it_leaves_out_and_what_it_cannot_read(tmp_path, monkeypatch):
    put(["1.png", "2.png", "x.txt", ".hidden.png", "sub/3.png"], tmp_path)
    monkeypatch.chdir(tmp_path)
    found = read_pictures(["."], (8, 8, 3), {})
    assert found.names == ["1.png", "2.png"] and len(found.pixels) == 2
    assert found.notes == [
        "left out, hidden: 1 (./.hidden.png)",
        "left out, a folder within a folder of pictures: 1 (./sub/ with 1 picture)",
        "left out, no picture by its name: 1 (./x.txt)",
    ]
    (tmp_path / "broken.png").write_bytes(b"x")
    with pytest.raises(EnsyncError, match="^1 of 1 pictures are bad: broken.png cannot"):
        read_pictures(["broken.png"], (8, 8, 3), {})
    (tmp_path / "empty").mkdir()
    with pytest.raises(EnsyncError, match="empty has no pictures"):
        read_pictures(["empty"], (8, 8, 3), {})
    (tmp_path / "empty" / "cats").mkdir()
    with pytest.raises(EnsyncError, match=r"empty has no pictures but folders \(cats\)"):
        read_pictures(["empty"], (8, 8, 3), {})
    (tmp_path / "gone.png").symlink_to("nowhere")
    with pytest.raises(EnsyncError, match="gone.png links to nothing"):
        read_pictures(["gone.png"], (8, 8, 3), {})


def test_a_path_through_a_file_or_in_another_unicode_form_is_told_so(tmp_path):
    (tmp_path / "file.png").write_bytes(b"x")
    with pytest.raises(EnsyncError, match=r"file.png is a file; expected a directory"):
        read_images(tmp_path / "file.png", 8)
    with (
        pytest.raises(EnsyncError, match=r"file.png/x cannot be read because .*file.png is a file"),
        named_errors(tmp_path / "file.png" / "x"),
    ):
        os.stat(tmp_path / "file.png" / "x")
    (tmp_path / unicodedata.normalize("NFD", "Café")).mkdir()
    with pytest.raises(EnsyncError, match=r"Café does not exist, but 'Cafe\\u0301' is there"):
        read_images(tmp_path / unicodedata.normalize("NFC", "Café"), 8)
    (tmp_path / "Digits.h5").touch()
    with pytest.raises(EnsyncError, match="digits.h5 does not exist, but 'Digits.h5' is there"):
        open_dataset(tmp_path / "digits.h5")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(EnsyncError, match=r"link links to nothing \(was its data fetched\?\)"):
        read_images(tmp_path / "link", 8)


def test_long_names_leave_room_for_all_notes(tmp_path):
    names = [
        character * 80 for character in "\u4e2d\u6587\u5b57\u5f62\u97f3\u7fa9"
    ]  # 240 bytes each
    tree = [
        f"{label}{name[1:]}/{kind}"
        for label in "\u7532\u4e59"
        for name in names[:1]
        for name in names
        for kind in (f"{name}.png", f".{name}", f"{name}.txt", f"{name}/x.png")
    ]
    done = prepare("images", tmp_path / "d.h5", put(tree, tmp_path / "in"), size=8)
    with open_dataset(done.path) as dataset:
        assert dataset.layout.tables["notes"] == list(done.notes) and len(done.notes) == 3


def test_class_numbers_follow_the_sorted_names(tmp_path):
    write_pictures(tmp_path, ("10", "9", "b", "Zoo"), 2)
    source = read_images(tmp_path, 8)
    assert (
        source.class_names == ["10", "9", "Zoo", "b"]
        and np.bincount(source.labels["train"]).tolist() == [2] * 4
    )
