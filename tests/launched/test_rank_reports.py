"""The test suite's own promise: under mpirun a test that fails on one rank fails the run at
once, and rank 0 alone reports.
"""

from pathlib import Path

import pytest
from launched import launch

pytestmark = [pytest.mark.mpi_skip, pytest.mark.timeout(60)]

SUITE = """
import pytest
from mpi4py import MPI
comm = MPI.COMM_WORLD

@pytest.mark.mpi
def test_together():
    comm.Barrier()

@pytest.mark.mpi
@pytest.mark.xfail(reason="known", strict=True)
def test_known():
    assert comm.rank < 0

@pytest.mark.mpi
def test_alone():
    assert comm.rank != {failing}
    comm.Barrier()
"""


def run(tmp_path, failing):
    (tmp_path / "conftest.py").write_text(
        (Path(__file__).parent.parent / "conftest.py").read_text()
    )
    (tmp_path / "test_suite.py").write_text(SUITE.format(failing=failing))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return launch.run(
        2,
        "-m",
        "pytest",
        "--with-mpi",
        "--color=no",
        "-p",
        "no:cacheprovider",
        str(tmp_path),
        cwd=tmp_path,
    )


def test_a_failure_on_one_rank_is_told_and_ends_all(tmp_path):
    ended = run(tmp_path, failing=1)
    assert not ended.timed_out and ended.code == 1
    assert (
        ended.err.count("[rank 1 of 2] test_suite.py::test_alone failed in call") == 1
        and "assert 1 != 1" in ended.err
    )


def test_success_is_reported_once(tmp_path):
    ended = run(tmp_path, failing=-1)
    assert (
        ended.code == 0
        and ended.out.count("2 passed, 1 xfailed") == 1
        and ended.out.count("mpi: ") == 1
    )
    assert "MPI Information" not in ended.out
