"""Runs put together must be of one dataset, and those left out are known."""

import json

import pytest

from ensync.core.errors import EnsyncError
from ensync.report.collect import collect_scaling, collect_sweep, doubts


@pytest.fixture
def runs(tmp_path):
    """Two results, tested on different datasets, and a run that is still in training."""
    for ranks in (1, 2):
        (tmp_path / f"ranks_{ranks}").mkdir()
        result = {
            "format": "ensync-result",
            "version": 1,
            "seconds": 2.0 / ranks,
            "test": {"soft_voting": {"accuracy": 0.9}},
            "validation_accuracy": [0.9],
            "job": {
                "training": {"strategy": "synchronous", "seed": ranks},
                "data": {"path": f"{ranks}.h5"},
            },
            "dataset": {"fingerprint": f"sha256:{ranks}"},
        }
        (tmp_path / f"ranks_{ranks}" / "result.json").write_text(json.dumps(result))
    (tmp_path / "ranks_4").mkdir()
    return [tmp_path / f"ranks_{ranks}" for ranks in (1, 2, 4)]


def test_runs_on_different_datasets_are_not_put_together(runs):
    for collect in (collect_scaling, lambda paths: collect_sweep("training.seed", paths)):
        with pytest.raises(
            EnsyncError, match="ranks_1 and .*ranks_2 were tested on different datasets"
        ):
            collect(runs)
    collect_sweep("data.path", runs)  # over which they may differ
    assert (runs[0].parent / "sweep.json").exists() and "1 of 3 runs left out" in doubts(
        "data.path", runs
    )[0]
