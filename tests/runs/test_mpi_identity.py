"""A run knows what it was trained on: it predicts without its dataset, and no verb takes another
for it.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from runs.helpers import COMM, SILENT, begin, common_digits, job_maker, run, write_digits

from ensync.core.errors import EnsyncError
from ensync.core.sharding import Window
from ensync.mpi.world import on_root
from ensync.report.console import Console
from ensync.runs import data as data_module
from ensync.runs import describe as describing
from ensync.runs import evaluate as evaluating
from ensync.runs import state
from ensync.runs import train as training
from ensync.runs.planned import PlannedRun
from ensync.runs.predict import predict
from ensync.storage.checkpoint import load_checkpoint, save_checkpoint
from ensync.storage.dataset import open_dataset
from ensync.training import batches as loader

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]
ROWS = 300


@pytest.fixture
def job(tmp_path_factory, tmp_path):
    """The job of two members, trained on a dataset of its own that the test may spoil."""
    make = job_maker(
        common_digits(tmp_path_factory, ROWS),
        tmp_path,
        network={"hidden": [12]},
        optimizer={"learning_rate": 0.02},
        fusion={"method": "weighted_voting"},
        training={"strategy": "ensemble", "epochs": 2, "batch": 20, "threads": 1},
        ensemble={"members": 2},
    )
    job = make()
    run(COMM, job)
    return job


def spoil(function):
    """Let rank 0 change a file that the others have done with. Collective."""
    COMM.Barrier()
    on_root(COMM, lambda: (function(), None)[1])


def change(path, name, place, value):
    """Overwrite a value of the dataset in place."""

    def write():
        with h5py.File(path, "r+") as file:
            file[name][place] = value

    spoil(write)


def pictures(job):
    """Some test images as files, by rank 0; return their directory."""
    from PIL import Image

    directory = Path(job.output.directory).parent / "pictures"

    def write():
        directory.mkdir()
        with open_dataset(job.data.path) as dataset:
            for row, image in enumerate(dataset.read("test", 0, 12).reshape(-1, 8, 8)):
                Image.fromarray(image).save(directory / f"{row:02d}.png")

    spoil(write)
    return str(directory)


def evaluate(job, **options):
    return evaluating.evaluate(COMM, job.output.directory, (), (), **options)


def resume(job):
    return training.resume(COMM, job.output.directory, ("training.epochs=3",), False)


def refused(words, work, *arguments):
    """Every rank must hear the refusal."""
    with pytest.raises(EnsyncError, match=words) as caught:
        work(*arguments)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def describe(job, *overrides):
    """What `ensync describe` prints of the run, and the refusal after it."""
    found = []
    try:
        for text in describing.describe(job.output.directory, overrides):
            found.append(text)
    except EnsyncError as error:
        return "\n".join(found), str(error)
    return "\n".join(found), ""


def rename_a_class(path):
    """Prepare the digits again with another name of a class, so that the same fingerprint would
    be another class.
    """
    from ensync.storage.sources.digits import read_digits
    from ensync.storage.writing import write_dataset

    def write():
        source = read_digits()
        source.images["train"], source.labels["train"] = (
            source.images["train"][:ROWS],
            source.labels["train"][:ROWS],
        )
        source.class_names[:] = [f"renamed {name}" for name in source.class_names]
        write_dataset(path, source, validation=0.1, seed=1)

    spoil(write)


def test_predict_says_the_same_whatever_became_of_the_dataset(job, capfd):
    images = pictures(job)
    predicted = []
    for spoiled in (
        lambda: None,
        lambda: rename_a_class(job.data.path),
        lambda: spoil(Path(job.data.path).unlink),
    ):
        spoiled()
        capfd.readouterr()
        predict(COMM, job.output.directory, (images,), None, ())
        predicted.append(capfd.readouterr().out)
    assert predicted[0] == predicted[1] == predicted[2]
    assert COMM.rank or len(re.findall(r"png +\d \d", predicted[0])) == 12


def test_votes_are_weighted_as_the_validation_images_said_which_the_run_remembers(job):
    loaders = PlannedRun(job, COMM).open(COMM)
    loaded = state.load_newest(COMM, Path(job.output.directory))
    from ensync.runs import results

    evaluator = results.evaluator_of_files(COMM, loaded, job, loaders)
    assert (
        np.array_equal(loaded.validated(COMM), evaluator.validation.correct)
        and evaluator.validation.correct.sum() > 0
    )


PREPARED = {
    "another seed": (
        lambda path: write_digits(path, ROWS, seed=2),
        r"prepared otherwise: seed 2 instead of 1",
    ),
    "other images": (lambda path: write_digits(path, 250), "other numbers of images"),
    "other names": (rename_a_class, "class 0 is 'renamed 0', the run's is '0'"),
}


@pytest.mark.parametrize("how", PREPARED)
def test_another_dataset_is_refused_by_every_verb_that_would_take_it_for_the_runs(job, how):
    prepare_again, difference = PREPARED[how]
    prepare_again(job.data.path)
    words = rf"is not the one that .* was trained on \({difference}.*--data FILE"
    refused(words, evaluate, job)
    refused(words, resume, job)
    text, refusal = describe(job)
    assert "trained on  'digits', 8 x 8 x 1, 10 classes, 300 images" in text and re.search(
        words, refusal
    )


@pytest.mark.parametrize(
    ("name", "place"),
    [("images/test", (3, 4, 4, 0)), ("images/train", (9, 0, 0, 0)), ("labels/test", 3)],
)
def test_content_overwritten_in_place_is_refused(job, name, place):
    with open_dataset(job.data.path) as dataset:
        before = dataset.labels("test")[3]
    change(job.data.path, name, place, (before + 1) % 10 if "labels" in name else 77)
    for work in (evaluate, resume):
        refused(r"is damaged: rows 0 to \d+ of \w+ are not as written", work, job)


@pytest.mark.parametrize("strategy", ["ensemble", "synchronous"])
def test_content_overwritten_in_place_is_refused_where_it_is_streamed(job, strategy):
    change(job.data.path, "images/train", (9, 0, 0, 0), 77)
    sections = {
        "data": {"placement": "stream"},
        "training": {"strategy": strategy},
        "output": {"directory": job.output.directory + strategy},
    }
    streamed = job.model_copy(
        update={
            name: getattr(job, name).model_copy(update=values) for name, values in sections.items()
        }
    )
    refused(r"is damaged: rows 0 to \d+ of train are not as written", run, COMM, streamed)


def test_evaluate_on_another_file_says_so_and_keeps_the_runs_normalisation(job, capfd):
    other = str(Path(job.data.path).with_name("other.h5"))
    write_digits(other, 200, seed=3)
    loaded = state.load_newest(COMM, Path(job.output.directory))
    loaders = evaluating.loaders_to_test(PlannedRun(job, COMM), loaded, loaded.identity, other)
    with open_dataset(other) as dataset:
        assert np.array_equal(loaders.test.labels, dataset.labels("test")) and not np.array_equal(
            loaded.identity.mean, dataset.mean
        )
    own = PlannedRun(job, COMM).open(COMM)
    assert np.array_equal(loaders.test.mean, own.test.mean) and np.array_equal(
        loaders.test.inverse_std, own.test.inverse_std
    )
    assert not loaders.tested_on().own and own.tested_on().own
    capfd.readouterr()
    evaluate(job, data=other)
    assert COMM.rank or "tested on another dataset than the run's own" in capfd.readouterr().out
    rename_a_class(other)
    refused("other.h5 cannot test .* \\(class 0 is 'renamed 0'", lambda: evaluate(job, data=other))


def older(job):
    """Make of the newest checkpoint one as it was written before runs knew their dataset."""

    def write():
        path = sorted((Path(job.output.directory) / "checkpoints").iterdir())[-1]
        attributes, arrays = load_checkpoint(path)
        del attributes["version"], attributes["dataset"]
        save_checkpoint(path, attributes, arrays)

    spoil(write)


def test_a_checkpoint_of_the_older_version_goes_by_its_fingerprint(job, capfd):
    older(job)
    capfd.readouterr()
    evaluate(job)
    assert COMM.rank or "does not describe its dataset" in capfd.readouterr().out
    assert "a checkpoint of an older version tells no more" in describe(job)[0]
    images = pictures(job)
    predict(COMM, job.output.directory, (images,), "soft_voting", ())
    write_digits(job.data.path, ROWS, seed=2)
    for work in (evaluate, resume):
        refused("is not the one that", work, job)
    spoil(Path(job.data.path).unlink)
    refused("does not exist", predict, COMM, job.output.directory, (images,), None, ())


def test_resuming_a_run_of_the_older_version_completes_its_checkpoints(job):
    older(job)
    resume(job)
    identity = state.load_newest(COMM, Path(job.output.directory)).identity
    with open_dataset(job.data.path) as dataset:
        assert (
            np.array_equal(identity.mean, dataset.mean)
            and identity.class_names == dataset.class_names
            and identity.preparation == dataset.preparation
        )


def test_a_checkpoint_of_a_newer_version_is_refused(job):
    def write():
        path = sorted((Path(job.output.directory) / "checkpoints").iterdir())[-1]
        attributes, arrays = load_checkpoint(path)
        save_checkpoint(path, attributes | {"version": 3}, arrays)

    spoil(write)
    refused("is of a run of version 3", evaluate, job)


def test_describe_works_where_the_dataset_is_missing(job):
    copy = Path(job.data.path).with_name("copy.h5")
    spoil(lambda: shutil.copy(job.data.path, copy))
    assert (
        f"dataset     {job.data.path}, the same" in describe(job)[0]
        and f"{copy}, the same" in describe(job, f"data.path={copy}")[0]
    )
    COMM.Barrier()
    spoil(Path(job.data.path).unlink)
    text, refusal = describe(job)
    assert "does not exist here" in text and refusal == ""


class Meddler:
    """Write to the dataset when the second epoch is told."""

    def __init__(self, path):
        self.path = path

    def __call__(self, records, epochs):
        if records[0]["epoch"] == 2:
            with h5py.File(self.path, "r+") as file:
                file["images/train"][5] = 99


def meddled(job, monkeypatch, **data):
    changed = job.model_copy(update={"data": job.data.model_copy(update=data)})
    begun = begin(COMM, changed)
    told = []
    console = Console(terminal=None) if COMM.rank == 0 else SILENT
    begun.context = replace(begun.context, console=console)
    monkeypatch.setattr(begun.console, "epoch", Meddler(job.data.path), raising=False)
    monkeypatch.setattr(begun.console, "warn", told.append, raising=False)
    return begun, told


def test_a_run_in_memory_goes_on_when_its_file_changes_and_says_so_once(job, monkeypatch):
    begun, told = meddled(job, monkeypatch)
    begun.run()
    assert COMM.rank or (len(told) == 1 and "was written to while the run trains" in told[0])


def test_a_streamed_run_refuses_to_go_on_when_its_file_is_written_to(job, monkeypatch):
    for module in (loader, data_module):
        monkeypatch.setattr(module, "BLOCK", Window(16, 3))
    begun, _ = meddled(job, monkeypatch, placement="stream")
    refused("was written to while the run reads from it", begun.run)
    assert on_root(COMM, lambda: state.has_checkpoint(Path(job.output.directory))), (
        "what was trained before is kept"
    )


def test_nodes_with_different_files_are_refused(job):
    if COMM.size < 2:
        pytest.skip("one rank")
    other = str(Path(job.data.path).with_name("other.h5"))
    write_digits(other, ROWS, seed=2)
    path = other if COMM.rank == 1 else job.data.path
    here = job.model_copy(update={"data": job.data.model_copy(update={"path": path})})
    refused("finds another dataset at .* than rank 0", PlannedRun(here, COMM).open, COMM)
