"""Archives give the datasets that the same pictures give in folders; what is damaged is refused by
member and offset; nothing is written but the dataset.
"""

import gzip
import json
import os

import numpy as np
import pytest
from samples import folder_members, prepare, tar, write_pictures

from ensync.core.errors import EnsyncError
from ensync.storage.dataset import open_dataset
from ensync.storage.request import BYTES
from ensync.storage.sources.checking import Asked
from ensync.storage.sources.images import read_images
from ensync.storage.sources.streams import archive
from ensync.storage.sources.streams.samples import Choice
from ensync.storage.sources.streams.tar import read_tar

ASKED = Asked(8)
BROKEN = b"\x89PNG no"


@pytest.fixture
def pets(tmp_path):
    """The (path, bytes) of pictures of three classes in folders, which are there, too."""
    write_pictures(tmp_path / "pets", ("cat", "dog", "owl"), 6)
    return folder_members(tmp_path / "pets")


def same(path, expected):
    """Check that two datasets hold the same images, labels and names in the same order."""
    with open_dataset(path) as found, open_dataset(expected) as wanted:
        assert found.fingerprint == wanted.fingerprint
        for split, rows in wanted.sizes.items():
            every = np.arange(rows)
            assert np.array_equal(found.rows(split, every), wanted.rows(split, every))
            assert np.array_equal(found.labels(split), wanted.labels(split))


def by_class(members):
    """Return the tar of a tar of each class."""
    inner = {}
    for path, data in members:
        label, name = path.split("/")
        inner.setdefault(label, []).append((name, data))
    return tar([(f"{label}.tar", tar(of)) for label, of in inner.items()])


def samples(members, label):
    """Return the members of samples, with what `label` says of a class."""
    found = []
    for number, (path, data) in enumerate(members):
        name = f"{number:04}"
        found += [(f"{name}.PNG", data), *((f"{name}.{e}", text) for e, text in label(path[:3]))]
    return found


def in_json(label):
    """Return the member that says of what class a sample is."""
    return [("json", json.dumps({"label": label}).encode())]


