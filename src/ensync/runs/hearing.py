"""A signal that one rank receives stops all, also those that train other cells meanwhile."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ensync.core.signals import StopRequest
from ensync.mpi.alert import Alert
from ensync.mpi.world import Comm
from ensync.runs.stopped import Stopped

EVERY = 0.5  # seconds between two looks for what others were asked


@contextmanager
def hearing_each_other(comm: Comm, stop_request: StopRequest) -> Iterator[None]:
    """Let whoever asks `stop_request` inside the block hear of a signal that any of these ranks
    received: with the next step after half a second. Collective; a stop must end the block on all
    ranks.
    """
    alert, due = Alert(comm), 0.0

    def look() -> None:
        nonlocal due
        if stop_request.number:
            alert.tell(stop_request.number)
        elif time.monotonic() >= due:
            due = time.monotonic() + EVERY
            if number := alert.heard():
                stop_request.number = stop_request.number or number

    before, stop_request.look = stop_request.look, look
    try:
        yield
    except Stopped:
        alert.close()
        raise
    else:
        alert.close()
    finally:
        stop_request.look = before
