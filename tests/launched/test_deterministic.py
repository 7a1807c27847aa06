"""Deterministic runs on more ranks than the other tests for ranks are started on, and with ranks
lost and gained in between.
"""

from pathlib import Path

import pytest
from launched import launch

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
TESTS = "tests/runs/test_mpi_deterministic.py"


def test_five_and_eight_ranks_leave_the_bits_of_one():
    bits = "leave_the_bits_of_one_rank"
    # one rank first: it compiles; eight ranks go on with any number that five could
    for ranks, which in ((1, bits), (5, bits), (8, f"{bits} or goes_on")):
        ended = launch.run(
            ranks,
            "-m",
            "pytest",
            "--with-mpi",
            "--color=no",
            "--timeout",
            "500",
            TESTS,
            "-k",
            which,
            limit=600,
            cwd=ROOT,
        )
        assert ended.code == 0 and not ended.timed_out and " passed" in ended.out, ended
