"""Compiled kernels on disk that are damaged, stale or another's: compiled anew, with the right
result.
"""

import importlib.util
import os
import subprocess
import sys

import numba
import pytest

from ensync.kernels.cache import CheckedCacheFile

SOURCE = (
    "from numba import njit\n\n@njit(cache=True)\ndef kernel(x):\n    return {factor} * x + 1\n"
)
DAMAGES = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "garbage": lambda data: b"\x80\x05garbage" * 50,
    "one bit": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "longer": lambda data: data + b"x",
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that loads the kernel as a new process would: without what was compiled before,
    except on disk.
    """
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    numba.core.config.reload_config()
    monkeypatch.setattr(CheckedCacheFile, "cannot_be_kept", False)
    monkeypatch.setattr(
        sys, "dont_write_bytecode", True
    )  # Python's own cache tells sources of one second and length apart by nothing
    source = tmp_path / "source.py"

    def load(factor=2):
        text = SOURCE.format(factor=factor)
        if not source.exists() or source.read_text() != text:
            source.write_text(text)
        spec = importlib.util.spec_from_file_location("source", source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.kernel

    yield load
    monkeypatch.undo()
    numba.core.config.reload_config()


def compiled(load, x, result):
    """Return whether a new process has to compile the kernel, which must be right."""
    kernel = load()
    assert kernel(x) == result
    assert kernel.stats.cache_hits.total() + kernel.stats.cache_misses.total() == 1
    return kernel.stats.cache_misses.total() == 1


def only(directory, pattern):
    (path,) = directory.rglob(pattern)
    return path


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_written_anew(load, tmp_path, pattern, damage):
    assert compiled(load, 3.0, 7.0) and not compiled(load, 3.0, 7.0)
    path = only(tmp_path, pattern)
    path.write_bytes(damage(path.read_bytes()))
    harmless = (
        damage is DAMAGES["longer"] and pattern == "*.nbi"
    )  # what follows the pickled index is not read
    assert compiled(load, 3.0, 7.0) or harmless
    assert not compiled(load, 3.0, 7.0)


def test_a_missing_file_is_written_anew(load, tmp_path):
    compiled(load, 3.0, 7.0)
    only(tmp_path, "*.nbc").unlink()
    assert compiled(load, 3.0, 7.0) and not compiled(load, 3.0, 7.0)


def test_another_signatures_code_is_not_run(load, tmp_path):
    """Two processes that start with an empty cache may both call their code the first; the index
    is then of one, the code of the other.
    """
    compiled(load, 3.5, 8.0)
    index = only(tmp_path, "*.nbi")
    of_floats = index.read_bytes()
    index.unlink()
    compiled(load, 3, 7)
    index.write_bytes(of_floats)
    assert compiled(load, 3.5, 8.0) and not compiled(load, 3.5, 8.0)


def test_code_of_an_older_source_is_not_run(load, tmp_path):
    """The index of the new source may be on disk before its code is."""
    compiled(load, 3.0, 7.0)
    code = only(tmp_path, "*.nbc")
    older = code.read_bytes()
    assert load(factor=5)(3.0) == 16.0
    code.write_bytes(older)
    assert load(factor=5)(3.0) == 16.0


def test_a_cache_that_cannot_be_written_warns_once(load, tmp_path):
    compiled(load, 3.0, 7.0)
    index = only(tmp_path, "*.nbi")
    index.unlink()
    index.mkdir()
    with pytest.warns(UserWarning, match="set NUMBA_CACHE_DIR") as said:
        assert compiled(load, 3.0, 7.0) and compiled(load, 3.0, 7.0)
    assert len(said) == 1


def test_processes_that_compile_at_once_find_their_code(tmp_path):
    (tmp_path / "source.py").write_text(SOURCE.format(factor=2))
    program = "import ensync.kernels, source, sys; print(source.kernel(eval(sys.argv[1])))"
    environment = os.environ | {
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }
    for _ in range(2):
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", program, x],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for x in ("3.5", "3", "3.5")
        ]
        assert [run.communicate(timeout=60)[0] for run in runs] == ["8.0\n", "7\n", "8.0\n"]


STARTED = """
import sys, tempfile
tried, make = [], tempfile.TemporaryFile

def counted(*args, **kwargs):
    tried.append(kwargs.get("dir"))
    return make(*args, **kwargs)

tempfile.TemporaryFile = counted
import ensync.nn.layers.table
from numba.core.registry import cpu_target

cpu_target.target_context.refresh()  # as the first kernel does
inside = [str(each) for each in tried if "ensync" in str(each)]
assert len(inside) == len(set(inside)) > 1, inside
assert not {"scipy.linalg", "coverage", "yaml"} & set(sys.modules)
import coverage  # is not hidden from others
from numba.np import arraymath, linalg

assert arraymath._HAVE_BLAS
linalg.ensure_blas()  # as a function does that needs it
assert "scipy.linalg" in sys.modules
"""


def test_a_start_tries_each_directory_once_and_imports_nothing_by_chance():
    done = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
