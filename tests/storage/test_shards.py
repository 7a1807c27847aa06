"""Which files a pattern or a directory stands for, and of which split they are."""

import sys
from pathlib import Path

import pytest
from samples import prepare

from ensync.core.errors import EnsyncError
from ensync.storage.sources.streams.shards import few_sums, find_shards, names_of


def put(directory, *names):
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"")
    return directory


def found(given, endings=(".tar", ".tar.gz")):
    """Return the names of the files of each split."""
    return {s: [file.name for file in files] for s, files in find_shards(given, endings).items()}


@pytest.mark.parametrize(
    ("files", "given", "expected"),
    [
        (["a.tar"], "a.tar", {"train": ["a.tar"]}),
        (["b.tar", "a.TAR.gz", "c.txt", ".d.tar"], "", {"train": ["a.TAR.gz", "b.tar"]}),
        (
            ["x-008.tar", "x-009.tar", "x-010.tar", "x-011.tar"],
            "x-{009..010}.tar",
            {"train": ["x-009.tar", "x-010.tar"]},
        ),
        (["a1.tar", "b1.tar", "b2.tar"], "{a,b}{1..1}.tar", {"train": ["a1.tar", "b1.tar"]}),
        (
            ["x-train-0.tar", "x-train-1.tar", "x_val.tar", "Test.tar"],
            "*.tar",
            {"train": ["x-train-0.tar", "x-train-1.tar"], "validation": ["x_val.tar"],
             "test": ["Test.tar"]},
        ),
        (
            ["train/0.tar", "train/1.tar", "testing/0.tar"],
            "",
            {"train": ["0.tar", "1.tar"], "test": ["0.tar"]},
        ),
        (["x-train.tar", "x-test.tar"], "x-train.tar", {"train": ["x-train.tar"]}),
        (["x-test.tar"], "x-test.tar", {"train": ["x-test.tar"]}),
    ],
)  # fmt: skip
def test_files_and_their_splits(tmp_path, files, given, expected):
    assert found(put(tmp_path / "d", *files) / given) == expected


@pytest.mark.parametrize(
    ("files", "given", "sentence"),
    [
        ([], "a.tar", "a.tar does not exist"),
        (["a.txt"], "", r"d has no file ending in \.tar or \.tar\.gz"),
        (["x-0.tar", "x-2.tar"], "x-{0..3}.tar", r"stands for .*x-1.tar; .*x-3.tar, which are not"),
        (["x-0.tar"], "y-*.tar", "stands for .*y-.*which is not there"),
        (["x.tar"], "x-{0..999999999}.tar", "stands for 100,001 files; expected at most 100,000"),
        (["x.tar"], "{0..999}{0..999}", "stands for 1,000,000 files"),
        (["train-0.tar", "extra.tar"], "", "extra.tar has none of train, val, test in its name"),
        (["val-0.tar", "test-0.tar"], "", "has files of .*validation.* and none of train"),
        (["train-test.tar", "x.tar"], "", "train-test.tar could be of train or test by its name"),
        (
            ["train-00000-of-00003.tar", "train-00001-of-00003.tar"],
            "",
            "is one of 3 files, of which are missing: train-00002-of-00003",
        ),
    ],
)
def test_what_is_missing_or_doubtful_is_refused(tmp_path, files, given, sentence):
    (tmp_path / "d").mkdir()
    with pytest.raises(EnsyncError, match=sentence):
        find_shards(put(tmp_path / "d", *files) / given, (".tar", ".tar.gz"))


def test_files_of_the_same_name_are_told_apart_by_their_directories():
    files = [Path("d/train/0.tar"), Path("d/test/0.tar"), Path("d/test/1.tar")]
    assert list(names_of(files).values()) == ["train/0.tar", "test/0.tar", "1.tar"]


@pytest.mark.parametrize("count", [3, 21, 3000])
def test_thousands_of_files_have_one_sum(tmp_path, count):
    """Which follows from every name and every sum."""
    sums = {f"x-{n}.tar": f"sha256:{n:064}" for n in range(count)}
    found = few_sums(sums)
    assert (found == sums) == (count == 3)
    if count > 3:
        (name,) = found
        assert name == f"{count:,} files" and len(found[name]) == 71
        assert few_sums(sums | {"x-1.tar": "sha256:0"}) != found
        assert few_sums({f"y{key}": sum for key, sum in sums.items()}) != found


def test_parquet_without_pyarrow_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    put(tmp_path, "a.parquet")
    with pytest.raises(EnsyncError, match=r"pip install 'ensync\[parquet\]', or pip install pyarr"):
        prepare("parquet", tmp_path / "a.h5", tmp_path / "a.parquet")
