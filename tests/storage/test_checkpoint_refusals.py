"""Every way a checkpoint file can be wrong gets its sentence, at once and within the memory of
the file's size.
"""

import json
import os
import random
import tracemalloc

import h5py
import numpy as np
import pytest

from ensync.core.errors import EnsyncError
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
    save_checkpoint(
        path,
        {"epoch": 1},
        {"parameters": np.arange(300, dtype=np.float32), "member/0": np.arange(3)},
    )
    return path


def test_every_truncation_is_refused(path):
    whole = path.read_bytes()
    for size in [*range(0, 600, 7), *range(600, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        refuse(
            path, "is empty" if size == 0 else "is not an Ensync checkpoint|is damaged|is cut short"
        )
    path.write_bytes(whole + b"\0")
    refuse(path, "is damaged")


def test_one_flipped_bit_is_refused_wherever_it_is(path):
    whole = path.read_bytes()
    everywhere = [*range(HEADER + 200), *range(HEADER + 200, len(whole), 23), len(whole) - 1]
    for place in everywhere:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(
            EnsyncError, match="not an Ensync checkpoint|is damaged|is cut short|newer"
        ):
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


def forge(path, index, place=None, length=None, data=bytes(64)):
    """Write a file of a true header and checksum around any index: what a hostile author would
    send. Its data is at byte 512.
    """
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    place, length = (
        HEADER + len(data) if place is None else place,
        len(text) if length is None else length,
    )
    lines = (
        f"Ensync checkpoint\nversion 1\nbytes {HEADER + len(data) + len(text)}\nindex "
        f"{place} {length}\n"
    ).encode()
    path.write_bytes(checkpoint_format.seal(lines, data + text) + data + text)


def arrays(*entries, **more):
    """An index of these arrays."""
    return {"creator": "x", "attributes": {}, "arrays": list(entries), **more}


HUGE = 2**39
NOT_OURS, NOT_HELD = "an index that is not one of Ensync's", "which the file does not hold"


@pytest.mark.parametrize(
    ("index", "match"),
    [
        (arrays(["a", "float32", [HUGE], 512]), NOT_HELD),
        (arrays(["a", "float32", [17], 512]), None),
        (arrays(["a", "float32", [4000], 512]), NOT_HELD),
        (arrays(["a", "float32", [1], 0]), NOT_HELD),
        (arrays(["a", "float32", [1], 10**9]), NOT_HELD),
        (arrays(*[[f"a{n}", "float32", [16], 512] for n in range(100)]), "declares more data"),
        (arrays(["a", "float32", [HUGE, HUGE, HUGE], 512]), NOT_OURS),
        (arrays(["a", "float32", [HUGE, HUGE, 0], 512]), NOT_OURS),
        (arrays(["a", "float32", [0, 5, HUGE], 512]), None),
        (arrays(["a", "float32", [-1], 512]), NOT_OURS),
        (arrays(["a", "float32", [1.0], 512]), NOT_OURS),
        (arrays(["a", "float32", [True], 512]), NOT_OURS),
        (arrays(["a", "float32", "12", 512]), NOT_OURS),
        (arrays(["a", "float32", [1] * 33, 512]), NOT_OURS),
        (arrays(["a", "float32", [10**400], 512]), NOT_OURS),
        (arrays(["a", "float32", [1], -512]), NOT_OURS),
        (arrays(["a", "float32", [1], None]), NOT_OURS),
        (arrays(["a", "object", [1], 512]), NOT_OURS),
        (arrays(["a", "O", [1], 512]), NOT_OURS),
        (arrays(["a", "S9", [1], 512]), NOT_OURS),
        (arrays(["a", "bool", [1], 512]), NOT_OURS),
        (arrays(["a", "complex128", [1], 512]), NOT_OURS),
        (arrays(["a", ["float32"], [1], 512]), NOT_OURS),
        (arrays(["a", "float32", [1]]), NOT_OURS),
        (arrays([7, "float32", [1], 512]), NOT_OURS),
        (arrays([["a"], "float32", [1], 512]), NOT_OURS),
        (arrays(["a", "float32", [1], 512], ["a", "float32", [1], 512]), NOT_OURS),
        (arrays("abcd"), NOT_OURS),
        (arrays(arrays=None), NOT_OURS),
        (arrays(attributes=[]), NOT_OURS),
        ({"attributes": {}}, NOT_OURS),
        ([], NOT_OURS),
        (b"", NOT_OURS),
        (b"{", NOT_OURS),
        (b"\xff\xfe", NOT_OURS),
        (b"[" * 100_000, NOT_OURS),
        (b'{"attributes": {"a": 1' + b"0" * 10_000 + b'}, "arrays": []}', NOT_OURS),
        (b"cos\nsystem\n(S'true'\ntR.", NOT_OURS),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, bytes | dict | list) else "",
)
def test_a_hostile_file_with_a_true_checksum_is_refused(tmp_path, index, match):
    forge(tmp_path / "hostile.h5", index)
    tracemalloc.start()
    try:
        if match is None:
            load_checkpoint(tmp_path / "hostile.h5")
        else:
            refuse(tmp_path / "hostile.h5", match)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("place", "length"), [(10**12, 10), (512, 10**12), (512, 0), (0, 512)])
def test_an_index_elsewhere(tmp_path, place, length):
    forge(tmp_path / "hostile.h5", arrays(), place, length)
    refuse(tmp_path / "hostile.h5", "beyond its end|not one of Ensync's")


def test_names_cannot_speak_to_the_terminal(tmp_path):
    forge(tmp_path / "hostile.h5", arrays(["\x1b[2J\n", "float32", [999], 512]))
    with pytest.raises(EnsyncError) as caught:
        load_checkpoint(tmp_path / "hostile.h5")
    assert str(caught.value).isprintable()


def test_links_of_hdf5_are_never_followed(tmp_path, path):
    """What only HDF5 would follow (external and soft links, virtual and external storage) is not
    looked at.
    """
    whole = path.read_bytes()
    with h5py.File(path, "r+") as file:
        file["arrays/link"] = h5py.ExternalLink("/etc/passwd", "/")
    refuse(path, "is damaged|is cut short")
    path.write_bytes(whole)
    assert set(load_checkpoint(path)[1]) == {"parameters", "member/0"}


def test_mutations_under_a_true_checksum_end_in_a_sentence_or_load(path):
    whole, choose = path.read_bytes(), random.Random(1)
    lines, body = b"".join(whole.splitlines(keepends=True)[:4]), whole[HEADER:]
    place = int(lines.split()[-2]) - HEADER
    refused = 0
    for _ in range(1500):
        changed = bytearray(body)
        for _ in range(choose.choice([1, 2, 8])):
            where = choose.randrange(place, len(body))
            changed[where] = choose.choice(b'0123456789[]{},":-eE \\u\x00\xff')
        path.write_bytes(checkpoint_format.seal(lines, changed) + changed)
        try:
            load_checkpoint(path)
        except EnsyncError:
            refused += 1
    assert refused > 100
