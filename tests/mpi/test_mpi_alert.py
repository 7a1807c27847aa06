"""What one rank tells, all hear without meeting, and nothing is left on its way."""

import time

import pytest

from ensync.core.signals import StopRequest
from ensync.mpi.alert import Alert
from ensync.mpi.world import share, world
from ensync.runs.hearing import hearing_each_other
from ensync.runs.stopped import Stopped

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60)]


@pytest.mark.parametrize("tellers", [{0}, {-1}, {0, -1}])
def test_what_one_rank_tells_all_others_hear(tellers):
    comm = world()
    ranks = {place % comm.size for place in tellers}
    alert = Alert(comm)
    assert alert.heard() == 0
    share(comm, None)  # nobody tells before all have looked
    if comm.rank in ranks:
        alert.tell(10 + comm.rank)
        alert.tell(99)  # too late
    others = ranks - {comm.rank}
    while others and alert.heard() != 10 + max(others):
        time.sleep(0.001)
    assert alert.heard() == (10 + max(others) if others else 0)
    alert.close()


def test_what_nobody_looked_for_is_received_in_the_end():
    comm = world()
    for _ in range(3):
        alert = Alert(comm)
        if comm.rank == comm.size - 1:
            alert.tell(5)
        alert.close()


def test_a_signal_to_one_rank_ends_the_loops_of_all():
    """Ranks that sum nothing meanwhile, as those of packed cells."""
    comm, stop_request, steps = world(), StopRequest(), 0
    with pytest.raises(Stopped), hearing_each_other(comm, stop_request):
        while not stop_request():
            steps += 1
            if comm.rank == comm.size - 1 and steps == 100:
                stop_request.receive(15, None)
        raise Stopped("stopped", "", "go on", 75)
    assert set(share(comm, stop_request.number)) == {15}
    assert stop_request() == 1, "without a look at others"
