"""Links between the stages of a network: what arrives where, bytes, and messages longer than MPI
keeps for a receiver that isn't ready.
"""

import numpy as np
import pytest
from mpi4py import MPI

from ensync.mpi.stages import StageLinks

COMM = MPI.COMM_WORLD
pytestmark = [pytest.mark.mpi(min_size=2), pytest.mark.timeout(60)]
LONG = 1 << 20  # float64 numbers: 8 MB


def test_long_messages_cross():
    """Neighbours send to each other, several times, before any of them receives."""
    links, other = StageLinks(COMM), COMM.rank ^ 1
    if other < COMM.size:
        values = np.full((2, LONG // 2), float(COMM.rank))
        for number in range(3):
            links.send(values + number, other)
            links.look()
        out = np.empty(LONG)
        for number in range(3):
            links.receive(out, other)
            assert (out == other + number).all()
        links.finish()
        assert links.cost.bytes == 3 * 8 * LONG and links.cost.seconds > 0
        links.send(values, other)
        links.receive(out, other)
        assert len(links._posts) <= 3, "copies that were received are used again"
    links.close()


def test_the_first_has_all_and_the_last_tells_all():
    links = StageLinks(COMM)
    own = np.full(COMM.rank, float(COMM.rank))
    found = links.to_first(own)
    assert (found is None) == (COMM.rank > 0)
    for rank, values in enumerate(found or ()):
        assert values.tolist() == [float(rank)] * rank
    values = np.full(3, float(COMM.rank))
    links.from_last(values)
    assert (values == COMM.size - 1).all()
    assert links.most(COMM.rank % 2) == 1
    assert links.cost.bytes == 0, "no values of layers"
