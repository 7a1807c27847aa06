"""The board of a study: what is done, running and left, and the time to go."""

import io

import pytest

from ensync.report.board import DONE, LEFT, RUNNING, Board, Shown
from ensync.report.console import Console
from ensync.report.results import CellResult
from ensync.report.terminal import Terminal


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def result(**values):
    return CellResult(
        contestant="a",
        ranks=1,
        seed=1,
        job={},
        **{"seconds": 2.5, "validation_accuracy": 0.9} | values,
    )


@pytest.fixture
def board():
    cells = [Shown("a on 1 rank", f"seed {s}", 2.0) for s in (1, 2)]
    cells += [Shown("b on 2 ranks", f"seed {s}", 1.0) for s in (1, 2)]
    lines = []
    made = Board(cells, lines.append, clock=Clock(), log_seconds=30.0)
    made.written = lines
    return made


def run(board, number, seconds):
    board.begin(number)
    board.clock.now += seconds
    board.end(number, result())


def test_a_log_has_a_line_a_cell_with_the_time_to_go(board):
    assert board.seconds_left() is None
    run(board, 0, 10.0)
    assert board.written == ["1/4  a on 1 rank, seed 1: validation 90.00 %, 2.50 s; 0:20 to go"]
    run(board, 2, 3.0)
    assert board.seconds_left() == 10.0 + 3.0  # each row by its own pace
    board.begin(1)
    board.clock.now += 31.0
    board.step(1, 0.5)
    assert board.written[-1] == "  a on 1 rank, seed 2: 50%"
    assert board.seconds_left() == 5.0 + 3.0
    board.step(1, 0.6)  # too early to be shown
    assert len(board.written) == 3


def test_the_table_has_a_sign_for_each_cell(board):
    board.skip(0)
    board.begin(2)
    assert [cell.state for cell in board.cells] == [DONE, LEFT, RUNNING, LEFT]
    assert board.lines() == [
        "a on 1 rank   #.",
        "b on 2 ranks  >.",
        "1 of 4 cells done, 1 running (b on 2 ranks, seed 1: 0%), 2 left",
    ]


def test_failures_and_members_that_are_left_out_are_said(board):
    board.begin(0)
    board.end(0, result(excluded={"0": "diverged in epoch 1"}, validation_accuracy=None))
    board.begin(1)
    board.end(1, result(members=4, excluded={"2": "diverged"}))
    assert "seed 1: failed, diverged in epoch 1" in board.written[0]
    assert "2.50 s, 1 of 4 members left out" in board.written[1]


def test_a_terminal_shows_the_table_below_the_lines():
    stream, clock = io.StringIO(), Clock()
    console = Console(stream, terminal=Terminal(80), clock=clock)
    board = console.board([Shown("a on 1 rank", "seed 1", 1.0)])
    board.begin(0)
    clock.now = 1.0
    board.step(0, 0.25)
    board.end(0, result())
    board.close()
    shown = stream.getvalue()
    assert "0 of 1 cell done, 1 running (a on 1 rank, seed 1: 25%)" in shown
    assert "1/1  a on 1 rank, seed 1: validation 90.00 %, 2.50 s" in shown
