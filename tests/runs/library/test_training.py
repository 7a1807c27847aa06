"""A job from keywords is that of a job file, and its run is that of `ensync train`."""

import json

import numpy as np
import pytest

import ensync
from ensync.core.config.job import dump_job, load_job
from ensync.core.errors import EnsyncError
from ensync.mpi.world import alone
from ensync.report.results import Comparison, from_json
from ensync.report.study_results import StudyResult
from ensync.runs import train
from ensync.runs.options import RunOptions


def settings(place, output, **more):
    return {
        "data": place.dataset,
        "network": {"hidden": (8,)},
        "training": {"epochs": np.int64(1), "batch": 64},
        "output": output,
    } | more


def test_keywords_are_the_settings_of_a_job_file(place, tmp_path):
    made = ensync.job(
        **settings(place, tmp_path / "run", optimizer="sgd", network="mlp", schedule="cosine")
    )
    (tmp_path / "job.toml").write_text(
        f'data.path = "{place.dataset}"\ntraining = {{epochs = 1, batch = 64}}\n'
        f'output.directory = "{tmp_path}/run"\noptimizer.name = "sgd"\nnetwork.name = "mlp"\n'
        'schedule.name = "cosine"\n'
    )
    assert made == load_job(tmp_path / "job.toml")
    with ensync.Dataset(place.dataset) as dataset:
        assert ensync.job(data=dataset, output="x").data.path == str(place.dataset)


@pytest.mark.parametrize("form", ["job", "dictionary", "file"])
def test_a_run_is_that_of_the_verb(place, tmp_path, form):
    given = settings(place, tmp_path / "ours")
    job = ensync.job(**given)
    (tmp_path / "job.toml").write_text(dump_job(job))
    run = ensync.train(
        {"job": job, "dictionary": given, "file": tmp_path / "job.toml"}[form], quiet=True
    )
    theirs = f"output.directory={tmp_path}/theirs"
    train.train(alone(), str(tmp_path / "job.toml"), RunOptions(overrides=(theirs,)))
    again = ensync.load(tmp_path / "theirs")
    assert run.directory == tmp_path / "ours"
    for name, values in again._tester.loaded.arrays.items():
        assert np.array_equal(run._tester.loaded.arrays[name], values), name


def test_an_earlier_run_is_kept_continued_or_deleted_as_asked(place, tmp_path, capfd):
    given = settings(place, tmp_path / "run")
    ensync.train(given, quiet=True)
    assert capfd.readouterr().out == ""
    with pytest.raises(EnsyncError, match="holds a run already"):
        ensync.train(given)
    more = given | {"training": {"epochs": 2, "batch": 64}}
    assert ensync.train(more, overwrite=True, quiet=True).history["epoch"].tolist() == [1, 2]
    ensync.train(more, resume=True)
    assert "nothing is left to train" in capfd.readouterr().out


@pytest.mark.parametrize(
    "sections, sentence",
    [
        ({"netwrok": "mlp"}, "unknown section 'netwrok' in the job given .*'network'"),
        ({"training": {"epochs": -1}}, "training.epochs = -1"),
        ({"training": 3}, "training"),
        ({"optimizer": {"name": "adam", "momentum": 0.5}}, "has no effect"),
        ({"data": None}, "data"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(place, tmp_path, sections, sentence):
    with pytest.raises(EnsyncError, match=sentence):
        ensync.job(**settings(place, tmp_path / "run") | sections)
    with pytest.raises(EnsyncError, match=sentence):
        ensync.train(settings(place, tmp_path / "run") | sections)
    assert not (tmp_path / "run").exists()


def test_a_comparison_is_that_of_the_verb(place, tmp_path, capfd):
    given = settings(place, tmp_path / "ours", optimizer={"learning_rate": 0.02})
    comparison = ensync.compare(given, quiet=True)
    assert capfd.readouterr().out == ""
    written = from_json(Comparison, json.loads((tmp_path / "ours/comparison.json").read_bytes()))
    assert written.rows == comparison.rows and len(comparison.rows) >= 2
    with ensync.Dataset(place.dataset) as dataset:
        test = dataset.images("test"), dataset.labels("test")
    scores = {
        directory.name: ensync.load(directory).score(*test)
        for directory in (tmp_path / "ours").iterdir()
        if directory.is_dir()
    }
    assert scores.keys() == {"one_rank", "ensemble"}
    assert set(scores.values()) <= {row.test_accuracy for row in comparison.rows}
    with pytest.raises(EnsyncError, match="earlier results are there"):
        ensync.compare(given)
    shown = comparison._repr_html_()
    assert shown.startswith("<iframe ") and "&lt;h1&gt;Together or apart?" in shown


def test_a_study_is_that_of_the_verb(place, tmp_path, capfd):
    wide = {"base": "one_rank", "set": ["network.hidden=[12]"]}
    study = {"seeds": 2, "contestants": ["one_rank", "wide"], "own": {"wide": wide}}
    given = settings(place, tmp_path / "ours", study=study)
    found = ensync.compare(given, quiet=True)
    assert capfd.readouterr().out == ""
    written = from_json(StudyResult, json.loads((tmp_path / "ours/study.json").read_bytes()))
    assert found == written and len(found.pairs) == 1
    assert [each.name for each in found.contestants] == ["one_rank", "wide"]
    assert "&lt;!DOCTYPE html&gt;" in found._repr_html_()
    with pytest.raises(EnsyncError, match="earlier results are there"):
        ensync.compare(given, quiet=True)
    assert ensync.compare(given, quiet=True, resume=True).pairs == found.pairs
