"""How a verb runs and prints when the launcher starts it as several processes."""

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ensync.core import garbage, streams
from ensync.core.launching import started

if TYPE_CHECKING:
    from ensync.mpi.world import Comm


def on_ranks(run: "Callable[[Comm], None]") -> None:
    """Run something collective on all ranks, so that one failing rank ends the job with its
    reason.
    """
    streams.check_files()
    from ensync.core.signals import raise_interrupts
    from ensync.mpi.abort import guard
    from ensync.mpi.world import world

    comm = world()
    garbage.look_as_usual()
    raise_interrupts()
    with guard(comm):
        run(comm)


def say(text: Callable[[], str]) -> None:
    """Print the text of a verb that needs one process. Under mpirun every process computes it, so
    that all end alike, and rank 0 prints it.
    """
    found = text()
    if speaks():
        streams.say(found)


def say_all(texts: Callable[[], Iterable[str]]) -> None:
    """Print texts one by one, as `say`; those before an error are printed."""
    for text in texts():
        if speaks():
            streams.say(text)


def speaks() -> bool:
    """Tell whether this process prints: rank 0, or any with a terminal (a shell within a Slurm step
    has its variables).
    """
    return started(os.environ).rank == 0 or os.isatty(0)
