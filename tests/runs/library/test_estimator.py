"""The estimator passes scikit-learn's own checks, and gives the numbers of a run of its job."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import ensync
from ensync.runs.library import estimator
from ensync.runs.stopped import Stopped

ONE_THREAD = {"training": {"threads": 1}}
SKIPPED = {"check_array_api_input", "check_classifier_data_not_an_array"}  # need what is no need


def small(**more):
    """Return a classifier that a test can wait for."""
    given = {"epochs": 3, "learning_rate": 3e-2, "random_state": 1, "settings": ONE_THREAD} | more
    return ensync.EnsyncClassifier({"hidden": [16]}, **given)


@pytest.fixture(scope="module")
def train_split(place):
    """The first 400 training images uint8 (400, 8, 8, 1) and their labels."""
    dataset = ensync.Dataset(place.dataset)
    return dataset.images()[:400], dataset.labels()[:400]


@pytest.mark.slow
def test_checks_of_scikit_learn():
    found = check_estimator(small(epochs=6), on_skip=None, on_fail=None)
    assert len(found) > 40
    assert {
        each["check_name"]: repr(each["exception"])
        for each in found
        if each["status"] != "passed" and each["check_name"] not in SKIPPED
    } == {}


def test_it_gives_the_numbers_of_a_run(train_split, test_split, tmp_path):
    names = np.array([f"digit {label}" for label in range(10)])
    fitted = small().fit(train_split[0], names[train_split[1]])
    dataset = ensync.Dataset.write(tmp_path / "d.h5", *train_split, validation=0, test=0)
    run = ensync.train(
        {
            "data": dataset,
            "network": {"hidden": [16]},
            "training": {"epochs": 3, "batch": 32, "seed": 1, "threads": 1},
            "optimizer": {"learning_rate": 3e-2},
            "output": tmp_path / "run",
        },
        quiet=True,
    )
    assert fitted.classes_.tolist() == names.tolist()
    found = fitted.predict_proba(test_split[0])
    assert np.array_equal(found, run.predict_proba(test_split[0]))
    assert np.array_equal(fitted.predict(test_split[0]), names[found.argmax(1)])
    assert np.array_equal(fitted.run_.history["train_loss"], run.history["train_loss"])


def test_images_of_floats_and_without_a_channel_are_the_same_images(train_split, test_split):
    (images, labels), other = train_split, test_split[0]
    assert (images.min(), images.max()) == (0, 255)
    expected = small().fit(images, labels).predict_proba(other)
    floats = small().fit(images / 255 - 0.5, labels)
    assert np.array_equal(floats.predict_proba(other / 255 - 0.5), expected)
    assert np.array_equal(
        small().fit(images[..., 0], labels).predict_proba(other[..., 0]), expected
    )


def test_features_are_scaled_each_by_its_own_range():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 3)) * [1, 1e6, 1e-6]
    labels = np.where(features[:, 2] > 0, "up", "down")
    fitted = small(epochs=12).fit(features, labels)
    assert fitted.score(features, labels) > 0.9
    outside = features[:2] + [0, 0, 1]  # beyond what was seen: as the largest that was
    assert np.isfinite(fitted.predict_proba(outside)).all()


def test_values_so_far_that_others_are_blurred_are_told(recwarn, monkeypatch):
    """But not the rounding of usual ones, whose error is the step over the root of 12."""
    given = np.random.default_rng(0).normal(size=(500, 3))
    low, width = given.min(0), np.ptp(given, 0)
    error = np.rint((given - low) / width * 255) / 255 * width + low - given
    assert np.allclose(error.std(0), width / 255 / np.sqrt(12), rtol=0.1)
    monkeypatch.setattr(estimator.EnsyncClassifier, "_trained", lambda *_: None)
    small().fit(given, given[:, 0] > 0)
    small().fit(given[:, [0, 0]] * [1, 0], given[:, 0] > 0)  # one that has a single value
    assert not recwarn.list
    given[7, 1] = 1e3
    with pytest.warns(DataConversionWarning, match="in the features 1: a few far values"):
        small().fit(given, given[:, 0] > 0)
    with pytest.warns(DataConversionWarning, match="^X: a few far values"):
        small().fit(given[:, None], given[:, 0] > 0)


def test_a_copy_and_a_pickle_go_on(train_split, test_split):
    fitted = small().fit(*train_split)
    expected = fitted.predict_proba(test_split[0])
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(test_split[0]), expected)
    assert clone(fitted).get_params() == fitted.get_params() and not hasattr(clone(fitted), "run_")


def test_scikit_learn_combines_it(train_split):
    features, labels = train_split[0].reshape(-1, 64), train_split[1]
    pipeline = make_pipeline(StandardScaler(), small())
    search = GridSearchCV(pipeline, {"ensyncclassifier__epochs": [1, 8]}, cv=2)
    search.fit(features, labels)
    assert search.best_params_ == {"ensyncclassifier__epochs": 8} and search.best_score_ > 0.6
    seeds = [(f"seed {seed}", small(random_state=seed)) for seed in (1, 2)]
    voting = VotingClassifier(seeds, voting="soft").fit(features, labels)
    both = [each.predict_proba(features) for each in voting.estimators_]
    assert np.allclose(voting.predict_proba(features), np.mean(both, 0))


def test_settings_are_sections_of_a_job(train_split):
    several = {"training": {"strategy": "ensemble", "threads": 1}, "ensemble": {"members": 2}}
    fitted = small(settings=several).fit(*train_split)
    assert len(fitted.run_.members) == 2 and fitted.run_.job.training.epochs == 3


def test_mistakes_are_value_errors(train_split):
    images, labels = train_split
    with pytest.raises(ValueError, match="training.epochs = -1"):
        small(epochs=-1).fit(images, labels)
    with pytest.raises(ValueError, match="1 class"):
        small().fit(images, np.zeros(400))
    with pytest.raises(NotFittedError):
        small().predict(images)
    with pytest.raises(ValueError, match="rows of shape"):
        small(epochs=1).fit(images, labels).predict(images[:, :, :7])


def test_an_interrupt_gives_no_half_trained_network(train_split, monkeypatch):
    def stopped(*_, **__):
        raise Stopped("stopped by SIGINT", "", "resume", 130)

    monkeypatch.setattr(estimator, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        small().fit(*train_split)
