"""What the tests of the library share: the demo's digits, one run and an ensemble of them."""

from types import SimpleNamespace

import pytest
from samples import prepare

import ensync
from ensync.kernels.threads import get_threads, set_threads


@pytest.fixture(autouse=True, scope="package")
def threads_as_before():
    """Give the threads back that a trained run took."""
    before = get_threads()
    yield
    set_threads(before)


@pytest.fixture(scope="package")
def place(tmp_path_factory):
    """A directory with data/digits.h5, a run in runs/digits, and an ensemble in fused/digits."""
    path = tmp_path_factory.mktemp("place")
    dataset = prepare("digits", path / "data" / "digits.h5").path
    settings = {"data": dataset, "network": {"hidden": [24]}}
    one = ensync.job(
        **settings,
        training={"epochs": 3, "batch": 32},
        optimizer={"learning_rate": 4e-3},
        output=path / "runs" / "digits",
    )
    several = ensync.job(
        **settings,
        training={"epochs": 2, "batch": 32, "strategy": "ensemble"},
        optimizer={"learning_rate": 4e-3},
        ensemble={"members": 2, "start": "shared", "data": "bootstrap"},
        output=path / "fused" / "digits",
    )
    runs = [ensync.train(job, quiet=True) for job in (one, several)]
    return SimpleNamespace(path=path, dataset=dataset, one=runs[0], several=runs[1])


@pytest.fixture(scope="package")
def test_split(place):
    """The test images uint8 (359, 8, 8, 1) and their labels int64 (359,)."""
    dataset = ensync.Dataset(place.dataset)
    return dataset.images("test"), dataset.labels("test")
