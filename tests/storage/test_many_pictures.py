"""Many pictures at a time: as many threads as asked for, the same bytes, few pictures in memory;
and the size of images where none is asked for.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from samples import folder_members, prepare, tar, write_pictures

from ensync.core import resources
from ensync.core.errors import EnsyncError
from ensync.storage.dataset import open_dataset
from ensync.storage.sources import picture_rows
from ensync.storage.sources.picture_rows import in_order


@pytest.mark.parametrize("name", ["images", "tar"])
def test_several_threads_write_what_one_writes(tmp_path, name):
    write_pictures(tmp_path / "p", ("a", "b", "c"), 9)
    files = tmp_path / "p"
    if name == "tar":
        files = tmp_path / "a.tar"
        files.write_bytes(tar(folder_members(tmp_path / "p")))
    written = []
    for jobs in (1, 5):
        done = prepare(name, tmp_path / f"{jobs}.h5", files, size=8, jobs=jobs)
        written.append(done.path.read_bytes())
    assert written[0] == written[1]


def test_threads_are_as_many_as_asked_for_or_as_cpus(tmp_path, monkeypatch):
    asked = []

    def pool(threads):
        asked.append(threads)
        return ThreadPoolExecutor(threads)

    monkeypatch.setattr(picture_rows, "ThreadPoolExecutor", pool)
    monkeypatch.setattr(picture_rows, "usable_cpus", lambda: 3)
    write_pictures(tmp_path / "p", rows=2)
    for jobs in (None, 2):
        asked.clear()
        prepare("images", tmp_path / "a.h5", tmp_path / "p", size=8, jobs=jobs)
        assert set(asked) == {jobs or 3}
    with pytest.raises(EnsyncError, match="--jobs 0; expected a number of threads"):
        prepare("images", tmp_path / "a.h5", tmp_path / "p", jobs=0)


@pytest.mark.parametrize(("mask", "quota", "usable"), [(8, 2.5, 2), (2, 64.0, 2), (4, 0.5, 1)])
def test_cpus_are_those_of_the_mask_and_the_quota(monkeypatch, mask, quota, usable):
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda _process: set(range(mask)))
    monkeypatch.setattr(resources, "cpu_quota", lambda: quota)
    assert resources.usable_cpus() == usable


@pytest.mark.parametrize(("size", "most"), [(1, 8), (1000, 4)])
def test_only_a_few_pictures_wait_at_a_time(monkeypatch, size, most):
    """However slowly they are taken, and however many there are."""
    monkeypatch.setattr(picture_rows, "AHEAD", 8)
    monkeypatch.setattr(picture_rows, "MOST_HELD", 4000)
    read = [0]

    def items():
        for number in range(500):
            read[0] += 1
            yield number

    waiting = []
    for taken, (item, result) in enumerate(in_order(lambda n: 2 * n, items(), lambda _: size, 2)):
        assert item == taken and result == 2 * taken
        waiting.append(read[0] - taken)
    assert len(waiting) == 500 and most <= max(waiting) <= most + 1


def test_an_error_in_the_midst_ends_the_threads():
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        for _one in in_order(lambda n: 1 // (n - 5), range(1000), lambda _: 0, 2):
            pass
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("sizes", "size", "note"),
    [
        ([(12, 9)] * 4, 9, "stored as 9 x 9 pixels, without --size: the shorter sides have 9"),
        ([(9, 12), (20, 9)] * 2, 9, "stored as 9 x 9 pixels"),
        ([(12, 9), (10, 30)] * 2, 256, "stored as 256 x 256 pixels, without --size: the shorter "),
        ([(300, 260)] * 4, 256, "the shorter sides have 260"),
    ],
)
def test_the_size_without_asking(tmp_path, sizes, size, note):
    for number, one in enumerate(sizes):
        place = tmp_path / "p" / "ab"[number // 2] / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", one, (number, 0, 0)).save(place)
    done = prepare("images", tmp_path / "a.h5", tmp_path / "p", validation=0)
    assert any(note in each for each in done.notes)
    with open_dataset(done.path) as dataset:
        assert dataset.shape == (size, size, 3) and dataset.preparation["size"] == size


def test_the_shorter_side_is_brought_to_the_size_and_the_centre_cut_out(tmp_path):
    """As by resizing the whole picture first, and cutting then."""
    height, width, size = 60, 96, 20
    y, x = np.mgrid[:height, :width]
    picture = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1).astype(np.uint8)
    for label in "ab":
        (tmp_path / "p" / label).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / "p" / label / "x.png")
    whole = Image.fromarray(picture).resize((32, size), Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((6, 0, 26, size))).astype(int)
    done = prepare("images", tmp_path / "a.h5", tmp_path / "p", size=size, validation=0)
    with open_dataset(done.path) as dataset:
        image = dataset.read("train", 0, 1).reshape(size, size, 3).astype(int)
    assert np.abs(image - expected)[:, :, :2].max() <= 1


def test_classes_without_a_folder_in_another_split_are_named(tmp_path):
    write_pictures(tmp_path / "train", ("a", "b", "c"), 3)
    write_pictures(tmp_path / "val", ("b",), 2)
    done = prepare("images", tmp_path / "a.h5", tmp_path, size=8)
    what = "classes of train without a folder in another split: 2 (val/a/; val/c/)"
    assert what in done.notes
