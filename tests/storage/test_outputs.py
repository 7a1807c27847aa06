"""Outputs come back as they went, or are refused with the reason."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from ensync.core.errors import EnsyncError
from ensync.storage.checkpoint import load_checkpoint, save_checkpoint
from ensync.storage.outputs import Outputs, SplitOutputs, read_outputs, write_outputs

MEMBERS, CLASSES = np.array([0, 2], np.int64), 3


def split(rows, seed, **beside):
    random = np.random.default_rng(seed)
    return SplitOutputs(
        random.integers(CLASSES, size=rows),
        random.random((len(MEMBERS), rows, CLASSES), np.float32),
        **{name: random.random((rows, CLASSES), np.float32) for name in beside},
    )


WHOLE = Outputs(
    MEMBERS,
    split(7, 1, averaged=True, greedy_soup=True),
    split(5, 2, averaged=True, greedy_soup=True),
    np.array([2], np.int64),
)
PLAIN = Outputs(MEMBERS, split(7, 1), split(0, 2))


@pytest.fixture
def path(tmp_path):
    """A valid file."""
    write_outputs(tmp_path / "outputs.h5", WHOLE)
    return tmp_path / "outputs.h5"


def arrays_of(outputs):
    found = {"members": outputs.members, "soup_members": outputs.soup_members}
    for name in ("test", "validation"):
        for kind, values in vars(outputs.split(name)).items():
            if values is not None:
                found[f"{name}/{kind}"] = values
    return found


@pytest.mark.parametrize("outputs", [WHOLE, PLAIN], ids=["whole", "plain"])
def test_everything_comes_back_to_the_bit(tmp_path, outputs):
    write_outputs(tmp_path / "a.h5", outputs)
    back, went = arrays_of(read_outputs(tmp_path / "a.h5")), arrays_of(outputs)
    assert back.keys() == went.keys()
    for name, array in went.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_any_hdf5_tool_reads_the_same(path):
    with h5py.File(path) as file:
        assert np.array_equal(
            file["arrays/test/probabilities"][()],
            WHOLE.test.probabilities,
        )


def test_a_file_that_is_cut_or_changed_is_refused(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(EnsyncError, match="is cut short"):
        read_outputs(path)
    changed = bytearray(content)
    changed[-1] ^= 1
    path.write_bytes(changed)
    with pytest.raises(EnsyncError, match="is damaged"):
        read_outputs(path)
    path.unlink()
    with pytest.raises(EnsyncError, match="does not exist"):
        read_outputs(path)


def test_another_version_and_another_kind_are_refused(tmp_path):
    arrays = arrays_of(WHOLE)
    save_checkpoint(tmp_path / "a.h5", {"format": "ensync-outputs", "version": 2}, arrays)
    with pytest.raises(EnsyncError, match=r"has version 2 .* expected version 1"):
        read_outputs(tmp_path / "a.h5")
    save_checkpoint(tmp_path / "a.h5", {"kind": "run"}, arrays)
    with pytest.raises(EnsyncError, match="holds no outputs"):
        read_outputs(tmp_path / "a.h5")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"test/labels": np.zeros(6, np.int64)}, "'test/labels' of int64"),
        ({"test/labels": np.zeros(7, np.int32)}, "instead of int64"),
        ({"members": np.zeros(3, np.int64)}, "'test/probabilities' of float32"),
        ({"members": np.int64(2)}, "'members' of int64"),
        ({"validation/averaged": np.zeros((5, 4), np.float32)}, "instead of float32 .5, 3."),
        ({"validation/probabilities": np.zeros((2, 5), np.float32)}, "validation/"),
        ({"test/more": np.zeros(1)}, "an array 'test/more' that nobody knows"),
        ({"validation/labels": None}, "no array 'validation/labels'"),
    ],
)
def test_wrong_shapes_are_refused(path, changes, words):
    attributes, arrays = load_checkpoint(path)
    changed = {name: each for name, each in (arrays | changes).items() if each is not None}
    save_checkpoint(path, attributes, changed)
    with pytest.raises(EnsyncError, match=words):
        read_outputs(path)


def test_wrong_shapes_are_not_written(path):
    before = path.read_bytes()
    wrong = replace(WHOLE, members=np.arange(3))
    with pytest.raises(ValueError, match="test/probabilities"):
        write_outputs(path, wrong)
    assert path.read_bytes() == before and [path] == list(path.parent.iterdir())
