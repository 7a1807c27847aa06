"""What is written into a dataset file comes back to the byte; the splits, mean and std are what
they promise.
"""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from samples import pictures

from ensync.core.errors import EnsyncError
from ensync.storage import filling, writing
from ensync.storage.dataset import open_dataset
from ensync.storage.sources.source import Source
from ensync.storage.splitting import stratified
from ensync.storage.verification import check
from ensync.storage.writing import write_dataset


def source(rows=200, test=50, shape=(5, 4, 3), classes=4, **changes) -> Source:
    """Return random images whose class is their row modulo the classes."""
    images = {"train": pictures(rows, *shape), "test": pictures(test, *shape, seed=1)}
    labels = {split: np.arange(len(array)) % classes for split, array in images.items()}
    if not test:
        del images["test"], labels["test"]
    made = dict(
        name="sample",
        images=images,
        labels=labels,
        class_names=["née", "b", "c", "d"][:classes],
        source="a test",
        licence="none",
    )
    return Source(**made | changes)


def key(images: np.ndarray) -> list[bytes]:
    """Return the bytes of each image."""
    return [image.tobytes() for image in images.reshape(len(images), -1)]


def test_every_image_is_in_exactly_one_split_with_its_label(tmp_path):
    given = source()
    write_dataset(tmp_path / "a.h5", given, validation=0.1, seed=3)
    with open_dataset(tmp_path / "a.h5") as dataset:
        assert dataset.sizes == {"train": 180, "validation": 20, "test": 50}
        assert (dataset.shape, dataset.features, dataset.classes, dataset.name) == (
            (5, 4, 3),
            60,
            4,
            "sample",
        )
        assert dataset.class_names == ["née", "b", "c", "d"]
        stored = {split: dataset.read(split, 0, size) for split, size in dataset.sizes.items()}
        expected = dict(zip(key(given.images["train"]), given.labels["train"], strict=True))
        both = key(stored["train"]) + key(stored["validation"])
        assert sorted(both) == sorted(expected)
        labels = [*dataset.labels("train"), *dataset.labels("validation")]
        assert labels == [expected[image] for image in both]
        assert np.array_equal(stored["test"], given.images["test"].reshape(50, -1))
        assert (
            np.array_equal(dataset.labels("test"), given.labels["test"])
            and dataset.labels("test").dtype == np.int64
        )
        assert [dataset.counts["validation"].tolist(), dataset.counts["train"].tolist()] == [
            [5] * 4,
            [45] * 4,
        ]
        assert dataset.nbytes("train") == 180 * 60
        check(dataset)


def test_any_hdf5_tool_reads_the_same(tmp_path):
    given = source()
    write_dataset(tmp_path / "a.h5", given)
    with open_dataset(tmp_path / "a.h5") as dataset, h5py.File(tmp_path / "a.h5") as file:
        assert (
            file["images/train"].shape == (180, 5, 4, 3) and file["images/train"].dtype == np.uint8
        )
        assert np.array_equal(
            file["images/train"][()].reshape(180, -1), dataset.read("train", 0, 180)
        )
        assert np.array_equal(file["labels/validation"][()], dataset.labels("validation"))
        assert file["class_names"].asstr()[()].tolist() == dataset.class_names
        assert (
            np.array_equal(file["mean"][()], dataset.mean)
            and bytes(file["fingerprint"][()]).decode() == dataset.fingerprint
        )
        assert file.attrs["format"].decode() == "ensync-dataset" and file.attrs["version"] == 1


