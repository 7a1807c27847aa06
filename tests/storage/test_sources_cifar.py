"""CIFAR-10 comes in from every form it is published in, and nothing in it is ever run."""

import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image
from samples import NAMES, cifar_pickle, pictures, published, write_cifar

from ensync.core.errors import EnsyncError
from ensync.storage.published import CIFAR10_BATCHES
from ensync.storage.sources import cifar
from ensync.storage.sources.cifar import read_cifar10
from ensync.storage.sources.plain_pickle import read_plain_pickle

ROWS = 20


def archive(directory, target):
    """Pack a directory as the published archives are packed."""
    with tarfile.open(target, "w:gz") as tar:
        tar.add(directory, arcname=directory.name)


@pytest.mark.parametrize("kind", ["bin", "py"])
@pytest.mark.parametrize("form", ["directory", "parent", "archive", "directory with archive"])
def test_every_published_form_gives_the_same_arrays(tmp_path, kind, form):
    directory = tmp_path / f"cifar-10-batches-{kind}"
    images, labels = write_cifar(directory, kind, ROWS)
    packed = tmp_path / f"cifar-10-{'binary' if kind == 'bin' else 'python'}.tar.gz"
    if "archive" in form:
        archive(directory, packed)
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
    place = {
        "directory": directory,
        "parent": tmp_path,
        "archive": packed,
        "directory with archive": tmp_path,
    }[form]
    source = read_cifar10(place, ROWS)
    assert np.array_equal(source.images["train"], images[:-ROWS]) and np.array_equal(
        source.images["test"], images[-ROWS:]
    )
    assert (
        source.labels["train"].tolist() == labels[:-ROWS]
        and source.labels["test"].tolist() == labels[-ROWS:]
    )
    assert source.class_names[3] == "cat"


def test_a_published_batch_comes_in_to_the_byte():
    directory = published(
        "cifar-10"
    )  # holds the batches as lossless pictures, with what stands before and after the pixels
    sheet = np.asarray(Image.open(directory / "test_batch.webp").convert("RGB"))
    pixels = sheet.reshape(100, 32, 100, 32, 3).transpose(0, 2, 1, 3, 4).reshape(10_000, 32, 32, 3)
    planes = pixels.transpose(0, 3, 1, 2).tobytes()
    batch = (
        (directory / "test_batch.head").read_bytes()
        + planes
        + (directory / "test_batch.tail").read_bytes()
    )
    assert hashlib.md5(batch).hexdigest() == CIFAR10_BATCHES["test_batch"]
    images, labels = cifar._decode("test_batch", batch, 10_000)
    assert np.array_equal(images, pixels)
    assert labels.tolist() == pickle.loads(batch, encoding="latin-1")["labels"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is 0 bytes long"),
        (bytes(3073 * ROWS - 1), f"is {3073 * ROWS - 1} bytes long, not {3073 * ROWS}"),
        (bytes([11]) + bytes(3073 * ROWS - 1), "gives image 0 the label 11"),
    ],
)
def test_each_damage_of_a_binary_batch_has_its_sentence(tmp_path, content, sentence):
    write_cifar(tmp_path, "bin", ROWS)
    (tmp_path / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(EnsyncError) as caught:
        read_cifar10(tmp_path, ROWS)
    assert sentence in str(caught.value) and "data_batch_3" in str(caught.value)


class Evil:
    """Runs a command when unpickled."""

    def __reduce__(self):
        return eval, ("__import__('os').system('touch ensync-was-here')",)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (pickle.dumps(Evil(), 2), "GLOBAL '__builtin__ eval'"),
        (b"\x80\x02cos\nsystem\nU\x02ls\x85R.", "GLOBAL 'os system'"),
        (b"\x80\x02cnumpy\nndarray\nU\x02ls\x85R.", "a call of something else"),
        (pickle.dumps([1], 2), "APPEND"),
        (b"\x80\x02}.", "KeyError"),
        (b"\x80\x02K\x01.", "a int out of place"),
        (b"\x80\x02}", "ValueError"),
        (b"\x80\x02" + b"K\x01" * 200_000 + b".", "more than 100000 opcodes"),
        (
            cifar_pickle(pictures(ROWS - 1, 32, 32, 3), [1] * (ROWS - 1)),
            f"holds ({ROWS - 1}, 3072) pixels",
        ),
        (cifar_pickle(pictures(ROWS, 32, 32, 3), [1] * (ROWS - 1)), f"({ROWS - 1},) labels"),
        (cifar_pickle(pictures(ROWS, 32, 32, 3), [300] * ROWS), "gives image 0 the label 300"),
        (
            cifar_pickle(pictures(ROWS, 32, 32, 3), [1] * ROWS).replace(b"U\x02u1", b"U\x02O8"),
            "an array that is not of bytes",
        ),
        (
            cifar_pickle(pictures(ROWS, 32, 32, 3), [1] * ROWS)[:-100],
            "is not a pickle of CIFAR-10's kind",
        ),
    ],
)
def test_no_pickle_is_run_and_each_has_its_sentence(tmp_path, content, sentence):
    write_cifar(tmp_path, "py", ROWS)
    (tmp_path / "data_batch_2").write_bytes(content)
    with pytest.raises(EnsyncError) as caught:
        read_cifar10(tmp_path, ROWS)
    assert sentence in str(caught.value) and "data_batch_2" in str(caught.value)


def test_a_hand_made_pickle_is_what_python_reads():
    images = pictures(2, 32, 32, 3)
    data = cifar_pickle(images, [7, 300])
    theirs, ours = pickle.loads(data, encoding="latin-1"), read_plain_pickle(data)
    assert (
        ours["labels"] == theirs["labels"] == [7, 300]
        and ours["batch_label"] == theirs["batch_label"]
    )
    assert ours["data"].dtype == theirs["data"].dtype and np.array_equal(
        ours["data"], theirs["data"]
    )


def test_missing_batches_are_named(tmp_path):
    with pytest.raises(EnsyncError, match="has no data_batch_1"):
        read_cifar10(tmp_path)
    write_cifar(tmp_path, "bin", ROWS)
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(EnsyncError, match="lacks test_batch.bin"):
        read_cifar10(tmp_path, ROWS)


def test_archives_are_refused_when_cut_short_incomplete_or_endless(tmp_path, monkeypatch):
    directory, packed = tmp_path / "cifar-10-batches-bin", tmp_path / "cifar.tar.gz"
    write_cifar(directory, "bin", ROWS)
    archive(directory, packed)
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EnsyncError, match="cut short or damaged"):
        read_cifar10(packed, ROWS)
    packed.write_bytes(whole)
    monkeypatch.setattr(cifar, "LARGEST_ARCHIVE", 100_000)
    with pytest.raises(EnsyncError, match="holds more than 100000 bytes"):
        read_cifar10(packed, ROWS)
    monkeypatch.undo()
    (directory / "data_batch_4.bin").unlink()
    archive(directory, packed)
    with pytest.raises(EnsyncError, match="lacks data_batch_4"):
        read_cifar10(packed, ROWS)


def test_links_in_an_archive_are_not_followed(tmp_path):
    packed = tmp_path / "cifar.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        for name in NAMES:
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(entry, io.BytesIO())
    with pytest.raises(EnsyncError, match="lacks data_batch_1"):
        read_cifar10(packed, ROWS)
