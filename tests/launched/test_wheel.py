"""The wheel, made of the sdist: what is in it, and what it says of itself."""

import email
import re
import tomllib
import zipfile

import pytest
from launched import wheel
from samples import ROOT

from ensync.runs.demo import NEXT

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(200)]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEFT = {"__pycache__"}


@pytest.fixture(scope="module")
def archive(made):
    with zipfile.ZipFile(made) as opened:
        yield opened


def test_it_has_the_sources_and_no_more(archive):
    ours = {
        f"ensync/{path.relative_to(ROOT / 'src/ensync')}": path.read_bytes()
        for path in (ROOT / "src/ensync").rglob("*")
        if path.is_file() and not LEFT & set(path.parts)
    }
    names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert {name: archive.read(name) for name in names} == ours
    assert {"ensync/py.typed", "ensync/runs/jobs/quickstart.toml"} <= set(names)


def test_it_says_what_it_is(archive):
    (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
    told = email.message_from_bytes(archive.read(name))
    assert (told["Name"], told["License-Expression"]) == ("ensync", PROJECT["license"])
    assert told.get_payload().startswith("# Ensync\n")
    assert set(told.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    needed = [each for each in told.get_all("Requires-Dist") if ";" not in each]
    assert needed == PROJECT["dependencies"]
    versions = re.findall(r"Python :: (3\.\d+)", " ".join(told.get_all("Classifier")))
    assert versions == ["3.11", "3.12", "3.13"] and told["Requires-Python"] == ">=3.11"
    assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())


def test_the_installed_program_is_not_that_of_the_checkout(site, demo):
    """`demo` was run by it, in an empty directory, and read its job files."""
    assert (demo[0] / "jobs/quickstart.toml").read_text() != (
        ROOT / "jobs/quickstart.toml"
    ).read_text()
    assert str(site) in wheel.environment(site)["PYTHONPATH"]


def test_the_demo_ends_with_what_may_be_typed_next(demo):
    assert demo[1].endswith("\n\nnext:\n" + "".join(f"  {line}\n" for line in NEXT))
    for page in ("quickstart/comparison.html", "studies/quickstart/study.html"):
        assert (demo[0] / "runs" / page).stat().st_size > 10_000


@pytest.mark.parametrize("name", ["jobs/quickstart.toml", "jobs/studies/quickstart.toml"])
def test_a_job_of_the_demo_is_one_file(name):
    assert (ROOT / name).samefile(ROOT / "src/ensync/runs" / name)
