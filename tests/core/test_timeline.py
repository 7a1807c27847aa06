"""The record of a run of any length: evenly spaced steps, whole ones, within its memory."""

import numpy as np
import pytest

from ensync.core.timeline import Kind, Timeline


def record(timeline, calls, events, count=1):
    """Do so many calls, the i-th with events(i) events beside its own."""
    for call in range(calls):
        timeline.begin()
        for number in range(events(call) if timeline.on else 0):
            timeline.add(Kind.FORWARD, call, call + 0.5, number)
        timeline.end(float(call), member=call % 2, first=call // 2 * count, count=count)
    return timeline.record()


@pytest.mark.parametrize("calls", [1, 7, 8, 9, 100, 1001])
def test_steps_are_evenly_spaced_and_few(calls):
    timeline = Timeline(most_steps=8, most_events=1000)
    found = record(timeline, calls, lambda call: 3)
    starts = found.events[found.events[:, 0] == Kind.STEP, 3]
    every = timeline.every
    assert starts.tolist() == list(range(0, calls, every))
    assert every == 1 if calls <= 8 else 8 / 2 <= len(starts) <= 8
    assert found.seen == calls and found.overflown == 0


def test_long_runs_begin_with_few():
    timeline = Timeline(most_steps=8, most_events=1000)
    timeline.expect(8 * 5)
    found = record(timeline, 40, lambda call: 1)
    assert found.events[found.events[:, 0] == Kind.STEP, 3].tolist() == list(range(0, 40, 5))
    timeline.expect(8 * 7)
    assert timeline.every == 5, "once it has begun it goes on"


def test_each_step_keeps_its_own_events():
    found = record(Timeline(most_steps=6, most_events=1000), 50, lambda call: call % 5)
    first = 0
    for member, done, count, ranks, end in found.steps.tolist():
        *inner, whole = found.events[first:end]
        call = int(whole[3])
        assert whole[0] == Kind.STEP and len(inner) == call % 5
        assert all(event[3] == call and event[1] == i for i, event in enumerate(inner))
        assert (member, done, count, ranks) == (call % 2, call // 2, 1, 1)
        first = end
    assert first == len(found.events)


def test_memory_bounds_the_events_as_well():
    timeline = Timeline(most_steps=1000, most_events=64)
    found = record(timeline, 500, lambda call: 9)
    assert 2 <= len(found.steps) <= 6 and len(found.events) == 10 * len(found.steps)
    assert np.all(np.diff(found.events[found.events[:, 0] == Kind.STEP, 3]) == timeline.every)


def test_a_step_beyond_the_memory_is_counted():
    found = record(Timeline(most_steps=4, most_events=10), 3, lambda call: 20 * (call == 1))
    assert found.overflown == 1 and found.seen == 3
    assert found.steps[:, 4].tolist() == [1, 2]
