"""Every way a checkpoint file can be wrong gets its sentence, at once and within the memory of the file's size."""

import hashlib
import io
import os
import random
import tracemalloc

import h5py
import numpy as np
import pytest

from ensync.errors import EnsyncError
from ensync.storage import checkpoint_format
from ensync.storage.checkpoint import load_checkpoint, save_checkpoint, verify_checkpoint
from ensync.storage.checkpoint_format import HEADER


def refuse(path, match):
    """Assert that both ways of looking at the file refuse it with one sentence that names it."""
    for look in (load_checkpoint, verify_checkpoint):
        with pytest.raises(EnsyncError, match=match) as caught:
            look(path)
        text = str(caught.value)
        assert str(path) in text and text.endswith(".") and "\n" not in text
    return True


@pytest.fixture
def path(tmp_path):
    """A valid checkpoint."""
    path = tmp_path / "a.h5"
    save_checkpoint(path, {"epoch": 1}, {"parameters": np.arange(300, dtype=np.float32), "member/0": np.arange(3)})
    return path


def test_every_truncation_is_refused(path):
    whole = path.read_bytes()
    for size in [*range(0, 600, 7), *range(600, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        refuse(path, "is empty" if size == 0 else "is not an Ensync checkpoint|is damaged|is cut short")
    path.write_bytes(whole + b"\0")
    refuse(path, "is damaged")


def test_one_flipped_bit_is_refused_wherever_it_is(path):
    whole = path.read_bytes()
    everywhere = [*range(HEADER + 200), *range(HEADER + 200, len(whole), 23), len(whole) - 1]
    for place in everywhere:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(EnsyncError, match="not an Ensync checkpoint|is damaged|is cut short|newer"):
            verify_checkpoint(path)


def test_a_newer_version_is_named(path):
    path.write_bytes(path.read_bytes().replace(b"version 1\n", b"version 12\n", 1))
    refuse(path, "has format version 12, newer than this Ensync")


def test_other_files_are_not_checkpoints(tmp_path, path):
    (tmp_path / "text").write_text("hello\n" * 1000)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = np.arange(1000)
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "text", "is not an Ensync checkpoint")
    refuse(tmp_path / "other.h5", "is not an Ensync checkpoint")
    refuse(tmp_path / "directory", "is not a file|a directory")
    refuse(tmp_path / "pipe", "is not a file")
    refuse(tmp_path / "absent", "does not exist")
    refuse("/dev/null", "is not a file")


def forge(path, fill):
    """Write a file with a true header around an HDF5 file that `fill` makes: what a hostile author would send."""
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=HEADER) as file:
        file.attrs["format"], file.attrs["version"] = np.bytes_(checkpoint_format.FORMAT), np.bytes_("1")
        file["attributes"] = np.bytes_(b"{}")
        fill(file)
    seal(path, image.getvalue()[HEADER:])


def seal(path, body):
    """Write `body` under a header that fits it."""
    header = checkpoint_format._header(1, HEADER + len(body), hashlib.sha256(body).hexdigest())
    path.write_bytes(header + body)


def external_storage(file):
    file.create_dataset("arrays/a", (8,), "u1", external=[("/etc/passwd", 0, 8)])


def virtual(file):
    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "a", (8,))
    file.create_virtual_dataset("arrays/a", layout)


def huge(file):
    file.create_dataset("arrays/a", (2**40,), "f4")


def huge_overflowing(file):
    file.create_dataset("arrays/a", (2**31, 2**31, 4), "f4")


def compressed_bomb(file):
    file.create_dataset("arrays/a", (2**24,), "f4", compression="gzip", chunks=(2**20,))[0] = 1


def group_in_itself(file):
    group = file.create_group("arrays/a")
    group["b"] = file["arrays"]


def twice_the_same(file):
    file["arrays/a"] = np.zeros(9)
    file["arrays/b"] = file["arrays/a"]


def deep(file):
    file["arrays/" + "/".join("g" * 40)] = np.zeros(3)


