"""Who waits for whom, in which operation and since when; a job in which nobody gets on any more is
ended with that report.

Each rank notes what it does (activity.py) in memory that its node shares. A thread of each rank
looks at these notes now and then: a thread, because its rank may be inside MPI for ever; of every
rank, because any other may be stopped or dead. When no rank of the node has got on for the limit,
the other nodes are asked (inquiry.py). When nobody there has either, the first to know it says it
and ends the job. A rank that works alone while the others wait for it keeps the job alive by its
own notes.
"""

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, sleep

import numpy as np
from mpi4py import MPI

from ensync.core import activity
from ensync.core.activity import OPERATION, SINCE, STEP, WIDTH, Doing
from ensync.core.errors import EnsyncError
from ensync.mpi.abort import end_job
from ensync.mpi.inquiry import Inquiry
from ensync.mpi.notes import SILENT, Note, identity, standstill, state
from ensync.mpi.shared_memory import node_file
from ensync.mpi.world import Comm, node_of

EXIT_CODE = 3  # of a job that the watchdog ends
_PERIOD = 1.0  # seconds between two looks, fewer where the limit is short
_LOOKS = 4  # within the limit, at least
_PATIENCE = 3.0  # seconds that MPI may take for its abort
_CLAIM = 10.0  # seconds for which the other nodes leave the word to one that asked them


@contextmanager
def watch(comm: Comm, limit: float, directory: str, survive: bool = False) -> Iterator[str]:
    """Watch the ranks while the block runs; yield what rank 0 should warn of, or "". Collective.

    limit: seconds, 0: not at all. directory: of the run, for the report. survive: whether the
    others go on without a rank that is dead.
    """
    if not limit:
        yield ""
        return
    watchdog = Watchdog(comm, limit, directory, survive)
    try:
        yield watchdog.obstacle
    finally:
        watchdog.stop()


class Watchdog:
    """The notes of this node's ranks, and the thread that looks at them. Collective to make."""

    def __init__(self, comm: Comm, limit: float, directory: str, survive: bool) -> None:
        self._comm, self._limit, self._directory, self._survive = comm, limit, directory, survive
        node = node_of(comm)
        self._place, self._node, self._begun = node.rank, MPI.Get_processor_name(), perf_counter()
        self._lock, memory = node_file(node, 8 * WIDTH * (node.size + 1))
        # One row for each rank of the node, and one for the other nodes: when they were heard to
        # get on, and when one of them asked.
        self._table = np.frombuffer(memory, np.float64).reshape(-1, WIDTH)
        self._table[[node.rank, -1], SINCE] = self._begun
        self._ranks = node.allgather((comm.rank, *identity()))
        self._sees = all(
            node.allgather(all(state(*process) for _, *process in self._ranks))
        )  # not across process namespaces
        activity.lend(memoryview(memory)[8 * WIDTH * node.rank :][: 8 * WIDTH].cast("d"))
        activity.begin(Doing.PREPARING)
        self._inquiry = Inquiry(comm, self._ranks[0][0], self._node, os.getpid(), self._answer)
        node.Free()
        self._table[-1, OPERATION] = -np.inf  # asked only to try whether the nodes answer
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="watchdog").start()

    @property
    def obstacle(self) -> str:
        """What keeps the watchdog from seeing other nodes, or ""."""
        return (
            ""
            if self._inquiry.works
            else "the nodes cannot reach each other by TCP, so the watchdog sees a rank that "
            "hangs only when no other node is in use"
        )

    def stop(self) -> None:
        """Look no more; the other ranks see that this one leaves."""
        activity.take_back()
        self._stopped.set()
        self._inquiry.close()

    def _notes(self) -> list[Note]:
        now = perf_counter()
        return [
            Note(
                rank,
                self._node,
                number,
                int(row[OPERATION]),
                int(row[STEP]),
                now - row[SINCE],
                state(number, started) if self._sees else "S",
            )
            for (rank, number, started), row in zip(self._ranks, self._table.copy(), strict=False)
        ]

    def _answer(self) -> list[Note]:
        """Tell another node, which then has the word."""
        self._table[-1, OPERATION] = perf_counter()
        return self._notes()

    def _run(self) -> None:
        try:
            self._look()
        finally:
            os.close(self._lock)

    def _look(self) -> None:
        """Look now and then, until this rank leaves."""
        period = min(_PERIOD, self._limit / _LOOKS)
        looked = perf_counter()
        while not self._stopped.wait(period):
            now = perf_counter()
            if (
                now - looked > period + self._limit / 2
            ):  # this rank was suspended, perhaps with the whole job
                self._begun = now
            looked = now
            if (self._hangs() or self._neighbour_gone()) and now - self._table[
                -1, OPERATION
            ] > _CLAIM:
                self._ask_all()

    def _hangs(self) -> bool:
        """Return whether nobody on this node, nor anybody heard of, has got on for the limit."""
        if perf_counter() - max(self._begun, float(self._table[:, SINCE].max())) <= self._limit:
            return False
        return not any(note.compiles for note in self._notes())

    def _neighbour_gone(self) -> bool:
        """Return whether the next rank of this node that has not left in order is dead."""
        if self._survive or not self._sees:
            return False
        count = len(self._ranks)
        nexts = ((self._place + k) % count for k in range(1, count))
        staying = (place for place in nexts if self._table[place, OPERATION] != Doing.LEFT)
        return any(not state(*self._ranks[place][1:]) for place in list(staying)[:1])

    def _ask_all(self) -> None:
        """Ask the other nodes; end the job when nobody gets on or somebody is dead. One rank of
        a node at a time.
        """
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # another rank of the node is about it
        try:
            sleep(_PERIOD / 2)  # a launcher that knows of a dead rank says so better
            others = self._inquiry.ask()
            youngest = (
                min(
                    (0.0 if note.compiles else note.age for note in others if note.state != SILENT),
                    default=self._limit,
                )
                if self._inquiry.works
                else 0.0
            )
            if self._hangs() and youngest < self._limit:
                self._table[-1, SINCE] = perf_counter() - youngest
            notes = [*self._notes(), *others]
            dead = any(note.dead for note in notes) and not self._survive
            if dead or self._hangs():
                self._end(standstill(notes, self._limit, self._directory))
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _end(self, reason: EnsyncError) -> None:
        """Tell why and abort all ranks; this one also where MPI cannot, because its rank is inside
        it.

        MPI was promised one thread at a time; an abort beside a call that will never end is what
        both libraries bear.
        """
        if self._stopped.is_set():
            return
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        end_job(self._comm, EXIT_CODE, str(reason))
