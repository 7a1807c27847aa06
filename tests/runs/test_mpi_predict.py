"""Predictions for other programs: the same on any number of ranks, in order, and equal to what the
loaded run says of the same pixels; what cannot be read is named and counted.
"""

import contextlib
import csv
import io
import json

import numpy as np
import pytest
from PIL import Image
from runs import helpers

import ensync
from ensync.core.sharding import block
from ensync.mpi.world import on_root
from ensync.report.console import SilentConsole
from ensync.runs import evaluate, lifecycle, predict
from ensync.storage.dataset import open_dataset

COMM = helpers.COMM

pytestmark = pytest.mark.mpi

COUNT = 13  # no multiple of 2 or 3


@pytest.fixture
def place(tmp_path_factory, tmp_path):
    """A directory that all ranks know, with pictures in it, two of them bad, and a run of two
    members; the pixels of the good ones uint8 (13, 8, 8, 1).
    """
    path = helpers.common_digits(tmp_path_factory, 120)
    settings = {
        "network": {"name": "mlp", "hidden": [8]},
        "training": {"epochs": 1, "batch": 32, "threads": 1, "strategy": "ensemble"},
        "ensemble": {"members": COMM.size},
    }
    make = helpers.job_maker(path, tmp_path, **settings)
    job = make()
    lifecycle.train(helpers.begin(COMM, job))
    with open_dataset(path) as dataset:
        pixels = dataset.read("test", 0, COUNT).reshape(COUNT, 8, 8, 1)
    pictures = f"{job.output.directory}/pictures"

    def write():
        from pathlib import Path

        Path(pictures).mkdir()
        for row, image in enumerate(pixels):
            Image.fromarray(image[..., 0]).save(f"{pictures}/{row:02d}.png")
        for name in ("03bad.png", "11bad.png"):
            Path(pictures, name).write_bytes(b"\x89PNG no")

    on_root(COMM, write)
    return job.output.directory, pictures, pixels


def said(*arguments, form):
    """What predict printed to both streams on this rank, which must end well."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        predict.predict(COMM, *arguments, (), form)
    return out.getvalue(), err.getvalue()


def test_predictions_for_programs(place, monkeypatch):
    directory, pictures, pixels = place
    monkeypatch.setattr(predict, "AT_ONCE", 2)
    table, told = said(directory, (pictures,), None, form="csv")
    text, _ = said(directory, (pictures,), None, form="json")
    if COMM.rank:
        assert table == told == text == ""
        return
    heads, *rows = csv.reader(io.StringIO(table))
    content = json.loads(text)
    expected = ensync.load(directory).predict_proba(pixels)
    assert heads == ["file", "class", *content["classes"]] and len(rows) == COUNT
    assert [row[0] for row in rows] == [f"{pictures}/{n:02d}.png" for n in range(COUNT)]
    shares = np.array([row[2:] for row in rows], float)
    assert np.allclose(shares, expected, atol=2e-6)
    assert [int(row[1]) for row in rows] == expected.argmax(1).tolist()
    assert [one["shares"] for one in content["predictions"]] == shares.tolist()
    assert [one["file"] for one in content["predictions"]] == [row[0] for row in rows]
    assert [one["file"][-9:] for one in content["bad"]] == ["03bad.png", "11bad.png"]
    assert all(name in told for name in ("03bad.png", "11bad.png"))
    assert "warning: 2 of 15 pictures left out\n" in told


class Watched(SilentConsole):
    """A console that keeps what it is told of progress, by the kind of work."""

    def __init__(self):
        self.told = {}

    @contextlib.contextmanager
    def counting(self):
        yield lambda what, *so_far: self.told.setdefault(what, []).append(so_far)


def test_each_verb_tells_how_far_it_is(place, monkeypatch):
    """Rank 0 shows a bar: of all its images of all members, and of all files."""
    directory, pictures, _ = place
    told = {}
    for verb, call in (
        (evaluate, lambda: evaluate.evaluate(COMM, directory, (), ())),
        (predict, lambda: predict.predict(COMM, directory, (pictures,), None, (), "csv")),
    ):
        console = Watched()
        monkeypatch.setattr(verb, "make_console", lambda rank, console=console: console)
        monkeypatch.setattr(verb, "Console", lambda stream, console=console: console)
        with contextlib.redirect_stdout(io.StringIO()):
            call()
        told[verb] = console.told
    first, last = block(24, COMM.size, COMM.rank)  # a fifth of 120 digits
    assert told[evaluate]["testing images"][-1] == (COMM.size * (last - first),) * 2
    assert told[predict]["reading pictures"][-1] == (COUNT + 2, COUNT + 2)
    first, last = block(COUNT, COMM.size, COMM.rank)
    assert told[predict]["testing images"][-1] == (COMM.size * (last - first),) * 2
    for verb in told.values():
        for so_far in verb.values():
            assert so_far == sorted(so_far) and so_far[0][0] > 0