# how the pictures are packed: {name of the file: its bytes}
WAYS = {
    "folders": lambda m: {"a.tar": tar(m)},
    "in another order": lambda m: {"a.tar": tar([("dog/", b""), *m[::-1]])},
    "within a folder": lambda m: {"a.tar": tar([(f"./photos/all/{p}", d) for p, d in m])},
    "compressed": lambda m: {"a.tgz": gzip.compress(tar(m), 1)},
    "shards of folders": lambda m: {"a-0.tar": tar(m[::2]), "a-1.tar": tar(m[1::2])},
    "a tar of each class": lambda m: {"ILSVRC2012_img_train.tar": by_class(m)},
    "named as a split": lambda m: {"train.tar": tar([(f"train/{p}", d) for p, d in m])},
    "samples with .cls": lambda m: {
        "a.tar": tar(samples(m, lambda label: [("cls", f"{label}\n".encode()), ("txt", b"")]))
    },
    "samples with .json": lambda m: {
        f"x-{n}.tar": tar(samples(m[9 * n : 9 * n + 9], in_json)) for n in range(2)
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_dataset_as_from_folders(tmp_path, pets, way):
    prepare("images", tmp_path / "a.h5", tmp_path / "pets", size=8)
    files = WAYS[way](pets)
    (tmp_path / "packed").mkdir()
    for name, data in files.items():
        (tmp_path / "packed" / name).write_bytes(data)
    given = tmp_path / "packed" / (next(iter(files)) if len(files) == 1 else "")
    prepare("tar", tmp_path / "b.h5", given, size=8)
    same(tmp_path / "b.h5", tmp_path / "a.h5")
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "b.h5", "packed", "pets"]


@pytest.mark.parametrize("apart", [False, True])
def test_splits_are_folders_or_files(tmp_path, apart):
    for split, rows in (("train", 5), ("val", 2), ("test", 3)):
        write_pictures(tmp_path / "p" / split, ("cat", "dog"), rows)
    prepare("images", tmp_path / "a.h5", tmp_path / "p", size=8)
    (tmp_path / "t").mkdir()
    if apart:
        for split in ("train", "val", "test"):
            (tmp_path / "t" / f"{split}-0.tar").write_bytes(
                tar(folder_members(tmp_path / "p" / split))
            )
    else:
        (tmp_path / "t" / "all.tar").write_bytes(tar(folder_members(tmp_path / "p")))
    prepare("tar", tmp_path / "b.h5", tmp_path / "t", size=8)
    same(tmp_path / "b.h5", tmp_path / "a.h5")


@pytest.mark.parametrize("bad_rows", ["refuse", "skip"])
def test_broken_pictures_are_counted_and_named_as_in_folders(tmp_path, pets, bad_rows):
    (tmp_path / "pets" / "cat" / "003.png").write_bytes(BROKEN)
    (tmp_path / "pets" / "dog" / "zz.png").write_bytes(b"")
    members = folder_members(tmp_path / "pets")
    (tmp_path / "a.tar").write_bytes(tar(members))
    if bad_rows == "refuse":
        sentences = []
        for read, given in ((read_images, tmp_path / "pets"), (read_tar, tmp_path / "a.tar")):
            with pytest.raises(EnsyncError) as caught:
                read(given, 8) if read is read_images else read(given, ASKED)
            sentences.append(str(caught.value).split(": ", 1)[1])
        assert sentences[0] == sentences[1] and "2 of 19 pictures are bad: cat/003" in sentences[0]
        return
    expected = read_images(tmp_path / "pets", 8, bad_rows="skip")
    found = read_tar(tmp_path / "a.tar", Asked(8, bad_rows="skip"))
    assert found.notes == expected.notes and "2 of 19 pictures left out" in found.notes[0]
    assert found.labels["train"].tolist() == expected.labels["train"].tolist()
    assert found.identities["train"].tolist() == expected.identities["train"].tolist()
    assert found.names == expected.names and found.preparation == expected.preparation
    for rows, images in found.images["train"].pieces():
        assert np.array_equal(images, expected.images["train"][rows])


def test_what_is_odd_is_harmless_and_noted(tmp_path, pets):
    """Names that lead out of a folder, links, devices, and members that are there twice."""
    tricks = [(f"../../{p}" if n % 2 else f"/{p}", d) for n, (p, d) in enumerate(pets)]
    odd = [
        ("cat/link.png", b"", "2", "/etc/passwd"),
        ("cat/hard.png", b"", "1", "cat/000.png"),
        ("cat/pipe.png", b"", "6", ""),
        ("cat/._000.png", b"mac"),
        ("readme.txt", b"x"),
        ("cat/000.png", BROKEN),
        pets[0],
    ]
    (tmp_path / "a.tar").write_bytes(tar([*tricks, *odd]))
    source = read_tar(tmp_path / "a.tar", ASKED)
    assert source.names["train"] == [path for path, _ in pets]
    assert source.notes == [
        "left out, a link in an archive: 2 (cat/link.png; cat/hard.png)",
        "left out, neither file nor folder: 1 (cat/pipe.png)",
        "members that are there twice, the last taken: 2 (cat/000.png; cat/000.png)",
        "left out, no picture by its name: 1 (readme.txt)",
        "left out, hidden: 1 (cat/._000.png)",
    ]
    assert not (tmp_path.parent / "cat").exists()


def test_progress_is_in_bytes_then_in_pictures(tmp_path, pets):
    (tmp_path / "a.tar").write_bytes(tar(pets))
    seen = []
    prepare("tar", tmp_path / "a.h5", tmp_path / "a.tar", lambda *step: seen.append(step), size=8)
    size = (tmp_path / "a.tar").stat().st_size
    assert [step for step in seen if step[0] == "checking a.tar"][-1][1:] == (size, size, BYTES)
    assert ("decoding pictures", 18, 18) in seen and seen[-1][0] == "writing test images"


def test_a_picture_that_is_too_large_is_a_broken_one(tmp_path, pets, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST_FILE", 1000)
    (tmp_path / "a.tar").write_bytes(tar([*pets, ("cat/big.png", bytes(1001))]))
    with pytest.raises(EnsyncError, match="1 of 19 .* cat/big.png is larger than pictures may be"):
        read_tar(tmp_path / "a.tar", ASKED)


def offset_of(members, number):
    """Return where a member's header begins."""
    return len(tar(members[:number], b""))


# name: (archive of the members, what its refusal says)
DAMAGED = {
    "a header": (
        lambda m: tar(m[:3], b"") + b"x" * 512 + tar(m[4:]),
        "{2} of its content, in cat/002.png (invalid header)",
    ),
    "cut off in a picture": (
        lambda m: tar(m)[: offset_of(m, 5) + 600],
        "{5} of its content, in cat/005.png (unexpected end of data)",
    ),
    "cut off between pictures": (
        lambda m: tar(m[:4], b""),
        "{3} of its content, in cat/003.png (it stops without the mark of its end)",
    ),
    "compressed and cut off": (lambda m: gzip.compress(tar(m))[:-900], "is damaged or cut off"),
    "compressed and changed": (
        lambda m: gzip.compress(tar(m), 0)[:-8] + bytes(8),
        "is damaged or cut off",
    ),
    "two in a row": (lambda m: tar(m[:9]) + tar(m[9:]), "are these archives in a row?"),
    "in a tar of a class": (
        lambda m: tar([("cat.tar", tar(m[:6], b"")), ("dog.tar", tar(m[6:12]))]),
        "in cat.tar: cat/005.png (it stops without",
    ),
    "no archive": (lambda m: b"x" * 2000, "is damaged or cut off behind byte 0 of its content ("),
    "empty": (lambda m: b"", "is damaged or cut off behind byte 0 of its content ("),
    "a name without end": (
        lambda m: tar([("././@LongLink", bytes(archive.LARGEST_NOTE + 1), "L", ""), *m]),
        "a name of 1,048,577 bytes",
    ),
}


@pytest.mark.parametrize("way", DAMAGED)
def test_damage_is_refused_with_member_and_offset(tmp_path, pets, way):
    pack, sentence = DAMAGED[way]
    (tmp_path / "a.tar").write_bytes(pack(pets))
    with pytest.raises(EnsyncError) as caught:
        prepare("tar", tmp_path / "a.h5", tmp_path / "a.tar")
    places = [f"behind byte {offset_of(pets, number):,}" for number in range(len(pets))]
    assert sentence.format(*places) in str(caught.value) and "a.tar" in str(caught.value)
    assert not (tmp_path / "a.h5").exists()


def test_an_archive_without_pictures_or_folders(tmp_path, pets):
    (tmp_path / "a.tar").write_bytes(tar([]))
    with pytest.raises(EnsyncError, match=r"a\.tar has no pictures"):
        read_tar(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(tar([(p.replace("/", "_"), d) for p, d in pets]))
    with pytest.raises(EnsyncError, match=r"a\.tar has no folders but 18 pictures"):
        read_tar(tmp_path / "a.tar")


def numbered(of, label=lambda number: [("cls", str(number % 3).encode())]):
    """Return the members of samples of all pictures, the labels their places modulo 3."""
    found = []
    for number, (_path, data) in enumerate(of):
        found += [(f"s/{number}.{e}", text) for e, text in [("png", data), *label(number)]]
    return found


def test_labels_of_samples_are_numbers_in_their_order(tmp_path, pets):
    label = [("cls", b"10"), ("cls", b"9"), ("cls", b" 2\n")]
    (tmp_path / "a.tar").write_bytes(tar(numbered(pets, lambda n: [label[n % 3]])))
    source = read_tar(tmp_path / "a.tar", ASKED)
    assert source.class_names == ["2", "9", "10"]
    assert source.labels["train"].tolist() == [2, 1, 0] * 6
    assert source.notes == ["pictures: members ending in .png; labels: members ending in .cls"]
    assert source.names["train"][4] == "a.tar: s/4"


def test_what_is_doubtful_is_chosen_by_ending_or_key(tmp_path, pets):
    """Two pictures and two labels in a sample."""

    def label(number):
        both = {"cls": number % 2, "label": number % 3, "other": "abc"[number % 3], "note": [1]}
        return [("mask.png", pets[number - 1][1]), ("json", json.dumps(both).encode())]

    (tmp_path / "a.tar").write_bytes(tar(numbered(pets, label)))
    with pytest.raises(EnsyncError, match=r"2 pictures in a sample \(mask.png; png\).*--image"):
        read_tar(tmp_path / "a.tar", ASKED)
    with pytest.raises(EnsyncError, match=r"2 labels in a sample \(cls; label\).*--label-column"):
        read_tar(tmp_path / "a.tar", ASKED, Choice("png"))
    with pytest.raises(EnsyncError, match=r"--image-column gif with pictures ending in \.mask"):
        read_tar(tmp_path / "a.tar", ASKED, Choice("gif", "label"))
    with pytest.raises(EnsyncError, match="--label-column note, which no sample"):
        read_tar(tmp_path / "a.tar", ASKED, Choice("png", "note"))
    found = read_tar(tmp_path / "a.tar", ASKED, Choice(".png", "label"))
    assert found.labels["train"].tolist() == [0, 1, 2] * 6
    assert found.notes[0] == "pictures: members ending in .png; labels: 'label' in .json"
    assert "left out, pictures ending in .mask.png: 18 (" in found.notes[1]
    masks = read_tar(tmp_path / "a.tar", ASKED, Choice("mask.png", "other"))
    assert masks.class_names == ["a", "b", "c"]
    assert masks.identities["train"].tolist() == np.roll(found.identities["train"], 1).tolist()


def test_samples_that_are_not_whole_are_broken_ones(tmp_path, pets):
    lacking = ("s/0.cls", "s/3.png", "s/6.cls", "s/7.cls")
    members = [member for member in numbered(pets) if member[0] not in lacking]
    members += [("s/6.json", b'{"label": '), ("s/7.cls", b"\xff")]
    (tmp_path / "a.tar").write_bytes(tar(members))
    with pytest.raises(EnsyncError) as caught:
        read_tar(tmp_path / "a.tar", ASKED)
    for part in (
        "4 of 18 pictures are bad: a.tar: s/0 has no label",
        "a.tar: s/6 has a label file that cannot be read",
        "a.tar: s/7 has a label file that cannot be read",
        "a.tar: s/3 has no picture",
    ):
        assert part in str(caught.value)
    source = read_tar(tmp_path / "a.tar", Asked(8, bad_rows="skip"))
    assert len(source.labels["train"]) == 14


def test_samples_of_the_same_name_in_two_archives_are_two(tmp_path, pets):
    for number, place in enumerate(("a", "b")):
        (tmp_path / "d" / place).mkdir(parents=True)
        members = numbered(pets[9 * number : 9 * number + 9])
        (tmp_path / "d" / place / "0.tar").write_bytes(tar(members))
    source = read_tar(tmp_path / "d", ASKED)
    assert len(source.labels["train"]) == 18 and list(source.checksums) == ["a/0.tar", "b/0.tar"]


def test_notes_beside_pictures_make_no_samples(tmp_path, pets):
    notes = [(path.replace(".png", ".json"), b'{"camera": 1}') for path, _ in pets[:2]]
    (tmp_path / "a.tar").write_bytes(tar([*pets, *notes]))
    source = read_tar(tmp_path / "a.tar", ASKED)
    assert source.class_names == ["cat", "dog", "owl"]
    assert source.notes == ["left out, no picture by its name: 2 (cat/000.json; cat/001.json)"]
    with pytest.raises(EnsyncError, match="--label-column cls, which no sample of"):
        read_tar(tmp_path / "a.tar", ASKED, Choice(label="cls"))


def test_labels_of_two_kinds_are_refused(tmp_path, pets):
    kinds = [b"1", b"cat"]
    members = numbered(pets, lambda n: [("cls", kinds[n % 2])])
    (tmp_path / "a.tar").write_bytes(tar(members))
    with pytest.raises(EnsyncError, match=r"labels are numbers \(1\) and others words \('cat'\)"):
        read_tar(tmp_path / "a.tar", ASKED)


def test_an_archive_that_changes_meanwhile_is_refused(tmp_path, pets):
    (tmp_path / "a.tar").write_bytes(tar(pets))
    source = read_tar(tmp_path / "a.tar", ASKED)
    (tmp_path / "a.tar").write_bytes(tar([(p, BROKEN) for p, _ in pets]))
    with pytest.raises(EnsyncError, match="files that do not change meanwhile"):
        list(source.images["train"].pieces())