def test_mean_and_std_are_those_of_the_training_images(tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "PIECE", 1000)
    given = source()
    given.images["train"][..., 2] = 7  # a channel that never changes
    write_dataset(tmp_path / "a.h5", given)
    with open_dataset(tmp_path / "a.h5") as dataset:
        train = dataset.read("train", 0, 180).reshape(-1, 3).astype(np.float64)
        np.testing.assert_allclose(dataset.mean, train.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(dataset.std, [*train.std(axis=0)[:2], 1.0], rtol=1e-6)
        assert dataset.mean.dtype == dataset.std.dtype == np.float32


def test_the_same_source_and_seed_give_the_same_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_dataset(tmp_path / name, source(), seed=seed)
    first, second, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == second != other


def test_a_test_split_is_cut_where_none_is_given(tmp_path):
    write_dataset(tmp_path / "a.h5", source(test=0), validation=0.25, test=0.2)
    with open_dataset(tmp_path / "a.h5") as dataset:
        assert dataset.sizes == {"train": 120, "validation": 40, "test": 40}
        assert {tuple(dataset.counts[split]) for split in ("validation", "test")} == {
            (10, 10, 10, 10)
        }


def test_no_validation_is_an_empty_split(tmp_path):
    write_dataset(tmp_path / "a.h5", source(), validation=0)
    with open_dataset(tmp_path / "a.h5") as dataset:
        assert dataset.sizes["validation"] == 0 and len(dataset.labels("validation")) == 0
        assert dataset.read("validation", 0, 0).shape == (0, 60)
        check(dataset)


@pytest.mark.parametrize("part", [0, 0.05, 0.1, 0.37, 0.5, 0.9])
def test_a_stratified_cut_keeps_the_proportions(part):
    labels = np.repeat([0, 1, 2, 3, 5], [1000, 333, 100, 7, 1])
    mask = stratified(labels, part, np.random.default_rng(0))
    assert abs(mask.sum() - part * len(labels)) <= 2
    for label in np.unique(labels):
        members = labels == label
        assert abs(mask[members].sum() - part * members.sum()) <= 1 and not mask[members].all()


def test_ties_of_a_cut_fall_by_the_seed_and_not_by_the_label():
    """Of 50 classes of two, a fifth takes one of 20 classes: every class is as likely, and the
    rest train.
    """
    labels, times = np.repeat(np.arange(50), 2), np.zeros(50)
    for seed in range(100):
        mask = stratified(labels, 0.2, np.random.default_rng(seed))
        counts = np.bincount(labels[mask], minlength=50)
        assert mask.sum() == 20 and counts.max() == 1
        times += counts
    assert 20 < times.min() and times.max() < 60  # 40 expected, 4.9 the standard deviation


@pytest.mark.parametrize(
    ("sizes", "part", "total"),
    [
        ([1] * 30 + [5] * 20, 0.2, 26),
        ([1, 1, 1, 2], 0.5, 1),
        ([12, 22, 32, 42], 0.1, 11),
        ([3, 0, 3], 0.9, 4),
    ],
)
def test_a_cut_takes_its_share_and_leaves_each_class_a_row(sizes, part, total):
    """Classes of one row give none; 12, 22, 32 and 42 rows leave the same remainder, whatever
    rounding makes of it.
    """
    labels, first = np.repeat(np.arange(len(sizes)), sizes), set()
    for seed in range(40):
        counts = np.bincount(
            labels[stratified(labels, part, np.random.default_rng(seed))], minlength=len(sizes)
        )
        assert counts.sum() == total and all(
            count < size or size == 0 for count, size in zip(counts, sizes, strict=True)
        )
        first.add(tuple(counts))
    assert len(first) > 1 or total != 11


def test_a_split_that_lacks_classes_is_told_of(tmp_path):
    labels = np.repeat(np.arange(8), 3)
    images = {"train": pictures(24, 2, 2, 1)}
    done = write_dataset(
        tmp_path / "a.h5", Source("x", images, {"train": labels}, list("abcdefgh"), "s", "l")
    )
    assert len(done.notes) == 2 and done.notes[0].startswith(
        "the 2 validation images have none of 6 of 8 classes: '"
    )
    assert done.notes[1].startswith("the 5 test images have none of 3 of 8 classes: '")


def test_rows_come_in_any_order_and_more_than_once(tmp_path):
    write_dataset(tmp_path / "a.h5", source())
    with open_dataset(tmp_path / "a.h5") as dataset:
        whole = dataset.read("train", 0, 180)
        random = np.random.default_rng(0)
        for rows in (
            [],
            [5],
            [179, 0, 1, 2, 90],
            [3, 3, 3],
            range(20, 60),
            random.permutation(180),
            random.integers(0, 180, 500),
        ):
            rows = np.array(rows, np.int64)
            assert np.array_equal(dataset.rows("train", rows), whole[rows])
        out = np.zeros((30, 5, 4, 3), np.uint8)
        dataset.read_into("train", 17, 47, out)
        assert np.array_equal(out.reshape(30, -1), whole[17:47])
        for wrong in ((-1, 5), (0, 181), (5, 4)):
            with pytest.raises((IndexError, ValueError)):
                dataset.read("train", *wrong)
        with pytest.raises(EnsyncError, match="did you mean 'train'"):
            dataset.labels("trian")


def test_the_description_names_everything(tmp_path):
    write_dataset(
        tmp_path / "a.h5", source(notes=["3 rows left out"], checksums={"f.gz": "md5:00"})
    )
    with open_dataset(tmp_path / "a.h5") as dataset:
        text = dataset.describe()
    for part in (
        "sample",
        "250 images, 5 x 4 pixels, colour, 4 classes",
        "née",
        "3 rows left out",
        "md5:00",
        "a test",
        dataset.fingerprint,
        "seed 1",
    ):
        assert part in text
    assert [line.split() for line in text.splitlines() if line.startswith(("  b ", "  all"))] == [
        ["b", "45", "5", "13"],
        ["all", "180", "20", "50"],
    ]


def test_many_classes_are_summed_up(tmp_path):
    given = source(
        rows=200, classes=100, class_names=[f"class {number}" for number in range(100)], test=0
    )
    write_dataset(tmp_path / "a.h5", given)
    with open_dataset(tmp_path / "a.h5") as dataset:
        text = dataset.describe()
    assert "... and 60 more" in text and len(text.splitlines()) < 60


@pytest.mark.parametrize(
    ("options", "changes", "sentence"),
    [
        ({"validation": 1.0}, {}, "--validation 1.0"),
        ({"validation": -0.1}, {}, "--validation -0.1"),
        ({"validation": float("nan")}, {}, "--validation nan"),
        (
            {},
            {"labels": {"train": np.zeros(200, int), "test": np.zeros(50, int)}},
            "one class only",
        ),
        (
            {},
            {"images": {"train": pictures(200, 5, 4, 3), "test": pictures(50, 4, 4, 3)}},
            "different shapes",
        ),
    ],
)
def test_what_cannot_become_a_dataset_has_its_sentence(tmp_path, options, changes, sentence):
    with pytest.raises(EnsyncError) as caught:
        write_dataset(tmp_path / "a.h5", source(**changes), **options)
    assert sentence in str(caught.value) and list(tmp_path.iterdir()) == []


def test_writing_twice_changes_nothing_and_says_so(tmp_path):
    first = write_dataset(tmp_path / "a.h5", source())
    before = (tmp_path / "a.h5").stat()
    second = write_dataset(tmp_path / "a.h5", source())
    assert (first.changed, second.changed) == (
        True,
        False,
    ) and first.fingerprint == second.fingerprint
    assert (tmp_path / "a.h5").stat().st_ino == before.st_ino
    assert write_dataset(tmp_path / "a.h5", source(), seed=2).changed
    assert os.listdir(tmp_path) == ["a.h5"]


def test_a_file_of_another_kind_is_not_replaced(tmp_path):
    (tmp_path / "a.h5").write_text("my thesis")
    with pytest.raises(
        EnsyncError, match="is there and is no dataset that could be replaced .*is not an HDF5 file"
    ):
        write_dataset(tmp_path / "a.h5", source())
    assert (tmp_path / "a.h5").read_text() == "my thesis"
    with pytest.raises(EnsyncError, match="is a directory"):
        write_dataset(tmp_path, source())


class Breaks:
    """Images that fail in the middle."""

    def __init__(self, images, error):
        self.images, self.shape, self.error, self.reads = images, images.shape, error, 0

    def __getitem__(self, rows):
        self.reads += 1
        if self.reads > 2:
            raise self.error
        return self.images[rows]


@pytest.mark.parametrize(
    "error", [EnsyncError("a", "b", "c"), KeyboardInterrupt(), ValueError("x")]
)
def test_an_error_in_the_middle_leaves_nothing_behind(tmp_path, monkeypatch, error):
    monkeypatch.setattr(filling, "PIECE", 1000)
    given = source()
    given.images["train"] = Breaks(given.images["train"], error)
    with pytest.raises(type(error)):
        write_dataset(tmp_path / "a.h5", given)
    assert list(tmp_path.iterdir()) == []


SLOW = """
import time, sys, numpy as np
from ensync.storage import writing
from ensync.storage.sources.source import Source
class Slow:
    shape = (100, 8, 8, 1)
    def __getitem__(self, rows):
        print("writing", flush=True); time.sleep(60)
labels = np.arange(100) % 2
source = Source("s", {"train": Slow()}, {"train": labels}, ["a", "b"], "", "")
writing.write_dataset(sys.argv[1], source)
"""


def test_a_kill_in_the_middle_leaves_no_file_and_the_next_run_clears_up(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, tmp_path / "a.h5"], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"writing\n"
    process.kill()
    process.wait()
    assert not (tmp_path / "a.h5").exists() and len(os.listdir(tmp_path)) == 1
    write_dataset(tmp_path / "a.h5", source())
    assert os.listdir(tmp_path) == ["a.h5"]


FULL = """
import sys, resource, numpy as np
from ensync.core.errors import EnsyncError
from ensync.storage.writing import write_dataset
from ensync.storage.sources.source import Source
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    images, labels = np.zeros((1000, 8, 8, 1), np.uint8), np.arange(1000) % 2
    source = Source("s", {"train": images}, {"train": labels}, ["a", "b"], "", "")
    write_dataset(sys.argv[1], source)
except EnsyncError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 1000, 10_000, 50_000])
def test_a_disk_that_takes_no_more_is_told_in_one_sentence(tmp_path, limit):
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "a.h5", str(limit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "a.h5 cannot be written because" in done.stdout and done.stdout.count("\n") == 1
    assert os.listdir(tmp_path) == []


def test_too_little_room_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(
        writing.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})
    )
    with pytest.raises(EnsyncError, match="has 0.0 MB free; expected 1.1 MB for a.h5"):
        write_dataset(tmp_path / "a.h5", source())


def test_a_directory_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EnsyncError, match="cannot be used because"):
        write_dataset(tmp_path / "file" / "a.h5", source())
    write_dataset(tmp_path / "new" / "deep" / "a.h5", source())  # directories are made


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_told(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(EnsyncError, match="permission is denied"):
        write_dataset(tmp_path / "a.h5", source())


def test_reading_costs_no_memory_beyond_what_is_asked_for(tmp_path):
    rows = 20_000
    given = Source(
        "s",
        {"train": pictures(rows, 32, 32, 3)},
        {"train": np.arange(rows) % 10},
        list("0123456789"),
        "",
        "",
    )
    write_dataset(tmp_path / "a.h5", given)
    code = (
        "import sys, resource; from ensync.storage.dataset import open_dataset; from "
        "ensync.storage.verification import check; d = open_dataset(sys.argv[1]);"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; check(d); d.rows('train', "
        "list(range(0, 1000, 7)));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.h5"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 30_000  # KiB, where the images are 60,000