def variable_length(file):
    file.create_dataset("arrays/a", (2,), h5py.vlen_dtype(np.int32))


def put(name, value):
    def fill(file):
        if name in file:
            del file[name]
        file[name] = value

    fill.__name__ = f"{name} = {type(value).__name__} {str(value)[:40]}"
    return fill


def attributes(text):
    fill = put("attributes", np.bytes_(text))
    fill.__name__ = f"attributes {text[:20]!r}"
    return fill


def versionless(file):
    del file.attrs["version"]


def version_as_variable_text(file):
    file.attrs["version"] = "1"


def version_as_array(file):
    file.attrs["version"] = np.arange(1000)


@pytest.mark.parametrize(
    ("fill", "match"),
    [
        (put("arrays/a", h5py.ExternalLink("/etc/other.h5", "/a")), "links it to another place"),
        (put("arrays/a", h5py.SoftLink("/attributes")), "links it to another place"),
        (put("arrays", h5py.SoftLink("/")), "links it to another place"),
        (external_storage, "does not hold"),
        (virtual, "does not hold"),
        (huge, "does not hold"),
        (huge_overflowing, "does not hold|not readable"),
        (compressed_bomb, "does not hold"),
        (group_in_itself, "more than once"),
        (twice_the_same, "more than once"),
        (deep, "not an array of numbers"),
        (variable_length, "not an array of numbers"),
        (put("arrays/a", "text"), "not an array of numbers"),
        (put("arrays/a", np.bytes_("text")), "not an array of numbers"),
        (put("arrays/a", np.zeros(3, complex)), "not an array of numbers"),
        (put("arrays/a", np.zeros(3, bool)), "not an array of numbers"),
        (put("arrays/a", np.zeros(3, ">f4")), "not an array of numbers"),
        (put("arrays/a", np.zeros(3, [("x", "f4"), ("y", "i4")])), "not an array of numbers"),
        (put("arrays/a", h5py.Empty("f4")), "not an array of numbers"),
        (put("arrays", np.zeros(3)), "not readable"),
        (put("more", np.zeros(3)), "not laid out"),
        (put("attributes", np.zeros(3)), "not one text"),
        (put("attributes", "variable"), "not one text"),
        (put("attributes", h5py.SoftLink("/arrays")), "links it to another place"),
        (attributes(b"{"), "not JSON"),
        (attributes(b"[1]"), "not a table"),
        (attributes(b"\xff\xfe"), "not JSON"),
        (attributes(b"[" * 100_000), "not JSON"),
        (attributes(b'{"a": 1' + b"0" * 10_000 + b"}"), "not JSON"),
        (versionless, "not laid out"),
        (version_as_variable_text, "not laid out"),
        (version_as_array, "not laid out"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_hostile_file_with_a_true_checksum_is_refused(tmp_path, fill, match):
    forge(tmp_path / "hostile.h5", fill)
    tracemalloc.start()
    try:
        refuse(tmp_path / "hostile.h5", match)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_forged_file_without_a_fault_loads(tmp_path):
    forge(tmp_path / "a.h5", put("arrays/a", np.arange(3)))
    assert load_checkpoint(tmp_path / "a.h5")[1]["a"].tolist() == [0, 1, 2]


def test_mutations_under_a_true_checksum_end_in_a_sentence_or_load(path):
    """The HDF5 library itself meets these; a hang is ended by the timeout, a crash is one."""
    whole, choose = path.read_bytes()[HEADER:], random.Random(1)
    refused = 0
    for _ in range(400):
        body = bytearray(whole)
        for _ in range(choose.choice([1, 2, 8])):
            place = choose.randrange(len(body))
            body[place : place + 8] = choose.choice([b"\xff" * 8, bytes(8), choose.randbytes(8), choose.randrange(len(body)).to_bytes(8, "little")])
        seal(path, bytes(body[: len(whole)]))
        try:
            load_checkpoint(path)
        except EnsyncError:
            refused += 1
    assert refused > 100
