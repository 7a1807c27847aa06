"""A start seldom looks for garbage, a run as often as Python does by itself."""

import gc

import pytest

from ensync import __main__ as program
from ensync.cli.ranks import on_ranks
from ensync.core import garbage


def test_a_start_looks_seldom_and_a_run_as_usual(monkeypatch):
    found = []

    def verb():
        found.append(gc.get_threshold()[0])
        on_ranks(lambda comm: found.append(gc.get_threshold()))

    gc.unfreeze()
    monkeypatch.setattr(program, "note_signals", lambda words: None)
    monkeypatch.setattr(program.streams, "prepare", lambda: None)
    monkeypatch.setattr("ensync.cli.main.main", verb)
    with pytest.raises(SystemExit):
        program.main()
    assert found == [garbage.START, garbage.USUAL] and gc.get_freeze_count() > 1000
    assert garbage.USUAL == gc.get_threshold() and garbage.USUAL[0] < garbage.START
