"""Where compiled kernels are kept, and how many threads a rank uses."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import llvmlite.binding
import pytest

from ensync.core.errors import EnsyncError
from ensync.kernels import threads


def test_bound_ranks_use_their_own_cpus_and_unbound_ranks_divide_the_node():
    assert threads.thread_budget({0, 1, 2, 3}, [{0, 1, 2, 3}]) == 4
    assert threads.thread_budget({0, 1, 2, 3}, [{0, 1, 2, 3}] * 2) == 2
    assert threads.thread_budget({0, 1, 2}, [{0, 1, 2}] * 2) == 1
    assert threads.thread_budget({0, 1}, [{0, 1}] * 4) == 1
    assert threads.thread_budget({2, 3}, [{0, 1}, {2, 3}]) == 2
    assert threads.thread_budget({0, 1, 2}, [{0, 1, 2}] * 3) == 1


def test_the_number_of_threads_is_checked():
    before = threads.get_threads()
    threads.set_threads(1)
    assert threads.get_threads() == 1
    with pytest.raises(EnsyncError, match="0 threads"):
        threads.set_threads(0)
    with pytest.raises(EnsyncError, match="100000 threads"):
        threads.set_threads(100000)
    threads.set_threads(before)


def environment_after_import(**settings):
    """Return what a new process prints about its cache, with these settings."""
    program = (
        "import ensync.kernels, os; print(os.environ['NUMBA_CACHE_DIR'], "
        "os.environ['OMP_NUM_THREADS'])"
    )
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NUMBA_CACHE_DIR", "ENSYNC_SIMD", *threads.SINGLE_THREADED)
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=kept | settings,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return *done.stdout.split(), done.stderr


def test_the_cache_is_named_by_host_and_form(tmp_path):
    here, count, said = environment_after_import(XDG_CACHE_HOME=str(tmp_path))
    assert (
        here.startswith(str(tmp_path / "ensync" / "numba"))
        and os.path.isdir(here)
        and count == "1"
        and not said
    )
    assert environment_after_import(XDG_CACHE_HOME=str(tmp_path), ENSYNC_SIMD="plain")[0] != here
    assert environment_after_import(NUMBA_CACHE_DIR=str(tmp_path), OMP_NUM_THREADS="3")[:2] == (
        str(tmp_path),
        "3",
    )


def test_a_cache_that_cannot_be_written_becomes_a_temporary_one(tmp_path):
    (tmp_path / "file").write_text("")
    here, _, said = environment_after_import(XDG_CACHE_HOME=str(tmp_path / "file"))
    assert "ensync-numba-" in here and "set NUMBA_CACHE_DIR" in said
    assert not os.path.exists(here)


def test_shared_sources_are_those_that_other_kernels_import():
    root = Path(threads.__file__).parent
    names = {str(path.relative_to(root)) for path in threads.shared_sources()}
    assert {"threads.py", "simd/vectors.py", "simd/panels.py", "convolution/winograd.py"} <= names
    assert "convolution/conv2d.py" not in names


@pytest.mark.parametrize(
    ("name", "features", "named"),
    [
        ("znver5", "+avx512f,-amx-tile", "znver5"),
        ("graniterapids-d", "+amx-tile,+avx512f", "graniterapids-d"),
        ("rocketlake", "+avx512f,+amx-tile", "generic"),
        ("rocketlake", "+avx512f,-amx-tile", "rocketlake"),
    ],
)
def test_a_generation_without_what_the_processor_has_is_not_named(
    name, features, named, monkeypatch
):
    found = SimpleNamespace(flatten=lambda: features)
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_name", lambda: name)
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", lambda: found)
    assert threads.processor() == named
