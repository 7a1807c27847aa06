"""The profile of a run (output.profile): what each rank records, and the file and the table of all.

Ranks exchange nothing for it between its beginning and its end.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ensync.core.activity import Doing, doing
from ensync.core.config.parallel import Parallel
from ensync.core.timeline import MOST_EVENTS, Record, Timeline
from ensync.mpi.allreduce import gather_to_root
from ensync.mpi.clocks import Reading, read_clock
from ensync.mpi.world import Comm, on_root
from ensync.report.console import Console
from ensync.report.profile.phases import Step, read_steps, together
from ensync.report.profile.summary import profile_lines, summary, waits_of_stages
from ensync.report.profile.trace import FILE, trace_text
from ensync.report.results import PipelineTime, StepProfile
from ensync.storage.atomic import write_atomically
from ensync.storage.lock import confirm

MOST_OF_ALL = 1 << 19  # events of all ranks: some 60 MB of the file


@dataclass
class Profiler:
    """What this rank records of a run, and its clock at the beginning. found: on rank 0, in the
    end.
    """

    timeline: Timeline
    begun: Reading
    ranks: int
    found: StepProfile | None = field(default=None)


@dataclass(frozen=True)
class _Rank:
    """What a rank hands over in the end."""

    record: Record
    begun: Reading
    ended: Reading
    layers: list[str]


def begin(comm: Comm) -> Profiler:
    """Compare the clocks, and return what is to record. Collective."""
    events = min(MOST_EVENTS, MOST_OF_ALL // comm.size)
    return Profiler(Timeline(most_events=events), read_clock(comm), comm.size)


def finish(comm: Comm, profiler: Profiler, directory: Path, console: Console) -> None:
    """Write the file of all ranks that are left, and show the table. Collective."""
    timeline = profiler.timeline
    # where a rank has died, rank 0 may be another one
    ended = read_clock(comm) if comm.size == profiler.ranks else profiler.begun
    mine = _Rank(timeline.record(), profiler.begun, ended, timeline.layers)
    ranks = gather_to_root(comm, mine) or []
    with doing(Doing.WRITING):
        on_root(comm, lambda: _write(ranks, profiler, directory))
    if profiler.found is not None:
        console.lines(["", *profile_lines(profiler.found)])
        console.files({"timeline": directory / FILE})


def _write(ranks: list[_Rank], profiler: Profiler, directory: Path) -> None:
    found: list[Step] = []
    for number, rank in enumerate(ranks):
        found += read_steps(number, rank.record, to_root(rank.record, rank.begun, rank.ended))
    stages, micro_batches = profiler.timeline.stages, profiler.timeline.micro_batches
    steps, left_out = together(found, stages)
    left_out += sum(rank.record.overflown for rank in ranks)
    error = max(max(rank.begun.error, rank.ended.error) for rank in ranks)
    seen = max(rank.record.seen for rank in ranks)
    layers = ranks[0].layers
    profiler.found = summary(steps, seen, left_out, error, layers)
    if profiler.found is not None:
        if stages > 1:
            bubble = Parallel(stages=stages).bubble(micro_batches)
            waits = waits_of_stages(steps, stages)
            timed = PipelineTime(micro_batches=micro_batches, bubble=bubble, waits=waits)
            profiler.found = replace(profiler.found, pipeline=timed)
        confirm(directory)
        text = trace_text(steps, profiler.found, layers)
        write_atomically(directory / FILE, [text.encode()])


def to_root(record: Record, begun: Reading, ended: Reading) -> np.ndarray:
    """Return what brings the times float64 (events, 2) of a record to rank 0's clock: between the
    two readings the clocks part evenly.
    """
    times, length = record.events[:, 3:5], ended.at - begun.at
    if length <= 0 or begun.offset == ended.offset:
        return np.full_like(times, begun.offset)
    return begun.offset + (times - begun.at) * ((ended.offset - begun.offset) / length)
