"""`import ensync` costs nothing that is not used, and what it offers is there."""

import subprocess
import sys

import pytest

import ensync

HEAVY = ("numpy", "numba", "h5py", "mpi4py", "pydantic", "sklearn", "scipy", "rich", "click")


def test_an_import_loads_no_heavy_library():
    code = f"import sys, ensync; print([m for m in {HEAVY!r} if m in sys.modules], dir(ensync))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("[] ") and "'Dataset'" in found.stdout


@pytest.mark.parametrize("name", ensync.__all__)
def test_what_it_offers_is_there_and_explained(name):
    assert getattr(ensync, name) is getattr(ensync, name)
    assert name == "__version__" or getattr(ensync, name).__doc__


def test_another_name_is_refused_as_by_any_module():
    with pytest.raises(AttributeError, match="no attribute 'Datset'"):
        _ = ensync.Datset
