"""A timeline in Chrome's trace format, which chrome://tracing and ui.perfetto.dev show: a process
for each rank, a thread for each row of it.

The format: "Trace Event Format", Google, events "X" (complete) and "M" (names); times in
microseconds.
"""

import json
from collections.abc import Iterator, Sequence

from ensync.core.timeline import MEETINGS, Kind
from ensync.report.files import finite
from ensync.report.profile.phases import Event, Step
from ensync.report.results import StepProfile

NAMES = {
    Kind.COMPUTE: "compute",
    Kind.LOAD: "load",
    Kind.SUM: "sum of statistics",
    Kind.VALUES: "values of other ranks",
    Kind.STAGE: "wait for a stage",
    Kind.REDUCE: "reduce",
    Kind.UPDATE: "update",
    Kind.FINISH: "end of update",
    Kind.PAUSE: "pause",
}
WAIT = "wait"
FILE = "profile.json"  # in the directory of a run


def trace_text(steps: Sequence[Step], profile: StepProfile | None, layers: Sequence[str]) -> str:
    """Return the file of a timeline; the table is its `otherData`. layers: their names."""
    origin = min((step.start for step in steps), default=0.0)
    events = [
        *_rows(steps),
        *(event for step in steps for event in _events(step, origin, layers)),
    ]
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    other = json.dumps(finite(profile) if profile else {}, allow_nan=False)
    return f'{{"displayTimeUnit": "ms", "otherData": {other},\n"traceEvents": [\n{lines}\n]}}\n'


def _rows(steps: Sequence[Step]) -> Iterator[dict[str, object]]:
    """Yield the names of ranks and rows."""
    for rank in sorted({step.rank for step in steps}):
        yield _name("process_name", rank, 0, f"rank {rank}")
    rows = {(step.rank, event.row) for step in steps for event in step.events}
    for rank, row in sorted(rows):
        name = f"virtual shard {row - 1}" if row else "steps"
        yield _name("thread_name", rank, row, name)


def _name(what: str, rank: int, row: int, name: str) -> dict[str, object]:
    return {"ph": "M", "name": what, "pid": rank, "tid": row, "ts": 0, "args": {"name": name}}


def _events(step: Step, origin: float, layers: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield the events of a step, those around others first."""

    def shown(name: str, row: int, start: float, end: float) -> dict[str, object]:
        ts, over = (round(1e6 * (time - origin), 3) for time in (start, end))
        duration = round(over - ts, 3)
        return {"ph": "X", "name": name, "pid": step.rank, "tid": row, "ts": ts, "dur": duration}

    for event in reversed(step.events):
        whole = shown(_named(step, event, layers), event.row, event.start, event.end)
        if event.kind == Kind.STEP:
            whole["args"] = {"member": step.member, "first": step.first, "count": step.count}
        yield whole
        if event.kind in MEETINGS and event.waited:
            whom = f"{WAIT} for rank {event.awaited}"
            yield shown(whom, event.row, event.start, event.start + event.waited)


def _named(step: Step, event: Event, layers: Sequence[str]) -> str:
    if event.kind == Kind.STEP:
        last = f" to {step.first + step.count:,}" if step.count > 1 else ""
        return f"step {step.first + 1:,}{last} of member {step.member}"
    if event.kind in (Kind.FORWARD, Kind.BACKWARD):
        return f"{event.kind.name.lower()} {layers[event.layer]}"
    return NAMES[event.kind]
