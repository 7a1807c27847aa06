"""What happens before the first step of a run on several ranks."""

import time
from dataclasses import replace

import pytest
from mpi4py import MPI

from ensync.mpi.world import Topology, topology
from ensync.runs import warm_up

COMM = MPI.COMM_WORLD
pytestmark = [pytest.mark.mpi(min_size=2), pytest.mark.timeout(60)]


def spans(where: Topology) -> list[tuple[float, float]]:
    """Return when each rank began and ended what compiles, on the clock that processes of a
    machine share.
    """
    span = []

    def try_step():
        span.append(time.monotonic())
        time.sleep(0.1)
        span.append(time.monotonic())

    warm_up.compile_on_nodes(COMM, where.local_rank, try_step)
    return COMM.allgather(tuple(span))


def test_the_first_rank_of_a_node_compiles_and_the_others_then_load():
    (_, compiled), *others = spans(topology(COMM))
    assert all(compiled <= begin for begin, _ in others)


def test_each_node_compiles_on_its_own(monkeypatch):
    """Even and odd ranks seen as two nodes: the others of each wait for its first."""
    monkeypatch.setattr(warm_up.platform, "node", lambda: f"node{COMM.rank % 2}")
    found = spans(replace(topology(COMM), local_rank=COMM.rank // 2))
    for (_, compiled), *others in (found[::2], found[1::2]):
        assert all(compiled <= begin for begin, _ in others)
