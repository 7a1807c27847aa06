"""How recorded steps add up by phases, on records written by hand."""

import numpy as np
import pytest

from ensync.core.timeline import Kind, Record
from ensync.report.profile.phases import PHASES, read_steps, together
from ensync.report.profile.summary import profile_lines, summary

# kind, layer, row, start, end, busy: of a step of 10 s on rank 0 and of 10 s on rank 1, which comes
# to the first meeting 2 s later and to the last one 1 s earlier
FAST = [
    (Kind.LOAD, 0, 0, 0, 1, 0),
    (Kind.SUM, 0, 0, 2, 3, 0),
    (Kind.FORWARD, 0, 0, 1, 4, 0),
    (Kind.BACKWARD, 0, 0, 4, 4.5, 0),
    (Kind.REDUCE, 0, 0, 5, 7.5, 0),
    (Kind.UPDATE, 0, 0, 7.5, 9, 1),
    (Kind.FINISH, 0, 0, 9, 9.5, 0),
    (Kind.STEP, 0, 0, 0, 10, 0),
]
SLOW = [
    (Kind.LOAD, 0, 0, 0, 1, 0),
    (Kind.SUM, 0, 0, 2.5, 3, 0),
    (Kind.FORWARD, 0, 0, 1, 4, 0),
    (Kind.BACKWARD, 0, 0, 4, 7, 0),
    (Kind.REDUCE, 0, 0, 7, 7.5, 0),
    (Kind.UPDATE, 0, 0, 7.5, 8, 0.5),
    (Kind.FINISH, 0, 0, 8, 9.5, 0),
    (Kind.STEP, 0, 0, 0, 10, 0),
]
EXPECTED = {  # input, forward, backward, update, communication, wait, other
    0: (1, 2, 0.5, 1, 0.5 + 0.5 + 0.5 + 0.5, 0.5 + 2, 1),
    1: (1, 2.5, 3, 0.5, 0.5 + 0.5 + 0.5, 1, 0.5),
}


def record(events, ranks=2, first=0, shift=0.0):
    rows = np.array(events, float)
    rows[:, 3:5] += shift
    return Record(np.array([[0, first, 1, ranks, len(rows)]]), rows, 1, 0)


def steps_of(fast, slow, shift=0.0):
    moved = np.full((len(slow.events), 2), -shift)
    return read_steps(0, fast, np.zeros((len(fast.events), 2))) + read_steps(1, slow, moved)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_waits_end_when_the_last_rank_comes(shift):
    steps, left_out = together(steps_of(record(FAST), record(SLOW, shift=shift), shift))
    assert left_out == 0
    for step in steps:
        assert tuple(step.phases().values()) == pytest.approx(EXPECTED[step.rank])
        assert sum(step.phases().values()) == step.seconds == 10
    assert [event.awaited for event in steps[0].meetings] == [1, 1, 0]


def test_one_rank_neither_waits_nor_communicates():
    steps, _ = together(read_steps(0, record(FAST, ranks=1), np.zeros((len(FAST), 2))))
    assert tuple(steps[0].phases().values()) == pytest.approx((1, 2, 0.5, 1, 0, 0, 5.5))


def test_a_step_that_a_rank_lacks_is_left_out_and_counted():
    steps, left_out = together(steps_of(record(FAST), record(SLOW, first=1)))
    assert (steps, left_out) == ([], 2)
    steps, left_out = together(steps_of(record(FAST), record(SLOW[:4] + SLOW[5:])))
    assert (steps, left_out) == ([], 2), "nor is one with other meetings"
    assert summary(steps, 2, 2, 0.0, ["0 Dense"]) is None


def test_shards_that_pause_do_not_count_twice():
    shards = [
        (Kind.PAUSE, 0, 1, 1, 3, 0),
        (Kind.FORWARD, 0, 2, 1, 2, 0),
        (Kind.SUM, 0, 0, 2, 3, 0),
        (Kind.FORWARD, 0, 1, 0, 4, 0),
        (Kind.STEP, 0, 0, 0, 4, 0),
    ]
    steps, _ = together(read_steps(0, record(shards, ranks=1), np.zeros((5, 2))))
    assert steps[0].phases()["forward"] == 3 and steps[0].phases()["other work"] == 1


def test_the_table_names_ranks_layers_and_what_is_left_out():
    steps, _ = together(steps_of(record(FAST), record(SLOW)))
    table = summary(steps, 7, 3, 0.001, ["0 Dense"])
    assert [phase.name for phase in table.phases] == list(PHASES)
    assert table.seconds == 10 and table.recorded == 1 and table.steps == 7
    assert (table.layers[0].forward, table.layers[0].backward) == (2.25, 1.75)
    lines = "\n".join(profile_lines(table))
    assert "the mean of 1 of 7 steps on each of 2 ranks" in lines
    assert "1750.000   17.5 %" in lines and "2500.000 (rank 0)" in lines
    assert "slowest layers, both ways: 0 Dense 4000.000 ms" in lines
    assert "3 records of steps were not whole" in lines and "agree to 1.000 ms" in lines
