"""The recipes of a container and of a conda environment name what exists, and what pyproject.toml
names. Nothing is downloaded.
"""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.mpi_skip

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BESIDE = {"python", "pip", "setuptools", "mpich"}  # what pip needs no name for
NAMES = {"matplotlib-base": "matplotlib"}  # conda's: pip's
SECTIONS = ["arguments", "files", "post", "test", "runscript"]


def parts(requirement):
    """The name and the bound of a requirement."""
    return tuple(re.fullmatch(r"([a-z0-9-]+)(>=[0-9.]+)", requirement).groups())


def sections():
    """The header of the definition, and {section: its lines}."""
    head, *rest = re.split(r"^%", (ROOT / "slurm/ensync.def").read_text(), flags=re.M)
    return head, {part.split("\n", 1)[0].strip(): part.split("\n", 1)[1] for part in rest}


def test_the_environment_has_what_the_project_needs():
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load((ROOT / "slurm/environment.yml").read_text())
    assert (found["name"], found["channels"]) == ("ensync", ["conda-forge"])
    listed = dict(map(parts, (each for each in found["dependencies"] if each != "pip")))
    named = {NAMES.get(name, name): bound for name, bound in listed.items()}
    needed = dict(map(parts, PROJECT["project"]["dependencies"]))
    assert {name: bound for name, bound in named.items() if name not in BESIDE} == needed
    assert named["python"] == PROJECT["project"]["requires-python"]
    assert ("setuptools", named["setuptools"]) == parts(PROJECT["build-system"]["requires"][0])
    assert ("mpich", named["mpich"]) == parts(
        PROJECT["project"]["optional-dependencies"]["mpich"][0]
    )


def test_the_container_has_the_sections_that_it_needs():
    head, found = sections()
    assert re.findall(r"^(Bootstrap|From): (\S+)$", head, re.M) == [
        ("Bootstrap", "docker"),
        ("From", "python:3.13-slim"),
    ]
    assert list(found) == SECTIONS
    assert "Programming Language :: Python :: 3.13" in PROJECT["project"]["classifiers"]


def test_the_container_takes_files_that_are_there():
    """And those without which no wheel is built."""
    pairs = [line.split() for line in sections()[1]["files"].splitlines() if line.strip()]
    assert {target for _, target in pairs} == {"/opt/ensync/"}
    named = {source for source, _ in pairs}
    assert all((ROOT / name).exists() for name in named)
    project = PROJECT["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml", "src"} == named


@pytest.mark.parametrize("name", ["post", "test", "runscript"])
def test_commands_of_the_container_are_of_a_shell(name):
    subprocess.run(["bash", "-n"], input=sections()[1][name], text=True, check=True)


def test_the_container_installs_an_extra_of_the_project():
    found = sections()[1]
    default = re.search(r"mpi=(\S+)", found["arguments"])[1]
    assert "/opt/ensync[{{ mpi }}]" in found["post"]
    assert {default, "openmpi"} <= set(PROJECT["project"]["optional-dependencies"])
