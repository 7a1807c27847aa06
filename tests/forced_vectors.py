"""Programs that compute with a form of vectors that is not the host's: LLVM splits those that it
does not have.
"""

import os
import subprocess
import sys
from pathlib import Path


def start(program: str, form: str, beside: str = __file__) -> subprocess.Popen:
    """Start a Python program with a form of vectors; it imports what this process can, and what
    lies beside a file.
    """
    places = os.pathsep.join([str(Path(beside).parent), *sys.path])
    own = {"ENSYNC_SIMD": form, "NUMBA_CACHE_DIR": "", "PYTHONPATH": places}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | own,
        stderr=subprocess.PIPE,
        text=True,
    )


def succeeds(started: subprocess.Popen, limit: float) -> None:
    """Wait for a program, which must end with code 0 within `limit` seconds."""
    said = started.communicate(timeout=limit)[1]
    assert started.returncode == 0, said
