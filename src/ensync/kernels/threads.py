"""The threads of this rank, and the process's environment that numba reads before it is
imported.
"""

import atexit
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from ensync.core.errors import EnsyncError

SINGLE_THREADED = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
# What NUMBA_THREADING_LAYER may name.
LAYERS = ("default", "omp", "tbb", "workqueue", "safe", "threadsafe", "forksafe")
# LLVM's level of optimisation, where numba takes 3: kernels use vectors already, are as fast, and
# compile in a fifth less time.
OPTIMIZATION = "2"
# The generations with AMX, as LLVM names them.
WITH_AMX = tuple(f"{name}rapids" for name in ("sapphire", "emerald", "granite", "diamond"))


def prepare_environment() -> None:
    """Choose numba's cache directory and optimisation, keep other libraries from starting threads
    of their own; call before numba is imported.

    Settings of the user's are kept. A cache that cannot be written becomes a temporary one, with a
    warning. The OpenMP wait policy stays the library's own: threads spin for under a millisecond,
    then sleep (fork and join of two threads 1.1 us; 9-30 us with OMP_WAIT_POLICY=passive), and
    numba passes its own thread count.
    """
    _check_variables()
    for name in SINGLE_THREADED:
        os.environ.setdefault(name, "1")
    os.environ.setdefault("NUMBA_OPT", OPTIMIZATION)
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    directory = cache_directory()
    try:
        if (
            not directory.is_absolute()
        ):  # HOME is not set, and the user has no entry in the system's list
            raise OSError("the home directory is not known")
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        directory = Path(tempfile.mkdtemp(prefix="ensync-numba-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        warnings.warn(
            f"compiled kernels cannot be kept ({error}), so each start compiles again; set "
            "NUMBA_CACHE_DIR",
            stacklevel=2,
        )
    os.environ["NUMBA_CACHE_DIR"] = str(directory)
    if "numba.core.config" in sys.modules:
        sys.modules["numba.core.config"].CACHE_DIR = str(directory)


def _check_variables() -> None:
    """Refuse values that numba would ignore, or fail with at the first kernel."""
    rules = {
        "NUMBA_NUM_THREADS": ("[1-9][0-9]*", "a whole number of at least 1"),
        "NUMBA_THREADING_LAYER": ("|".join(LAYERS), "one of " + ", ".join(LAYERS)),
    }
    for name, (pattern, expected) in rules.items():
        value = os.environ.get(name, "")
        if value and not re.fullmatch(pattern, value):
            raise EnsyncError(f"{name}={value}", expected, "correct it, or unset it")


def processor() -> str:
    """Return the processor's generation as LLVM names it, "znver5" for instance, or "generic",
    also where it has AMX and that generation has none: LLVM goes by the number of the model, for
    which virtual machines may give another's.
    """
    import llvmlite.binding as llvm

    name: str = llvm.get_host_cpu_name()
    other = "+amx-tile" in llvm.get_host_cpu_features().flatten() and not name.startswith(WITH_AMX)
    return "generic" if other else name


def cache_directory() -> Path:
    """Return the directory of this host's compiled kernels: one per CPU, versions, form of vectors,
    optimisation and shared sources.

    numba notices an edit of the file that holds a kernel, not of a file that this one imports:
    those are in the name.
    """
    import llvmlite.binding as llvm

    from ensync.kernels.simd.host import AMX

    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    machine = (
        llvm.get_host_cpu_features().flatten() + os.environ.get("ENSYNC_SIMD", "") + AMX * "+tiles"
    )
    versions = [
        platform.python_version(),
        *(importlib.metadata.version(name) for name in ("numba", "llvmlite")),
    ]
    parts = [
        f"{processor()}-{digest(*machine)}",
        *versions,
        f"O{os.environ['NUMBA_OPT']}",
        digest(*map(Path.read_text, shared_sources())),
    ]
    return Path(home, "ensync", "numba", "-".join(parts))


def shared_sources() -> list[Path]:
    """Return the files of this package that others of its files import, sub-packages included."""
    root = Path(__file__).parent
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for path in sorted(root.rglob("*.py"))
    }
    imports = re.compile(  # of names in parentheses, which may take several lines, or of one line
        r"^from ensync\.kernels(?:\.([\w.]+))? import (\([^)]*\)|.*)$", re.MULTILINE
    )
    imported = set()
    for path in files.values():
        for module, names in imports.findall(path.read_text()):
            imported.add(module)
            prefix = f"{module}." if module else ""
            imported.update(prefix + name for name in re.findall(r"\w+", names))
    return [files[name] for name in sorted(imported & files.keys())]


def digest(*texts: str) -> str:
    """Return twelve hexadecimal digits that differ when a text differs."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def thread_budget(affinity: set[int], neighbours: Sequence[set[int]]) -> int:
    """Return how many threads a rank that may run on `affinity` should use, at least 1.

    neighbours: the affinity of every rank on this node, this one included. A CPU that several ranks
    may use counts as a share for each, so that bound ranks use their own CPUs and unbound ranks
    divide the node's.
    """
    share = sum(1 / max(1, sum(cpu in other for other in neighbours)) for cpu in affinity)
    return max(1, int(share + 1e-9))


_threads: dict[str, int] = {}  # "limit": those of this rank, "used": those that kernels use now


def set_threads(count: int) -> None:
    """Let kernels use `count` threads, at least 1 and at most the CPUs this process may run on."""
    import numba

    if not 1 <= count <= numba.config.NUMBA_NUM_THREADS:
        raise EnsyncError(
            f"{count} threads",
            f"1 to {numba.config.NUMBA_NUM_THREADS}, the CPUs this process may run on",
            "choose a number in this range, or set NUMBA_NUM_THREADS before the start",
        )
    _threads["limit"] = count
    use_threads(count)


def use_threads(count: int) -> None:
    """Let kernels use only `count` of the rank's threads until this or `set_threads` is called
    again.
    """
    _threads["used"] = count
    follow_threads()


def follow_threads() -> None:
    """Use as many threads as the rank does now in this thread of Python: numba keeps the number
    by thread.
    """
    import numba

    numba.set_num_threads(get_threads())


def get_threads() -> int:
    """Return how many threads kernels use."""
    return _threads.get("used") or thread_limit()


def thread_limit() -> int:
    """Return the most threads that kernels of this rank use; scratch is made for so many."""
    if "limit" not in _threads:
        import numba

        _threads["limit"] = numba.get_num_threads()
    return _threads["limit"]
