"""`ensync report` as a person types it, on simulated cells."""

import json
import shutil

import pytest
from runs.study.simulated import PLAIN, cell_of, place, write_simulated

from ensync.cli.main import main
from ensync.report.results import to_json
from ensync.runs.study.analysis import analyse

FILES = {"study.json", "study.csv", "study_pairs.csv", "study.md", "study.tex", "study.html"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    found = tmp_path_factory.mktemp("study")
    write_simulated(found, PLAIN[:3])
    return found


@pytest.fixture(scope="module")
def shown(directory):
    """Draw the study once; return the files' contents."""
    assert main(["report", str(directory)]) == 0
    return {name: (directory / name).read_text() for name in FILES}


def test_all_files_are_written_and_the_verdict_is_told(directory, shown, capsys):
    assert main(["report", str(directory)]) == 0
    told = capsys.readouterr().out
    assert "ensemble on all data" in told and "paired seeds" in told and "study.html" in told
    assert shown["study.json"] == to_json(analyse(directory))
    again = {name: (directory / name).read_text() for name in FILES}
    assert again == shown, "the same cells give the same bytes"


def test_an_unfinished_study_is_drawn(directory, tmp_path, capsys):
    shutil.copytree(directory, tmp_path / "copy")
    (place(tmp_path / "copy", cell_of(PLAIN[1], 3, 3)) / "cell.json").unlink()
    assert main(["report", str(tmp_path / "copy")]) == 0
    told = capsys.readouterr().out
    assert "The study is not finished: 1 of 9 cells is missing." in told
    assert "synchronous on 3 ranks, seed 3: not done yet" in told
    assert "not done yet" in (tmp_path / "copy" / "study.html").read_text()


def test_study_json_is_enough(shown, tmp_path, capsys):
    (tmp_path / "study.json").write_text(shown["study.json"])
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "study.tex").read_text() == shown["study.tex"]
    assert (tmp_path / "study.html").read_text() == shown["study.html"]


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_what_is_no_study_is_refused_in_a_sentence(content, shown, tmp_path, capsys):
    other = json.loads(shown["study.json"]) | {"version": 2}
    (tmp_path / "study.json").write_text(json.dumps(other) if content is None else content)
    assert main(["report", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "study.json cannot be used" in told and "Traceback" not in told


def test_a_directory_without_a_study_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "no cell of a study is done" in capsys.readouterr().err


def test_the_schema_knows_every_field_that_is_written(shown, capsys):
    assert main(["report", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["properties"]) == set(json.loads(shown["study.json"]))
    assert "95 %" in schema["$defs"]["Range"]["description"]
    contestant = json.loads(shown["study.json"])["contestants"][0]
    assert set(schema["$defs"]["ContestantResult"]["properties"]) == set(contestant)


def test_without_a_study_the_usage_is_told(capsys):
    assert main(["report"]) == 2
    assert "STUDY" in capsys.readouterr().err
