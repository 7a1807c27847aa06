"""A checkpoint comes back as it went, or is refused with the reason."""

import json
import subprocess

import h5py
import numpy as np
import pytest

from ensync.core.errors import EnsyncError
from ensync.storage import checkpoint_format
from ensync.storage.checkpoint import (
    checkpoint_name,
    fill_arrays,
    load_checkpoint,
    newest_valid,
    prune,
    save_checkpoint,
)

ARRAYS = {
    "parameters": np.arange(1000, dtype=np.float32),
    "optimizer/first": np.linspace(0, 1, 10),
    "optimizer/second": np.zeros((0, 3), np.float32),
    "member/0/labels": np.arange(12, dtype=np.int64).reshape(3, 4),
    "learning_rate": np.array(1e-3),
}
ATTRIBUTES = {
    "epoch": 3,
    "step": 1407,
    "history": [{"loss": float("inf"), "rate": 0.1 + 0.2}],
    "name": "Größe\n\"'",
    "seed": 2**70,
    "none": None,
}


@pytest.fixture
def path(tmp_path):
    """A valid checkpoint."""
    path = tmp_path / checkpoint_name(3, 1407)
    save_checkpoint(path, ATTRIBUTES, ARRAYS)
    return path


def test_everything_comes_back_to_the_bit(path):
    attributes, arrays = load_checkpoint(path)
    assert attributes == ATTRIBUTES
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        assert arrays[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", sorted(checkpoint_format.DTYPES))
def test_every_number_type_comes_back(tmp_path, dtype):
    array = np.array([[0, 1, 2], [3, 4, 5]], dtype=dtype)[:, ::2]
    save_checkpoint(tmp_path / "a.h5", {}, {"a": array})
    back = load_checkpoint(tmp_path / "a.h5")[1]["a"]
    assert back.dtype == array.dtype and np.array_equal(back, array)


def test_any_hdf5_tool_reads_the_same(path):
    with h5py.File(path) as file:
        index = json.loads(file["index"][()])
        assert index["attributes"] == ATTRIBUTES and index["creator"].startswith("ensync ")
        for name, array in ARRAYS.items():
            assert np.array_equal(file["arrays"][name][()], array)


def test_the_checksum_can_be_had_by_hand(path):
    found = subprocess.run(
        ["sh", "-c", f"{{ head -n 4 {path}; tail -c +513 {path}; }} | sha256sum"],
        capture_output=True,
        text=True,
    ).stdout.split()[0]
    assert f"sha256 {found}\n".encode() in path.read_bytes()[:512]


def test_numpy_scalars_become_plain_numbers(tmp_path):
    save_checkpoint(tmp_path / "a.h5", {"epoch": np.int64(3), "loss": np.float32(0.5)}, {})
    assert load_checkpoint(tmp_path / "a.h5") == ({"epoch": 3, "loss": 0.5}, {})


def test_what_cannot_be_stored_is_a_programming_error(tmp_path):
    with pytest.raises(ValueError, match="cannot be stored"):
        save_checkpoint(tmp_path / "a.h5", {}, {"a": np.array([object()])})
    with pytest.raises(TypeError, match="cannot be stored"):
        save_checkpoint(tmp_path / "a.h5", {"a": object()}, {})
    assert list(tmp_path.iterdir()) == []


def test_the_same_state_gives_the_same_bytes(tmp_path):
    for name in "ab":
        save_checkpoint(tmp_path / name, ATTRIBUTES, ARRAYS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_newest_is_most_steps_and_damaged_ones_are_named(tmp_path):
    for epoch, step in [(1, 100), (2, 200), (2, 250), (10, 1000)]:
        save_checkpoint(tmp_path / checkpoint_name(epoch, step), {"step": step}, ARRAYS)
    newest = tmp_path / checkpoint_name(10, 1000)
    assert newest_valid(tmp_path) == (newest, [])
    newest.write_bytes(newest.read_bytes()[:-1])
    (tmp_path / checkpoint_name(2, 250)).write_bytes(b"")
    path, rejected = newest_valid(tmp_path)
    assert path == tmp_path / checkpoint_name(2, 200)
    assert [name.name for name, _ in rejected] == [
        checkpoint_name(10, 1000),
        checkpoint_name(2, 250),
    ]
    assert "cut short" in rejected[0][1] and "is empty" in rejected[1][1]


def test_no_directory_and_no_checkpoint_are_none(tmp_path):
    assert newest_valid(tmp_path) == (None, []) == newest_valid(tmp_path / "absent")


def test_prune_keeps_the_newest_and_the_protected_and_foreign_files(tmp_path):
    names = [checkpoint_name(epoch, epoch * 10) for epoch in range(1, 7)]
    for name in [*names, "best.h5", "history.jsonl"]:
        (tmp_path / name).write_bytes(b"x")
    removed = prune(tmp_path, keep=2, protect=[tmp_path / names[1]])
    assert [path.name for path in removed] == [names[0], names[2], names[3]]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [names[1], names[4], names[5], "best.h5", "history.jsonl"]
    )
    assert prune(tmp_path, keep=0) == [
        tmp_path / names[1],
        tmp_path / names[4],
    ]  # the newest always stays


def test_fill_checks_every_name_shape_and_type_before_it_copies(path):
    arrays = load_checkpoint(path)[1]
    targets = {name: np.full_like(array, 7) for name, array in ARRAYS.items()}
    for change in [
        {"parameters": np.zeros(999, np.float32)},
        {"parameters": np.zeros(1000)},
        {"more": np.zeros(1)},
    ]:
        with pytest.raises(EnsyncError, match="from another network"):
            fill_arrays(path, arrays, {**targets, **change})
        assert targets["learning_rate"] == 7
    fill_arrays(path, arrays, targets)
    assert all(np.array_equal(targets[name], ARRAYS[name]) for name in ARRAYS)
    with pytest.raises(EnsyncError, match="'learning_rate' is float64"):
        fill_arrays(
            path, arrays, {name: targets[name] for name in targets if name != "learning_rate"}
        )
