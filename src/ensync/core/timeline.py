"""When this rank did what in its steps: a record of bounded size (output.profile).

Every k-th step is recorded, to its events. When the record is full, every second step in it is
dropped and k doubles. So it holds evenly spaced steps of the whole run, and a run of any length
costs the same memory and ever less time. Nothing passes between ranks meanwhile: the ranks of a
network record the same steps, since these alone decide.
"""

import threading
from enum import IntEnum
from time import perf_counter
from typing import NamedTuple

import numpy as np

MOST_STEPS = 256  # in the record: enough for a mean, and a file that a browser opens
MOST_EVENTS = 1 << 15
WIDEST_START = 16  # the most k in the beginning: a small step recorded takes a fifth more time
WIDTH = 6  # float64 numbers of an event


class Kind(IntEnum):
    """What an event is. SUM, REDUCE, FINISH and VALUES are meetings: none ends before all ranks of
    the network, or of a replica of it, have begun it.
    """

    STEP = 0  # all of a call of the runner
    COMPUTE = 1  # the gradient of a part of the batch
    LOAD = 2  # images into the batch
    FORWARD = 3  # a layer
    BACKWARD = 4  # a layer
    SUM = 5  # of statistics, within a layer
    REDUCE = 6  # of the gradient, or the wait for it where the update sums it piece by piece
    UPDATE = 7  # of the parameters; `busy` seconds of it, the rest sums and copies pieces
    FINISH = 8  # the wait for the pieces of the others
    PAUSE = 9  # a virtual shard that waits while others compute
    VALUES = 10  # between the parts of a network, within a layer
    STAGE = 11  # the wait for another stage of a network


MEETINGS = (Kind.SUM, Kind.REDUCE, Kind.FINISH, Kind.VALUES)


class Record(NamedTuple):
    """What a rank has recorded, in its own clock (time.perf_counter, seconds).

    steps int64 `(n, 5)`: member, updates before it, how many it does, ranks of the network, and the
    end of its events in `events` float64 `(m, 6)`: kind, layer, row, start, end, busy. The events
    of a step are in order of their ends, so that what lies within another comes before it. row: 0,
    or 1 + the virtual shard whose thread it was. seen: steps of the run since the program
    started; overflown: calls with more events than there was room for.
    """

    steps: np.ndarray
    events: np.ndarray
    seen: int
    overflown: int


class _Row(threading.local):
    """The row of the thread that asks."""

    number = 0


class Timeline:
    """The record of this rank while it trains.

    on: whether the step at hand is recorded. ranks: how many train each member; layers: the names
    of the network's layers. stages, micro_batches: as the ranks hold it, where in stages.
    """

    stages, micro_batches = 1, 1

    def __init__(self, most_steps: int = MOST_STEPS, most_events: int = MOST_EVENTS) -> None:
        self.on = False
        self.ranks: dict[int, int] = {}
        self.layers: list[str] = []
        self.every, self.seen, self.overflown = 1, 0, 0
        self._calls, self._longest, self._most_steps = 0, 0, most_steps
        self._steps: list[tuple[int, int, int, int, int]] = []
        self._numbers: list[int] = []  # of the recorded calls
        self._room, self._used = most_events, 0
        self._values = memoryview(bytearray(8 * WIDTH * most_events)).cast("d")
        self._row = _Row()

    def expect(self, steps: int) -> None:
        """Let k be larger from the start where so many calls are to come."""
        if not self._calls:
            self.every = min(max(steps // self._most_steps, 1), WIDEST_START)

    def take_row(self, number: int) -> None:
        """Note what this thread does in another row from here on."""
        self._row.number = number

    def begin(self) -> None:
        """Begin a step."""
        if self._calls % self.every == 0:
            full = len(self._steps) == self._most_steps
            if full or (self._steps and self._used + self._longest > self._room):
                self._thin()
            self.on = self._calls % self.every == 0

    def add(self, kind: Kind, start: float, end: float, layer: int = 0, busy: float = 0.0) -> None:
        """Note an event of the step at hand, seconds of time.perf_counter."""
        used = self._used
        if used < self._room:
            at, values = used * WIDTH, self._values
            values[at], values[at + 1], values[at + 2] = kind, layer, self._row.number
            values[at + 3], values[at + 4], values[at + 5] = start, end, busy
        self._used = used + 1

    def end(self, start: float, member: int, first: int, count: int) -> None:
        """End what began at `start`: the next `count` updates of a member after the first
        `first`.
        """
        self.seen += count
        self._calls += 1
        if not self.on:
            return
        self.add(Kind.STEP, start, perf_counter())
        self.on, before = False, self._steps[-1][-1] if self._steps else 0
        self._longest = max(self._longest, min(self._used - before, self._room))
        if self._used > self._room:
            self._used, self.overflown = before, self.overflown + 1
            return
        self._steps.append((member, first, count, self.ranks.get(member, 1), self._used))
        self._numbers.append(self._calls - 1)

    def _thin(self) -> None:
        """Drop what is no multiple of twice the distance between recorded steps."""
        self.every *= 2
        events, ends = self._events(), [0, *(step[-1] for step in self._steps)]
        kept = [i for i, number in enumerate(self._numbers) if number % self.every == 0]
        pieces = [events[ends[i] : ends[i + 1]].copy() for i in kept]
        steps, numbers = [self._steps[i] for i in kept], [self._numbers[i] for i in kept]
        self._used = 0
        for place, (step, piece) in enumerate(zip(steps, pieces, strict=True)):
            events[self._used : self._used + len(piece)] = piece
            self._used += len(piece)
            steps[place] = (*step[:-1], self._used)
        self._steps, self._numbers = steps, numbers

    def _events(self) -> np.ndarray:
        return np.frombuffer(self._values, np.float64).reshape(-1, WIDTH)

    def record(self) -> Record:
        """Return what is recorded so far."""
        steps = np.array(self._steps, np.int64).reshape(-1, 5)
        return Record(steps, self._events()[: self._used].copy(), self.seen, self.overflown)
