"""The schema of result files: there and back, older files, and speed-up."""

import json

import pytest

from ensync.report.results import (
    CellResult,
    Comparison,
    ComparisonRow,
    Contestant,
    DatasetFacts,
    FusionFigures,
    Refused,
    RunResult,
    ScalingRow,
    Sweep,
    from_json,
    to_json,
    with_speedup,
)


def test_what_is_written_is_read_back(comparison, sweep):
    for kind, content in ((Comparison, comparison), (Sweep, sweep)):
        read = from_json(kind, content)
        assert json.loads(to_json(read)) == content and from_json(kind, content) == read


def test_a_figure_that_is_not_finite_becomes_null():
    row = ComparisonRow(name="one rank", strategy="synchronous", test_loss=float("nan"))
    written = json.loads(to_json(row), parse_constant=pytest.fail)
    assert written["test_loss"] is None and from_json(ComparisonRow, written).test_loss is None


def test_a_result_of_an_older_version_is_read():
    """Without a dataset, with a refused fusion, and with what nobody knows any more."""
    old = {
        "format": "ensync-result",
        "version": 1,
        "job": {"training": {"strategy": "ensemble"}},
        "seconds": 2,
        "test": {"soft_voting": {"accuracy": 0.9, "gone": 1}, "weight_averaging": {"refused": "x"}},
        "gone": 1,
    }
    result = from_json(RunResult, old)
    assert result.test == {
        "soft_voting": FusionFigures(accuracy=0.9),
        "weight_averaging": Refused("x"),
    }
    assert result.dataset is None and result.seconds == 2.0
    assert (result.created, result.machine, result.versions) == ("", None, {})
    with pytest.raises(ValueError, match="seconds"):
        from_json(RunResult, old | {"seconds": None})


def test_a_row_knows_its_contestant(comparison):
    found = [row.contestant for row in from_json(Comparison, comparison).rows]
    assert found == [
        Contestant.ONE_RANK,
        Contestant.SYNCHRONOUS,
        *[Contestant.ENSEMBLE] * 3,
    ]


def test_speedup_is_over_one_rank_or_the_fewest():
    rows = [ScalingRow(strategy="ensemble", ranks=r, seconds=s) for r, s in ((2, 8.0), (4, 5.0))]
    two, four = with_speedup(rows, rows[0])
    assert (two.speedup, two.efficiency) == (2, 1)
    assert (four.speedup, four.efficiency) == (3.2, 0.8)
    untimed = ComparisonRow(name="ensemble", strategy="ensemble", ranks=2)
    assert with_speedup([untimed], untimed) == [untimed]


def test_a_cell_is_read_back():
    cell = CellResult(
        contestant="ensemble_shards",
        ranks=2,
        seed=3,
        trial=1,
        job={"training": {"epochs": 2}},
        seconds=1.5,
        members=2,
        excluded={"1": "diverged"},
        ended=["all 2 epochs", "diverged"],
        validation_accuracy=0.5,
        dataset=DatasetFacts("digits", "data/digits.h5", {"test": 3}, [8, 8, 1], "sha256:0"),
    )
    assert from_json(CellResult, json.loads(to_json(cell))) == cell
    assert not cell.failed
    assert from_json(CellResult, json.loads(to_json(cell)) | {"members": 1}).failed
