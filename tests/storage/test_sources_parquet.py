"""Parquet files give the datasets that the same pictures give in folders; columns are found out and
named, or refused when that is doubtful.
"""

import json

import numpy as np
import pytest
from samples import folder_members, prepare, write_pictures

from ensync.core.errors import EnsyncError
from ensync.storage.dataset import open_dataset
from ensync.storage.sources.checking import Asked
from ensync.storage.sources.streams.parquet import read_parquet
from ensync.storage.sources.streams.samples import Choice

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: no Parquet")
from pyarrow import parquet  # noqa: E402

ASKED = Asked(8)
PETS = ("cat", "dog", "owl")


def pets(directory, rows=6):
    """Write pictures in folders; return (path, bytes) of them."""
    write_pictures(directory, PETS, rows)
    return folder_members(directory)


def hub(label="label", image="image", names=PETS):
    """Return the schema metadata that the Hugging Face hub writes."""
    features = {
        label: {"names": list(names), "_type": "ClassLabel"},
        image: {"_type": "Image"},
        "text": {"dtype": "string", "_type": "Value"},
    }
    return {b"huggingface": json.dumps({"info": {"features": features}})}


def pictures_of(members):
    """Return a column of pictures as the hub publishes them."""
    return [{"bytes": data, "path": path.rpartition("/")[2]} for path, data in members]


def write(path, metadata=None, group=5, **columns):
    """Write a Parquet file of row groups of so many rows."""
    path.parent.mkdir(exist_ok=True)
    table = pyarrow.table(columns)
    parquet.write_table(table.replace_schema_metadata(metadata), path, row_group_size=group)


def numbers(members):
    """Return the class of each picture."""
    return [PETS.index(path[:3]) for path, _ in members]


