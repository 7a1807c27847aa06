"""Damaged job files and overrides are a job or one sentence: no traceback, no hang, no flood of
memory.

ENSYNC_FUZZ sets the number of mutations of each kind (make fuzz: thousands), ENSYNC_FUZZ_SEED the
first.
"""

import copy
import random
import resource
import tomllib
from pathlib import Path

import pytest
import tomli_w
from mutations import mutate, places, rounds, survives

from ensync.core.config.job import dump_job, job_from_dict, load_job, override
from ensync.core.errors import EnsyncError

JOBS = sorted((Path(__file__).parents[2] / "jobs").rglob("*.toml"))
LAYERS = b"""
[data]
path = "data/x.h5"
[[optimizer.groups]]
parameters = ["*.bias", "*.beta"]
factor = 64.0
epochs = 2.5
[[network.layers]]
kind = "residual"
layers = [{kind = "convolution", filters = 8, activation = "relu"}, {kind = "batch_normalization"}]
shortcut = [{kind = "convolution", filters = 8, size = 1}]
[[network.layers]]
kind = "flatten"
[[network.layers]]
kind = "dense"
units = 10
[output]
directory = "runs/x"
"""
FLOOD = 300 * 1024  # KiB by which memory may grow in one test
STRANGE = [
    -1,
    0,
    1,
    2**31,
    2**63,
    -(2**63),
    2**64,
    10**30,
    int("9" * 4000),
    0.5,
    -0.0,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    True,
    False,
    "",
    " ",
    "auto",
    "nan",
    "relu",
    "1",
    "\x00",
    "\n",
    "é漢\u202e\U0001f9e0",
    "../" * 40,
    "x" * 100_000,
    [],
    [[]],
    [1, 2],
    [1.5, "a"],
    [-1],
    [2**40],
    [{}],
    {},
    {"a": {"b": 1}},
    {"kind": "dense"},
    ["relu"] * 5000,
]
FRAGMENTS = [
    "=",
    ".",
    "..",
    "[",
    "]",
    "{",
    "}",
    '"',
    "'",
    '"""',
    "#",
    ",",
    "-",
    "e",
    "nan",
    "1e999",
    "inf",
    "[" * 3000,
    "{a=" * 900,
    "9" * 5000,
    "0x" + "f" * 9000,
    "\n",
    "\x00",
    "\ud800",
    "é",
    "1979-05-27T07:32:00Z",
    "training",
    "epochs",
    "network",
    "layers",
    "data.path",
    "true",
    "  ",
]


@pytest.fixture(autouse=True)
def memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < FLOOD


def check(read, usual):
    """Try all mutations; some must be refused and some must not, or they were none."""
    outcomes = [survives(lambda number=number: read(number), number) for number in rounds(usual)]
    assert any(outcomes) and not all(outcomes)


def sound(job):
    """A job that was not refused is whole: written and read again it is the same."""

    again = job_from_dict(tomllib.loads(dump_job(job)))
    assert again == job


@pytest.mark.parametrize(
    "source", [LAYERS, *JOBS[:2]], ids=lambda s: "layers" if isinstance(s, bytes) else s.stem
)
def test_bytes(tmp_path, source):
    data, path = source if isinstance(source, bytes) else source.read_bytes(), tmp_path / "job.toml"

    def read(number):
        path.write_bytes(mutate(data, number))
        sound(load_job(path))

    check(read, 100)


def edited(tree, number):
    """Return the tree with one to three values replaced, moved, renamed, added, removed or
    buried in lists.
    """
    dice = random.Random(number)
    for _ in range(dice.choice((1, 1, 2, 3))):
        holder, key = dice.choice(places(tree, []) or [(tree, "data")])
        value, kind = copy.deepcopy(dice.choice(STRANGE)), dice.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            names = ["", "epochs", "layers", "kind", "é\n", "x" * 5000, str(key) + "s"]
            holder[str(dice.choice(names))] = holder.pop(key)
        elif kind == 2:
            for _ in range(dice.choice((1, 30, 200))):
                holder[key] = [holder[key]] if dice.random() < 0.5 else {"layers": holder[key]}
        else:
            holder[key] = value
    return tree


@pytest.mark.parametrize(
    "source", [LAYERS, *JOBS[:2]], ids=lambda s: "layers" if isinstance(s, bytes) else s.stem
)
def test_values(tmp_path, source):

    text, path = (
        (source if isinstance(source, bytes) else source.read_bytes()).decode(),
        tmp_path / "job.toml",
    )

    def read(number):
        tree = edited(tomllib.loads(text), number)
        try:
            path.write_text(tomli_w.dumps(tree), encoding="utf-8")
        except RecursionError:
            sound(job_from_dict(tree))
        else:
            sound(load_job(path))

    check(read, 150)


def test_overrides(tmp_path):
    path = tmp_path / "job.toml"
    path.write_bytes(LAYERS)
    keys = [
        "training.epochs",
        "training.batch",
        "optimizer.learning_rate",
        "output.directory",
        "network.layers",
        "data.path",
        "training.targets",
        "network",
    ]

    def read(number):
        dice = random.Random(number)
        value = "".join(
            dice.choice([*FRAGMENTS, "1", "2", "0.1", "3"])
            for _ in range(dice.choice((0, 1, 1, 2, 4)))
        )
        text = f"{dice.choice(keys)}={value}"
        if dice.random() < 0.3:
            place = dice.randrange(len(text) + 1)
            text = text[:place] + dice.choice(FRAGMENTS) + text[place + dice.randrange(3) :]
        sound(load_job(path, [text]))

    check(read, 300)


@pytest.mark.parametrize(
    "text",
    [
        "training.epochs=" + "[" * 3000,
        "training.seed=" + "9" * 5000,
        "training.seed=1" + "0" * 4000,
        "output.directory=\ud800",
        "a\n.b=1",
    ],
)
def test_what_the_overrides_found(text):
    with pytest.raises(EnsyncError) as refused:
        job_from_dict(override({"data": {"path": "x"}, "output": {"directory": "runs"}}, [text]))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 2000
