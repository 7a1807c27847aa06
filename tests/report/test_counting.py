"""The bar of counted work: on terminals only, within their width, with rate and time to go."""

import io
import re

import pytest

from ensync.report import counting
from ensync.report.console import Console, SilentConsole
from ensync.report.terminal import Terminal
from ensync.storage.request import BYTES

COLOURS, BREAKS = re.compile(r"\x1b\[[0-9;]*m"), re.compile(r"\x1b\[2K|[\r\n]")


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(columns, *reports):
    """What a terminal of so many columns shows of reports (seconds, what, done, total, unit)."""
    stream, clock = io.StringIO(), Clock()
    console = Console(stream, terminal=Terminal(columns), clock=clock)
    with console.counting() as progress:
        for now, *report in reports:
            clock.now = now
            progress(*report)
        text = stream.getvalue()
    return [line.rstrip() for line in BREAKS.split(COLOURS.sub("", text)) if line.strip()]


def test_rate_and_time_to_go():
    lines = shown(80, (0, "checking", 0, 400), (2, "checking", 100, 400))
    assert re.fullmatch(r"checking \S+ +25 %  50\.0/s  0:06 left", lines[-1])


def test_bytes_and_the_next_kind_of_work():
    """Each kind of work has a pace of its own."""
    lines = shown(
        80,
        (0, "checking", 0, 100),
        (9, "checking", 50, 100),
        (10, "fetching", 0, 8_000_000, BYTES),
        (12, "fetching", 2_000_000, 8_000_000, BYTES),
    )
    assert lines[-1].startswith("fetching") and lines[-1].endswith(" 25 %  1.0 MB/s  0:06 left")


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_line_fits(columns):
    what = "checking " + "a-very-long-name-of-an-archive-" * 5 + "000.tar"
    lines = shown(columns, (0, what, 0, 10**9), (5000, what, 10**8, 10**9))
    assert max(map(len, lines)) <= columns
    assert "checking" in lines[-1] and "000.tar" in lines[-1] and "left" in lines[-1]


def test_short_work_shows_nothing():
    assert shown(80, (0, "checking", 0, 3), (0.2, "checking", 3, 3)) == []


def test_the_bar_is_removed():
    stream, clock = io.StringIO(), Clock()
    with Console(stream, terminal=Terminal(80), clock=clock).counting() as progress:
        clock.now = 1
        progress("checking", 1, 2)
    assert stream.getvalue().endswith("\x1b[2K")  # the line is erased


def test_logs_and_other_ranks_get_nothing(tmp_path):
    stream = io.StringIO()
    consoles = [Console(stream, terminal=None).counting, SilentConsole().counting]
    with (tmp_path / "log").open("w+") as log:
        for start in (*consoles, lambda: counting.counting(log)):
            with start() as progress:
                progress("checking", 1, 2)
                progress("checking", 2, 2, BYTES)
        log.seek(0)
        assert stream.getvalue() == log.read() == ""


def test_a_log_has_a_line_now_and_then():
    lines, clock = [], Clock()
    progress = counting.CountLines(lines.append, 60.0, clock)
    for now, *report in (
        (0, "checking", 0, 12_000),
        (59, "checking", 500, 12_000),
        (100, "checking", 1000, 12_000),
        (101, "checking", 1010, 12_000),
        (170, "fetching", 0, 1 << 23, BYTES),
        (230, "fetching", 1 << 22, 1 << 23, BYTES),
    ):
        clock.now = now
        progress(*report)
    assert lines == [
        "checking: 1,000 of 12,000, 10.0/s, 18:20 left",
        "fetching: 0 B of 8.4 MB, -/s, - left",
        "fetching: 4.2 MB of 8.4 MB, 69.9 kB/s, 1:00 left",
    ]
