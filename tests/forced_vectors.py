"""Programs that compute with a form of vectors that is not the host's: LLVM splits those that it
does not have.
"""

import os
import subprocess
import sys
from pathlib import Path

# Little is optimised, which takes a third off compiling: the host's own form is tested as it runs.
# What is compiled so must not come into the common cache.
QUICKLY = {"NUMBA_OPT": "1"}


def start(program: str, form: str, cache: Path, beside: str = __file__) -> subprocess.Popen:
    """Start a Python program with a form of vectors; it imports what this process can, and what
    lies beside a file.
    """
    places = os.pathsep.join([str(Path(beside).parent), *sys.path])
    own = {"ENSYNC_SIMD": form, "NUMBA_CACHE_DIR": str(cache / form)}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | QUICKLY | own | {"PYTHONPATH": places},
        stderr=subprocess.PIPE,
        text=True,
    )


def succeeds(started: subprocess.Popen, limit: float = 300) -> None:
    """Wait for a program, which must end with code 0."""
    said = started.communicate(timeout=limit)[1]
    assert started.returncode == 0, said
