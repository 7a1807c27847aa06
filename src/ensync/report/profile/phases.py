"""What the ranks recorded of their steps, in one clock, and how it adds up by phases.

A meeting of ranks ends when the last has come. So what a rank spends there before that is its wait
for the slowest, and the rest is communication that nothing hides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np

from ensync.core.timeline import MEETINGS, Kind, Record

# The phases in the order of a table; the last is what is left of a step.
INPUT, FORWARD, BACKWARD, UPDATE = "input", "forward", "backward", "update"
COMMUNICATION, WAIT, OTHER = "exposed communication", "waiting for the slowest", "other work"
PHASES = (INPUT, FORWARD, BACKWARD, UPDATE, COMMUNICATION, WAIT, OTHER)


@dataclass(frozen=True)
class Event:
    """An event in seconds of rank 0's clock. busy: of an update. waited: of a meeting, and
    `awaited`: the rank that came last.
    """

    kind: Kind
    layer: int
    row: int
    start: float
    end: float
    busy: float
    waited: float = 0.0
    awaited: int = -1

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


@dataclass(frozen=True)
class Step:
    """A call of a rank's runner: `count` steps of a member after the first `first`, on so many
    ranks of the network. Its last event is that of the whole.
    """

    rank: int
    member: int
    first: int
    count: int
    ranks: int
    events: list[Event] = field(repr=False)

    @property
    def start(self) -> float:
        """When it began."""
        return self.events[-1].start

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.events[-1].seconds

    @property
    def meetings(self) -> list[Event]:
        """Its meetings, in their order."""
        return self.met(MEETINGS)

    def met(self, kinds: Sequence[Kind]) -> list[Event]:
        """Return its meetings of these kinds, in their order."""
        return [event for event in self.events if event.kind in kinds and not event.row]

    def layers(self) -> Iterator[tuple[int, Kind, float]]:
        """Yield number, direction and seconds of each layer, without the sums within it."""
        inner = dict[int, float]()
        for event in self.events:
            if event.kind in (Kind.SUM, Kind.PAUSE, Kind.VALUES):
                inner[event.row] = inner.get(event.row, 0.0) + event.seconds
            elif event.kind in (Kind.FORWARD, Kind.BACKWARD):
                yield event.layer, event.kind, event.seconds - inner.pop(event.row, 0.0)

    def phases(self) -> dict[str, float]:
        """Return seconds by phase, which add up to its own."""
        found = dict.fromkeys(PHASES, 0.0)
        for _, kind, seconds in self.layers():
            found[FORWARD if kind == Kind.FORWARD else BACKWARD] += seconds
        for event in self.events:
            if event.kind == Kind.LOAD:
                found[INPUT] += event.seconds
            elif event.kind == Kind.UPDATE:
                found[UPDATE] += event.busy
                found[COMMUNICATION] += (event.seconds - event.busy) * (self.ranks > 1)
            elif event.kind == Kind.STAGE:
                found[WAIT] += event.seconds
            elif event.kind in MEETINGS and self.ranks > 1:
                found[WAIT] += event.waited
                found[COMMUNICATION] += event.seconds - event.waited
        found[OTHER] = self.seconds - sum(found.values())
        return found


def read_steps(rank: int, record: Record, to_root: np.ndarray) -> list[Step]:
    """Return the steps of a rank. to_root: float64 (events, 2): what is added to start and end to
    get the time of rank 0.
    """
    steps, first = [], 0
    for member, done, count, ranks, end in record.steps.tolist():
        rows = record.events[first:end].copy()
        rows[:, 3:5] += to_root[first:end]
        events = [
            Event(Kind(int(kind)), int(layer), int(row), *times)
            for kind, layer, row, *times in rows.tolist()
        ]
        steps.append(Step(rank, member, done, count, ranks, events))
        first = end
    return steps


def together(steps: Sequence[Step], stages: int = 1) -> tuple[list[Step], int]:
    """Return the steps that all ranks of their network have, with what each waited in meetings, and
    how many others there are.

    stages: of a network, each of which sums statistics of its own layers alone.
    """

    def place(step: Step) -> tuple[int, int]:
        return step.member, step.first

    kept: list[Step] = []
    kinds = [kind for kind in MEETINGS if kind != Kind.SUM or stages == 1]
    for _, group in groupby(sorted(steps, key=place), key=place):
        alike = list(group)
        lengths = {len(step.met(kinds)) for step in alike}
        if len(alike) == alike[0].ranks and len(lengths) == 1:
            kept += _waited(alike, kinds)
    return sorted(kept, key=lambda step: (step.rank, step.start)), len(steps) - len(kept)


def _waited(alike: Sequence[Step], kinds: Sequence[Kind]) -> list[Step]:
    """Return the same step of several ranks with the waits in its meetings of these kinds."""
    last = [
        max((event.start, step.rank) for event, step in zip(meeting, alike, strict=True))
        for meeting in zip(*(step.met(kinds) for step in alike), strict=True)
    ]
    found = []
    for step in alike:
        came, events = iter(last), []
        for event in step.events:
            if event.kind in kinds and not event.row:
                time, rank = next(came)
                waited = min(max(time - event.start, 0.0), event.seconds)
                event = replace(event, waited=waited, awaited=rank)
            events.append(event)
        found.append(replace(step, events=events))
    return found
