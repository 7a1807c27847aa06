"""The examples of what `import ensync` offers run as they stand, on the demo's digits."""

import doctest
import importlib
import re
from functools import cached_property
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
from samples import ROOT, pictures, prepare

import ensync
from ensync.core.config.job import dump_job

MODULES = [*sorted(set(ensync._HOMES.values())), "ensync.runs.library.history"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A directory with what the examples find: the demo's dataset, a job file and its run."""
    path = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(path)
        prepare("digits", "data/digits.h5")
        job = ensync.job(
            data="data/digits.h5",
            network={"hidden": [32]},
            training={"epochs": 3, "batch": 32},
            optimizer={"learning_rate": 4e-3},
            output="runs/digits",
        )
        Path("jobs").mkdir()
        Path("jobs/digits.toml").write_text(dump_job(job))
        ensync.train(job, quiet=True)
    return path


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, demo, monkeypatch):
    monkeypatch.chdir(demo)
    module = importlib.import_module(name)
    tests = doctest.DocTestFinder().find(module, extraglobs={"ensync": ensync, "np": np})
    own = [test for test in tests if test.examples]
    assert own
    for test in own:
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0, test.name


@pytest.mark.parametrize("name", ensync._HOMES)
def test_every_public_function_has_an_example(name):
    offered = getattr(ensync, name)
    own = {name: offered}
    if isinstance(offered, type):
        kinds = FunctionType | classmethod | property | cached_property
        own = {key: value for key, value in vars(offered).items() if isinstance(value, kinds)}
    public = {key: value for key, value in own.items() if not key.startswith("_")}
    assert public and [key for key, each in public.items() if ">>>" not in each.__doc__] == []


def test_the_example_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    code = re.search(r"## In Python\n\n```python\n(.*?)```", text, re.DOTALL)
    known = {"images": pictures(40, 6, 6, 1)[..., 0], "labels": np.arange(40) % 2}
    exec(code[1], known)
    assert known["run"].directory == Path("runs/mine") and known["dataset"].shape == (6, 6, 1)
