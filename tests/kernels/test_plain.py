"""Kernels as plain Python: the tests that are not marked `compiled`, with the JIT off."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(600)
def test_kernels_are_right_as_plain_python():
    here = Path(__file__).parent
    folders = [str(here / name) for name in ("convolution", "dense", "elementwise", "optim")]
    options = ["-q", "-p", "plain_simd", "-p", "no:cacheprovider", "-m", "not compiled"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *folders],
        cwd=here.parents[1],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "ENSYNC_SIMD": "plain"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
