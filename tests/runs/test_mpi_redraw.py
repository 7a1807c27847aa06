"""A validation split drawn anew: the same images, others in each split, the same for every verb."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from runs.helpers import COMM, StopAt, begin, common_digits, gathered, job_maker, resume, run

from ensync.core.errors import EnsyncError
from ensync.runs import lifecycle, results, state
from ensync.runs.planned import PlannedRun
from ensync.runs.stopped import Stopped

pytestmark = pytest.mark.mpi
ROWS = 300


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return common_digits(tmp_path_factory, ROWS)


@pytest.fixture
def make_job(dataset, tmp_path):
    return job_maker(
        dataset, tmp_path, network={"hidden": [9]}, training={"epochs": 2, "batch": 20}
    )


def opened(job):
    """Return images and labels of both splits."""
    loaders = PlannedRun(job, COMM).open(COMM)
    found = {
        split: (np.array(loader.images), np.array(loader.labels))
        for split, loader in (("train", loaders.train), ("validation", loaders.validation))
    }
    loaders.close()
    return found


def pairs(*splits):
    """Count every image together with its label."""
    return Counter(
        (image.tobytes(), int(label))
        for images, labels in splits
        for image, label in zip(images, labels, strict=True)
    )


def test_images_change_places_with_their_labels(make_job):
    plain = opened(make_job())
    seen = [pairs(plain["validation"])]
    for seed in (1, 2):
        drawn = opened(make_job(data={"validation_seed": seed}))
        assert pairs(*drawn.values()) == pairs(*plain.values())
        for split, (images, labels) in drawn.items():
            assert images.shape == plain[split][0].shape and len(labels) == len(images)
        counts = [np.bincount(drawn[split][1], minlength=10) for split in drawn]
        share = len(drawn["validation"][1]) / sum(len(one[1]) for one in drawn.values())
        assert np.abs(counts[1] - share * (counts[0] + counts[1])).max() < 1
        assert all(pairs(drawn["validation"]) != other for other in seen)
        seen.append(pairs(drawn["validation"]))
        assert COMM.allgather(drawn["train"][0].tobytes()) == [drawn["train"][0].tobytes()] * (
            COMM.size
        )
    again = opened(make_job(data={"validation_seed": 2}))
    assert pairs(again["validation"]) == seen[-1]


def test_resumed_runs_and_evaluations_have_the_same_split(make_job):
    given = {"data": {"validation_seed": 5}}
    whole = run(COMM, make_job("whole", **given))
    job = make_job("cut", **given)
    with pytest.raises(Stopped):
        lifecycle.train(begin(COMM, job, StopAt(7)))
    again = resume(COMM, state.load_newest(COMM, Path(job.output.directory)), job)
    for name, values in gathered(whole)[0].items():
        np.testing.assert_array_equal(values, gathered(again)[0][name])
    loaded = state.load_newest(COMM, Path(job.output.directory))
    planned = PlannedRun(loaded.state.job, COMM)
    loaders = planned.open(COMM, loaded.accept)
    evaluator = results.evaluator_of_files(COMM, loaded, loaded.state.job, loaders)
    last = whole.state.history[-1]["validation_accuracy"]
    assert evaluator.validation_accuracies == [pytest.approx(last)]
    loaders.close()
    plain = run(COMM, make_job("plain"))
    assert plain.state.history[-1]["validation_loss"] != whole.state.history[-1]["validation_loss"]


def test_it_is_refused_where_it_cannot_be(make_job):
    job = make_job("run")
    run(COMM, job)
    loaded = state.load_newest(COMM, Path(job.output.directory))
    with pytest.raises(EnsyncError, match=r"data.validation_seed = 3 for a run"):
        resume(COMM, loaded, make_job("run", data={"validation_seed": 3}))
    streamed = make_job(data={"validation_seed": 3, "placement": "stream"})
    with pytest.raises(EnsyncError, match="which is streamed"):
        PlannedRun(streamed, COMM).open(COMM)
    planned = PlannedRun(make_job(data={"validation_seed": 3}), COMM)
    with pytest.raises(EnsyncError, match="validation_seed = 3 with .* no validation images"):
        planned.check_validation(0)
