"""Damaged files of every format are read or refused in one sentence: no traceback, no hang, no
crash, no flood of memory.

ENSYNC_FUZZ sets the number of mutations of each file (make fuzz: thousands), ENSYNC_FUZZ_SEED the
first.
"""

import gzip
import io
import resource
import tarfile
import zipfile

import numpy as np
import pytest
from mutations import try_all
from PIL import Image
from samples import NAMES, cifar_binary, cifar_pickle, pictures, tar, write_csv, write_idx

from ensync.storage import verification
from ensync.storage.dataset import open_dataset
from ensync.storage.sources.checking import Asked
from ensync.storage.sources.cifar import read_cifar10
from ensync.storage.sources.csv import read_csv
from ensync.storage.sources.decoding import Recipe, decode
from ensync.storage.sources.idx import read_idx
from ensync.storage.sources.npz import read_npz
from ensync.storage.sources.picture_rows import Pictures
from ensync.storage.sources.source import Source
from ensync.storage.sources.streams.parquet import read_parquet
from ensync.storage.sources.streams.tar import read_tar
from ensync.storage.writing import write_dataset

USUAL = 200
FLOOD = 600 * 1024  # KiB by which memory may grow in one test


@pytest.fixture(autouse=True)
def memory():
    """Check that no damaged file made this process grow much."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < FLOOD


def check(outcomes):
    """Go through all mutations; some must be refused, or they were none."""
    outcomes = list(outcomes)
    assert any(outcomes), "no mutation was refused"


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
@pytest.mark.parametrize("inside", [False, True])
def test_idx(tmp_path, name, inside):
    write_idx(tmp_path)
    whole = (tmp_path / name).read_bytes()

    def read(data):
        (tmp_path / name).write_bytes(gzip.compress(data, 1) if inside else data)
        read_idx(tmp_path, "mnist")

    check(try_all(gzip.decompress(whole) if inside else whole, USUAL // 2, read))


@pytest.mark.parametrize("bad_rows", ["refuse", "skip"])
def test_csv(tmp_path, bad_rows):
    write_csv(tmp_path / "table.csv", 12, 3, header=True)

    def read(data):
        (tmp_path / "table.csv").write_bytes(data)
        read_csv(tmp_path / "table.csv", bad_rows)

    check(try_all((tmp_path / "table.csv").read_bytes(), USUAL, read))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    images = pictures(12, 6, 6, 3)
    save(
        tmp_path / "a.npz",
        x_train=images,
        y_train=np.arange(12) % 3,
        X_test=images[:6],
        y_test=[0, 1, 2] * 2,
    )
    save(tmp_path / "b.npz", images=images[..., 0], labels=np.eye(3)[np.arange(12) % 3])

    def read(data):
        (tmp_path / "damaged.npz").write_bytes(data)
        read_npz(tmp_path / "damaged.npz")

    for name in ("a.npz", "b.npz"):
        check(try_all((tmp_path / name).read_bytes(), USUAL, read))


@pytest.mark.parametrize("name", ["x_train", "y_train"])
def test_arrays_in_npz(tmp_path, name):
    """Damage that the checksums of the archive do not tell."""
    arrays = {"x_train": pictures(12, 6, 6, 3), "y_train": np.eye(3)[np.arange(12) % 3]}
    whole = {}
    for key, array in arrays.items():
        np.save(out := io.BytesIO(), array)
        whole[key] = out.getvalue()

    def read(data):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            for key, content in (whole | {name: data}).items():
                archive.writestr(f"{key}.npy", content)
        read_npz(tmp_path / "a.npz")

    check(try_all(whole[name], USUAL, read))
    head = whole[name].index(b"\n") + 1
    check(try_all(whole[name][:head], USUAL, lambda data: read(data + whole[name][head:])))


@pytest.mark.parametrize("write", [cifar_binary, cifar_pickle])
def test_cifar_batches(tmp_path, write):
    images, labels = pictures(2, 32, 32, 3), [1, 2]
    suffix = ".bin" if write is cifar_binary else ""
    for name in NAMES:
        (tmp_path / (name + suffix)).write_bytes(write(images, labels))
    whole = write(images, labels)
    pixels = whole.index(images[0, :, :, 0].tobytes()[:100])
    parts = (
        whole[:pixels],
        whole[pixels : pixels + 6000],
        whole[pixels + 6000 :],
    )  # most damage belongs where the structure is

    def read(data):
        (tmp_path / ("data_batch_1" + suffix)).write_bytes(data)
        read_cifar10(tmp_path, 2)

    check(try_all(whole, USUAL // 2, read))
    check(try_all(parts[0], USUAL, lambda head: read(head + parts[1] + parts[2])))


@pytest.mark.parametrize("inside", [False, True])
def test_cifar_archives(tmp_path, inside):
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in NAMES:
            data = cifar_binary(pictures(1, 32, 32, 3), [3])
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            entry.size, entry.pax_headers = len(data), {"comment": "x" * 50}
            archive.addfile(entry, io.BytesIO(data))
    packed = tmp_path / "cifar-10-binary.tar.gz"

    def read(data):
        packed.write_bytes(gzip.compress(data, 1) if inside else data)
        read_cifar10(packed, 1)

    check(try_all(tar.getvalue() if inside else gzip.compress(tar.getvalue()), USUAL, read))


def streamed(source):
    """Go through the images that a source streams."""
    for images in source.images.values():
        assert all(len(rows) for rows, _pixels in images.pieces())


@pytest.mark.parametrize("way", ["folders", "samples", "classes", "compressed"])
def test_tars(tmp_path, way):
    data = [cat, dog] = [small_png(seed) for seed in range(2)]
    whole = tar([(f"{label}/{n}.png", data[n % 2]) for label in "ab" for n in range(2)])
    if way == "samples":
        parts = [(f"{n}.{e}", d) for n in range(4) for e, d in (("png", cat), ("cls", b"%d" % n))]
        whole = tar(parts)
    elif way == "classes":
        whole = tar([("a.tar", tar([("1.png", cat)])), ("b.tar", tar([("1.png", dog)]))])

    def read(damaged):
        (tmp_path / "a.tar").write_bytes(damaged)
        streamed(read_tar(tmp_path / "a.tar", Asked(8, bad_rows="skip")))

    check(try_all(gzip.compress(whole) if way == "compressed" else whole, USUAL // 8, read))


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: no Parquet")
    from pyarrow import parquet

    images = [{"bytes": small_png(seed), "path": f"{seed}.png"} for seed in range(4)]
    table = pyarrow.table({"image": images, "label": ["a", "b"] * 2})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)

    def read(damaged):
        (tmp_path / "b.parquet").write_bytes(damaged)
        streamed(read_parquet(tmp_path / "b.parquet", Asked(8, bad_rows="skip")))

    check(try_all((tmp_path / "a.parquet").read_bytes(), USUAL // 4, read))


def small_png(seed):
    """Return the bytes of a picture of 8 x 8."""
    Image.fromarray(pictures(1, 8, 8, 3, seed)[0] // 64 * 64).save(out := io.BytesIO(), "png")
    return out.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *((kind, "RGB") for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm")),
        ("png", "PA"),
        ("webp", "RGBA"),
        ("tiff", "I;16"),
        ("tiff", "F"),
    ],
)
def test_pictures(tmp_path, kind, mode):
    picture = Image.fromarray(pictures(1, 20, 30, 3)[0] // 16 * 16)
    out, tags = io.BytesIO(), {}
    if mode in ("I;16", "F"):
        picture, tags = (
            Image.fromarray(
                (np.asarray(picture)[..., 0] * 200).astype("u2" if mode == "I;16" else "f4")
            ),
            {"tiffinfo": {340: 0, 341: 60_000}},
        )
    elif mode != "RGB":
        picture, tags = (
            picture.convert(mode[0] if mode == "PA" else mode),
            {"transparency": 3} if mode == "PA" else {},
        )
    picture.save(out, kind, **tags)
    path = tmp_path / f"x.{kind}"

    def read(data):
        path.write_bytes(data)
        result = decode(path, (8, 8, 3), Recipe())
        if result.problem:
            assert "\n" not in result.problem
            Pictures([path], (8, 8, 3))[np.array([0])]
        assert result.pixels.shape == (8, 8, 3)

    check(try_all(out.getvalue(), USUAL, read))


def test_datasets(tmp_path):
    images, labels = {"train": pictures(40, 4, 4, 1)}, {"train": np.arange(40) % 2}
    write_dataset(tmp_path / "a.h5", Source("s", images, labels, ["a", "b"], "x", "y"))
    path = tmp_path / "b.h5"

    def read(data):
        path.write_bytes(data)
        with open_dataset(path) as dataset:
            assert len(dataset.describe()) < 100_000
            dataset.rows("train", np.array([3, 0]))
            verification.check(dataset)

    outcomes = list(try_all((tmp_path / "a.h5").read_bytes(), 2 * USUAL, read))
    assert sum(map(bool, outcomes)) > 0.9 * len(
        outcomes
    )  # few bytes of the file are without a checksum