# how the pictures are stored: what writes the file
WAYS = {
    "as the hub does": lambda path, m: write(
        path, hub(), image=pictures_of(m), label=numbers(m), text=["x"] * len(m)
    ),
    "bytes and words": lambda path, m: write(
        path, picture=[data for _, data in m], label=[path[:3] for path, _ in m], id=range(len(m))
    ),
    "one label column of another name": lambda path, m: write(
        path, img=pictures_of(m), pet=[path[:3] for path, _ in m]
    ),
    "large types, many to a group": lambda path, m: write(
        path,
        group=1000,
        img=pyarrow.array([data for _, data in m], pyarrow.large_binary()),
        y=pyarrow.array([path[:3] for path, _ in m], pyarrow.large_string()),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_dataset_as_from_folders(tmp_path, way):
    WAYS[way](tmp_path / "p.parquet", pets(tmp_path / "pets"))
    prepare("images", tmp_path / "a.h5", tmp_path / "pets", size=8)
    done = prepare("parquet", tmp_path / "b.h5", tmp_path / "p.parquet", size=8)
    assert "found out by types and names" in done.notes[0]
    with open_dataset(tmp_path / "b.h5") as found, open_dataset(tmp_path / "a.h5") as wanted:
        assert found.fingerprint == wanted.fingerprint
        every = np.arange(wanted.sizes["train"])
        assert np.array_equal(found.rows("train", every), wanted.rows("train", every))


def test_the_hub_s_names_of_files_are_splits(tmp_path):
    """Two files of train in a directory "data", with a sum at the end of their names."""
    members = {}
    for split, rows in (("train", 5), ("validation", 2), ("test", 3)):
        of = members[split] = pets(tmp_path / "p" / split, rows)
        cuts = (0, 7, len(of)) if split == "train" else (0, len(of))
        for number, (first, last) in enumerate(zip(cuts, cuts[1:])):
            name = f"{split}-{number:05}-of-{len(cuts) - 1:05}-0a1b2c.parquet"
            part = of[first:last]
            path = tmp_path / "hub" / name
            write(path, hub(), image=pictures_of(part), label=numbers(part))
    prepare("images", tmp_path / "a.h5", tmp_path / "p", size=8)
    prepare("parquet", tmp_path / "b.h5", tmp_path / "hub", size=8)
    with open_dataset(tmp_path / "b.h5") as found, open_dataset(tmp_path / "a.h5") as wanted:
        assert found.fingerprint == wanted.fingerprint and found.sizes["train"] == 15
    (tmp_path / "hub" / "train-00000-of-00002-0a1b2c.parquet").unlink()
    with pytest.raises(EnsyncError, match="of 2 files, of which are missing: train-00000-of-00002"):
        read_parquet(tmp_path / "hub")


def test_names_come_from_the_metadata_and_rows_have_names(tmp_path):
    members = pets(tmp_path / "pets")
    write(tmp_path / "p.parquet", hub(), image=pictures_of(members), label=numbers(members))
    source = read_parquet(tmp_path / "p.parquet", ASKED)
    assert source.class_names == list(PETS)
    assert source.names["train"][7] == "row 8 of p.parquet (001.png)"
    assert source.notes == [
        "pictures: column 'image'; labels: column 'label', found out by types and names; class "
        "names: as the file's metadata says"
    ]
    chosen = read_parquet(tmp_path / "p.parquet", ASKED, Choice("image", "label"))
    assert "found out" not in chosen.notes[0]
    write(tmp_path / "p.parquet", image=pictures_of(members), label=[7, 5, 5] * 6)
    source = read_parquet(tmp_path / "p.parquet", ASKED)
    assert source.class_names == ["5", "7"] and source.labels["train"][:3].tolist() == [1, 0, 0]


M = [("a/0.png", b"0"), ("b/1.png", b"1")]
# name: (columns, choice, metadata, parts of the sentence)
REFUSED = {
    "two columns of labels": (
        {"image": pictures_of(M), "label": [0, 1], "y": [1, 0]},
        Choice(),
        None,
        ["has 2 columns of labels (label; y)", "--label-column"],
    ),
    "two of no known name": (
        {"image": pictures_of(M), "fine": [0, 1], "coarse": [1, 0]},
        Choice(),
        None,
        ["has 2 columns of labels (fine; coarse)"],
    ),
    "two columns of pictures": (
        {"left": pictures_of(M), "right": pictures_of(M), "label": [0, 1]},
        Choice(),
        None,
        ["has 2 columns of pictures (left; right)", "--image-column"],
    ),
    "no pictures": ({"x": [1, 2], "label": [0, 1]}, Choice(), None, ["has no columns of pictures"]),
    "no labels": ({"image": pictures_of(M)}, Choice(), None, ["has no columns of labels"]),
    "another column": (
        {"image": pictures_of(M), "label": [0, 1]},
        Choice(label="lable"),
        None,
        ["--label-column lable, which is no column", "such as label"],
    ),
    "a column of another type": (
        {"image": pictures_of(M), "label": [0, 1]},
        Choice("label"),
        None,
        ["--image-column label, a column of type int64", "such as image"],
    ),
    "a label without a name": (
        {"image": pictures_of(M), "label": [0, 3]},
        Choice(),
        hub(),
        ["a train row has the label 3, and there are 3 class names"],
    ),
    "secret labels": (
        {"image": pictures_of(M), "label": [0, -1]},
        Choice(),
        hub(),
        ["label -1 (hubs write -1 where labels are kept secret)"],
    ),
    "broken pictures": (
        {
            "image": [{"bytes": b"x", "path": None}, {"bytes": None, "path": "a.png"}, None],
            "label": [0, 1, None],
        },
        Choice(),
        hub(),
        [
            "3 of 3 pictures are bad: row 1 of p.parquet cannot be decoded",
            "row 2 of p.parquet (a.png) names a file, and holds no picture",
            "row 3 of p.parquet has no picture",
        ],
    ),
}


@pytest.mark.parametrize("way", REFUSED)
def test_what_is_wrong_or_doubtful_is_refused_by_name(tmp_path, way):
    columns, choice, metadata, parts = REFUSED[way]
    write(tmp_path / "p.parquet", metadata, **columns)
    with pytest.raises(EnsyncError) as caught:
        read_parquet(tmp_path / "p.parquet", ASKED, choice)
    for part in ["p.parquet", *parts]:
        assert part in str(caught.value)


def test_broken_rows_are_left_out_on_request(tmp_path):
    members = pets(tmp_path / "pets")
    images, labels = pictures_of(members), numbers(members)
    images[3], labels[9] = {"bytes": b"x", "path": "x.png"}, None
    write(tmp_path / "p.parquet", hub(), image=images, label=labels)
    source = read_parquet(tmp_path / "p.parquet", Asked(8, bad_rows="skip"))
    assert "2 of 18 pictures left out: row 4 of p.parquet (x.png) cannot" in source.notes[1]
    assert len(source.labels["train"]) == 16
    rows = np.concatenate([rows for rows, _ in source.images["train"].pieces()])
    assert sorted(rows.tolist()) == list(range(16))


def test_damaged_files_are_refused(tmp_path):
    members = pets(tmp_path / "pets")
    write(tmp_path / "p.parquet", hub(), image=pictures_of(members), label=numbers(members))
    whole = (tmp_path / "p.parquet").read_bytes()
    for data in (whole[:-100], whole[100:], b"", b"PAR1", b"x" * 1000):
        (tmp_path / "p.parquet").write_bytes(data)
        with pytest.raises(EnsyncError, match=r"p\.parquet is damaged, or no Parquet file \("):
            read_parquet(tmp_path / "p.parquet", ASKED)


def test_files_of_other_columns_do_not_go_together(tmp_path):
    write(tmp_path / "d" / "train-0.parquet", image=pictures_of(M), label=[0, 1])
    write(tmp_path / "d" / "test-0.parquet", image=pictures_of(M), y=[0, 1])
    with pytest.raises(EnsyncError, match="test-0.parquet has other columns or class names than"):
        read_parquet(tmp_path / "d", ASKED)
