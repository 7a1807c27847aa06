"""Deterministic runs on more ranks than the other tests for ranks are started on, and with ranks
lost and gained in between.
"""

from pathlib import Path

import pytest
from launched import launch

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
TESTS = "tests/runs/test_mpi_deterministic.py"
# What more ranks change: who holds which shards, or none, of one network and of several.
LAYOUTS = "mlp or residual or members"


def test_eight_ranks_leave_the_bits_of_one():
    """One shard a rank, or shards that eight do not divide; and runs that go on with any number of
    ranks up to eight. The tests for ranks leave one to three.
    """
    ended = launch.run(
        8,
        "-m",
        "pytest",
        "--with-mpi",
        "--color=no",
        "--timeout",
        "500",
        TESTS,
        "-k",
        f"ranks_leave_the_bits and ({LAYOUTS}) or goes_on and (2-4 or 3-5 or 8-3)",
        limit=600,
        cwd=ROOT,
    )
    assert ended.code == 0 and not ended.timed_out and " passed" in ended.out, ended
