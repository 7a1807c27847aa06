"""The page of a profile and the verb that writes it, from records written by hand."""

import json

import pytest
from report.html_reader import Reader
from report.test_profile_phases import FAST, SLOW, record, steps_of

from ensync.cli.main import main
from ensync.report.profile.page import read_profile, verdict
from ensync.report.profile.phases import together
from ensync.report.profile.picture import shown_steps
from ensync.report.profile.summary import summary
from ensync.report.profile.trace import trace_text


@pytest.fixture(scope="module")
def content():
    steps = []
    for first in range(9):
        shift = 20.0 * first
        pair = steps_of(record(FAST, 2, first, shift), record(SLOW, 2, first, shift))
        steps += together(pair)[0]
    return trace_text(steps, summary(steps, 9, 0, 0.0, ["0 Dense"]), ["0 Dense"])


@pytest.fixture
def run(content, tmp_path):
    (tmp_path / "profile.json").write_text(content)
    (tmp_path / "job.toml").write_text("[network]\nname = 'mlp'\n")
    return tmp_path


def test_the_verb_writes_the_page_and_tells_the_table(run, capsys):
    assert main(["report", str(run)]) == 0
    told = capsys.readouterr().out
    assert "the mean of 9 of 9 steps on each of 2 ranks" in told and "profile.html" in told
    page = (run / "profile.html").read_text()
    read = Reader(page)
    sentence = "A step takes 10000.000 ms: 22.5 % of it is forward, 17.5 % "
    assert verdict(read_profile(run / "profile.json").table).startswith(sentence)
    rows = {row[0]: row[1:] for row in read.rows if row}
    assert rows["waiting for the slowest"][:2] == ["1750.000", "17.5 %"]
    assert rows["waiting for the slowest"][2:] == ["1000.000 (rank 1)", "2500.000 (rank 0)"]
    assert "[network]" in read.text() and page.count("<svg") == 1


def test_the_picture_has_what_each_rank_did(run):
    shown = shown_steps(read_profile(run / "profile.json").events)
    assert [step.number for step in shown] == [2, 5, 8], "evenly spaced"
    fast = [(bar.phase, bar.start, bar.length) for bar in shown[1].bars if bar.rank == 0]
    assert ("waiting for the slowest", 5000.0, 2000.0) in fast
    assert ("input", 0.0, 1000.0) in fast and ("forward", 1000.0, 3000.0) in fast
    assert {bar.rank for bar in shown[0].bars} == {0, 1}


@pytest.mark.parametrize("damage", ["cut", "version", "events", "list"])
def test_a_damaged_file_is_refused_in_a_sentence(run, content, damage, capsys):
    path, whole = run / "profile.json", json.loads(content)
    whole["otherData"] |= {"version": 2} if damage == "version" else {}
    whole["traceEvents"] = [{}] if damage == "events" else whole["traceEvents"]
    path.write_text({"cut": content[:-9], "list": "[]"}.get(damage, json.dumps(whole)))
    assert main(["report", str(run)]) == 2
    told = capsys.readouterr().err
    assert "profile.json" in told and "train again with --set output.profile=true" in told
    assert "Traceback" not in told and not (run / "profile.html").exists()
