"""A checkpoint whose checksum is true but whose content is a stranger's is gone on with or refused
in one sentence.

ENSYNC_FUZZ sets the number of mutations of each kind (make fuzz: thousands), ENSYNC_FUZZ_SEED the
first.
"""

import copy
import random
import resource
from dataclasses import fields

import numpy as np
import pytest
from mpi4py import MPI
from mutations import places, rounds, survives
from PIL import Image
from samples import prepare

from ensync.runs.content import Content, Record, Standing, Trained
from ensync.runs.describe import describe_run
from ensync.runs.evaluate import evaluate
from ensync.runs.options import RunOptions
from ensync.runs.predict import predict
from ensync.runs.schema import EpochRecord, IdentityRecord, MemberPosition, RunAttributes
from ensync.runs.train import resume, train
from ensync.storage.checkpoint import load_checkpoint, save_checkpoint
from ensync.training.position import Position

JOB = """
[data]
path = "digits.h5"
[network]
hidden = [4]
[training]
strategy = "ensemble"
epochs = 2
batch = 512
threads = 1
[ensemble]
members = 2
[checkpoint]
keep = 1
[output]
directory = "run"
"""
FLOOD = 300 * 1024  # KiB by which memory may grow in one test
STRANGE = [
    -1,
    0,
    1,
    3,
    2**31,
    2**63,
    10**30,
    0.5,
    1e308,
    None,
    True,
    "",
    "lost",
    "x" * 10_000,
    "../../etc/passwd",
    "\x1b[2J\n",
    [],
    [1, 2],
    [[]],
    [None],
    [{}],
    {},
    {"a": {"b": 1}},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two members, stopped after an epoch: its attributes and arrays."""
    directory = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        prepare("digits", "digits.h5")
        (directory / "job.toml").write_text(JOB)
        Image.new("L", (8, 8)).save("one.png")
        train(MPI.COMM_SELF, "job.toml", RunOptions(("training.epochs=1",)))
        (path,) = (directory / "run" / "checkpoints").iterdir()
        attributes, arrays = load_checkpoint(path)
        attributes["job"]["training"]["epochs"] = 2
        yield directory, attributes, arrays


@pytest.fixture(autouse=True)
def memory(run, monkeypatch):
    monkeypatch.chdir(run[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < FLOOD


def edit(tree, dice):
    """Replace, remove or double one value of the tree."""
    within = (
        tree
        if dice.random() < 0.3
        else tree[dice.choice([key for key in tree if key not in ("kind", "creator")])]
    )
    found = places(within, []) if isinstance(within, dict | list) else []
    holder, key = dice.choice(found or [(tree, dice.choice(list(tree)))])
    match dice.randrange(4):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        case _:
            holder[key] = copy.deepcopy(dice.choice(STRANGE))


def damage(arrays, dice):
    """Give one array another name, shape or type, or take it away."""
    name = dice.choice(list(arrays))
    values = arrays.pop(name)
    match dice.randrange(4):
        case 0:
            arrays[
                dice.choice(
                    ["x", "members/0007/parameters", "members/0000/best/parameters", name + "s"]
                )
            ] = values
        case 1:
            arrays[name] = values[: len(values) // 2]
        case 2:
            arrays[name] = values.astype(np.int32)
        case 3:
            arrays[name] = np.concatenate([values, values])


def test_everything_of_a_position_is_checked():
    assert set(Standing.model_fields) == {*(field.name for field in fields(Position)), "updates"}


@pytest.mark.parametrize(
    ("checked", "typed"),
    [(Standing, MemberPosition), (Trained, IdentityRecord), (Content, RunAttributes)],
)
def test_what_is_checked_is_what_the_types_say(checked, typed):
    assert set(checked.model_fields) == set(typed.__annotations__) - {"kind"}


def test_of_a_record_everything_is_checked_that_all_versions_have():
    assert set(Record.model_fields) == EpochRecord.__required_keys__


VERBS = {
    "describe": lambda path: list(describe_run(path)),
    "resume": lambda path: resume(MPI.COMM_SELF, "run", (), False),
    "predict": lambda path: predict(MPI.COMM_SELF, "run", ("one.png",), None, ()),
    "evaluate": lambda path: evaluate(MPI.COMM_SELF, "run", ("soft_voting",), (), None),
}


@pytest.mark.parametrize("verb", VERBS)
def test_strange_content(run, verb, capsys):
    _, attributes, arrays = run

    def read(number):
        dice, tree, vectors = random.Random(number), copy.deepcopy(attributes), dict(arrays)
        if dice.random() < 0.2:
            damage(vectors, dice)
        else:
            edit(tree, dice)
        for old in run[0].glob("run/checkpoints/*"):
            old.unlink()
        path = run[0] / "run" / "checkpoints" / "checkpoint-e00001-s000000001.h5"
        save_checkpoint(path, tree, vectors)
        VERBS[verb](path)

    outcomes = [survives(lambda number=number: read(number), number) for number in rounds(60)]
    capsys.readouterr()
    assert any(outcomes) and not all(outcomes)
