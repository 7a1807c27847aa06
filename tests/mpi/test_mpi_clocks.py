"""The clocks of ranks, compared."""

from time import perf_counter

import pytest
from mpi4py import MPI

from ensync.mpi import clocks
from ensync.mpi.clocks import Reading, read_clock

COMM = MPI.COMM_WORLD
pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("ahead", [0.0, 50.0, -3.0])
def test_the_difference_is_found_within_its_error(ahead, monkeypatch):
    monkeypatch.setattr(clocks, "perf_counter", lambda: perf_counter() + ahead * COMM.rank)
    found = read_clock(COMM)
    assert abs(found.offset + ahead * COMM.rank) <= found.error < 1
    if COMM.rank == 0 or not ahead:
        assert found.offset == found.error == 0, "ranks of a node have one clock"


def test_a_difference_beyond_its_error_stays():
    assert Reading(1.0, 0.2, 0.3).settled == (1.0, 0.0, 0.0)
    assert Reading(1.0, -0.4, 0.3).settled == (1.0, -0.4, 0.3)
