"""Ensync as it is published: the sdist, the wheel made of it, and the wheel's files installed
outside the repository, over the dependencies of this Python's environment.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from launched import launch
from samples import ROOT

BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, sys.argv[1])('.'))"

FIND_KERNELS = """
import importlib.util, sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "ensync.kernels":
            return importlib.util.spec_from_file_location(
                name, {kernels!r} + "/__init__.py", submodule_search_locations=[{kernels!r}]
            )

sys.meta_path.insert(0, Finder())
"""


def built(hook: str, directory: Path) -> Path:
    """Return what a hook of PEP 517 makes in a directory of sources."""
    made = _python("-c", BUILD, hook, cwd=directory)
    return directory / made.splitlines()[-1]


def sdist(place: Path) -> Path:
    """Return the sdist of the checkout's sources, which stay as they are: builds write beside
    them.
    """
    copy = place / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", copy / "src", ignore=leave)
    return built("build_sdist", copy)


def wheel(source: Path, place: Path) -> Path:
    """Return the wheel made of an sdist."""
    # Python 3.11 has filters from 3.11.4 on; Debian 12's is 3.11.2.
    checked = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(source) as archive:
        archive.extractall(place, **checked)
    (directory,) = place.glob("ensync-*")
    return built("build_wheel", directory)


def install(made: Path, site: Path) -> None:
    """Install a wheel into the directory `site`."""
    _python("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, made)


def contents(directory: Path) -> dict[str, bytes]:
    """Return the Python files below a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.py")}


def environment(site: Path) -> dict[str, str]:
    """Return the environment in which Python finds a wheel's files in `site` before all others.

    Its kernels, which are compared, are imported from the checkout: numba keeps compiled ones by
    the path of their source, and would take half a minute to compile these.
    """
    kernels = ROOT / "src/ensync/kernels"
    assert contents(site / "ensync/kernels") == contents(kernels)
    first = site.with_name("first")
    first.mkdir(exist_ok=True)
    (first / "sitecustomize.py").write_text(FIND_KERNELS.format(kernels=str(kernels)))
    return launch.environment() | {"PYTHONPATH": f"{first}:{site}", "PYTHONSAFEPATH": "1"}


def _python(*words: str | os.PathLike, cwd: Path | None = None) -> str:
    """Return what this Python prints for the words; it must succeed."""
    ended = subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
