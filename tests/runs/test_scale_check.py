"""Runs beside their predictions: errors by hand, and what is refused."""

import json
from dataclasses import replace

import pytest
from report.scale_sample import make_scale, settings

from ensync.core.errors import EnsyncError
from ensync.core.scaling.prediction import Contestant, Model
from ensync.core.scaling.wires import Wires
from ensync.report.results import Machine, RunResult, to_json
from ensync.report.scale_tables import check_lines, scale_lines
from ensync.runs.scale import outcome
from ensync.runs.scale.checking import check, measured_step, prediction_of, read_prediction


@pytest.fixture
def prediction():
    return make_scale()


def write_run(directory, step, machine=None, **sections):
    """Write what a run of two epochs leaves whose steps took so long in the second one."""
    result = RunResult(
        job=settings(**sections),
        seconds=1.0,
        test={},
        machine=machine or Machine("a CPU", 2, 2, 1, 2),
        bytes_sent=1_600_000,
    )
    directory.mkdir(parents=True)
    (directory / "result.json").write_text(to_json(result))
    records = [
        {"member": 0, "epoch": epoch, "step": 100 * epoch, "seconds": seconds}
        for epoch, seconds in ((1, 170 * step), (2, 100 * step))
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (directory / "history.jsonl").write_text(lines)
    return directory


def test_a_single_epoch_counts_whole(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"epoch": 1, "step": 50, "seconds": 2.0}\n')
    assert measured_step(tmp_path) == (0.04, 1)


def test_steps_of_members_are_averaged(tmp_path):
    lines = [
        {"member": member, "epoch": epoch, "step": 10 * epoch, "seconds": epoch * (1.0 + member)}
        for epoch in (1, 2, 3)
        for member in (0, 1)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "history.jsonl").write_text(text)
    assert measured_step(tmp_path) == ((2 + 3) * (1 + 2) / 40, 3)


def test_the_error_is_that_of_the_mean_step(prediction, tmp_path):
    found = check(write_run(tmp_path / "run", step=0.015), prediction)
    assert found.predicted == pytest.approx(0.006 + 0.006)
    assert found.measured == pytest.approx(0.015)
    assert found.error == pytest.approx(-0.2)
    assert found.predicted_bytes == found.measured_bytes == 1_600_000
    assert (found.label, found.ranks, found.nodes) == ("synchronous", 2, 2)
    shown = "\n".join(check_lines([found]))
    assert "-20.0 %" in shown and "off by 20.0 % at most (run)" in shown
    assert "checkpoints" not in shown
    more = replace(found, measured_bytes=2_000_000)
    assert check_lines([more])[-1].startswith("Counted are checkpoints, too")


@pytest.mark.parametrize(
    "sections,contestant",
    [
        ({"communication": {"every": 8}}, Contestant("local SGD", 8)),
        ({"communication": {"every": "never"}}, Contestant("local SGD", float("inf"))),
        ({"communication": {"partners": "ring"}}, Contestant("gossip", 1)),
        ({"training": {"strategy": "ensemble"}}, Contestant("apart")),
    ],
)
def test_a_run_is_told_by_its_job(prediction, tmp_path, sections, contestant):
    found = check(write_run(tmp_path / "run", 0.01, **sections), prediction)
    assert found.label == contestant.label
    expected = Model(prediction.calibration).predict(contestant, 2)
    assert found.predicted == pytest.approx(expected.step)


def test_a_prediction_comes_back_from_its_file(prediction, tmp_path):
    (tmp_path / "scale.json").write_text(to_json(prediction))
    assert read_prediction(tmp_path) == prediction
    assert prediction_of(tmp_path / "run", None) == prediction  # in the directory above
    other = write_run(tmp_path / "elsewhere/run", 0.01)
    assert prediction_of(other, str(tmp_path / "scale.json")) == prediction


REFUSED = {
    "other": ({"training": {"batch": 32}}, None, "whose training.batch is not that"),
    "network": ({"network": {"hidden": [7]}}, None, "whose network is not that"),
    "groups": (
        {"training": {"strategy": "ensemble"}, "ensemble": {"members": 3}},
        None,
        "members are not as many as its ranks",
    ),
    "compressed": ({"communication": {"compression": "bf16"}}, None, "knows nothing"),
    "growing": ({"communication": {"every": 2, "growth": 0.1}}, None, "communication.growth"),
    "parted": ({"communication": {"every": "never", "start": 9}}, None, "communication.start"),
    "served": ({"communication": {"server": "seeded"}}, None, "went to a server"),
    "threads": ({}, Machine("a CPU", 2, 2, 16, 32), "of which the prediction knows nothing"),
    "place": ({}, Machine(), "does not say where"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_runs_are_refused(prediction, tmp_path, name):
    sections, machine, why = REFUSED[name]
    with pytest.raises(EnsyncError, match=why):
        check(write_run(tmp_path / "run", 0.01, machine, **sections), prediction)


def test_what_is_no_run_or_no_prediction_is_refused(prediction, tmp_path):
    with pytest.raises(EnsyncError, match="no result can be read"):
        check(tmp_path, prediction)
    with pytest.raises(EnsyncError, match=r"there is none"):
        prediction_of(tmp_path, None)
    (tmp_path / "scale.json").write_text('{"format": "ensync-scale", "version": 9}')
    with pytest.raises(EnsyncError, match="version 9 of 'ensync-scale'"):
        read_prediction(tmp_path)
    (tmp_path / "scale.json").write_text("[1")
    with pytest.raises(EnsyncError, match="JSONDecodeError"):
        read_prediction(tmp_path)
    (tmp_path / "history.jsonl").write_text("")
    with pytest.raises(EnsyncError, match="has no epoch"):
        measured_step(tmp_path)


def test_the_tables_say_what_follows(prediction):
    shown = "\n".join(scale_lines(prediction))
    assert "MPI between nodes: 1000.0 us a message, 1.0 MB/s, measured" in shown
    assert "seconds of an epoch" in shown and "local SGD, H = 64" in shown
    assert "Synchronous is fastest on 1 rank; more are slower, because of the" in shown


def test_what_was_not_measured_is_said(prediction):
    bare = replace(prediction.calibration, wires=Wires(), ranks_on_node=2)
    link, node = outcome.unknown(bare, (1, 2, 4))
    assert "More than 2 ranks that train together are not predicted" in link
    assert "Sums of ranks that share a node were not measured" in node
    assert outcome.unknown(prediction.calibration, (1, 64)) == []
    assert outcome.default_ranks(3, False) == (1, 2, 3)
    assert outcome.default_ranks(3, True)[-3:] == (256, 512, 1024)
