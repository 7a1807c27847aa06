"""The examples of what `import ensync` offers run as they stand, on the demo's digits."""

import doctest
import importlib

import numpy as np
import pytest
from samples import prepare

import ensync

MODULES = sorted({f"{value.__module__}" for value in map(ensync.__getattr__, ensync._HOMES)})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with the demo's dataset, as the examples find it."""
    path = tmp_path_factory.mktemp("examples")
    prepare("digits", path / "data" / "digits.h5")
    return path


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, place, monkeypatch):
    monkeypatch.chdir(place)
    module = importlib.import_module(name)
    tests = doctest.DocTestFinder().find(module, extraglobs={"ensync": ensync, "np": np})
    own = [test for test in tests if test.examples]
    assert own
    for test in own:
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0, test.name


@pytest.mark.parametrize("name", ensync._HOMES)
def test_every_public_function_has_an_example(name):
    offered = getattr(ensync, name)
    own = (
        [offered]
        if not isinstance(offered, type)
        else [getattr(offered, key) for key in vars(offered) if not key.startswith("_")]
    )
    assert [each.__qualname__ for each in own if ">>>" not in each.__doc__] == []
