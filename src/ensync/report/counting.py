"""The progress of work that is counted: a bar on a terminal, nothing in a log.

`ensync data prepare`, `evaluate`, `predict` and `data verify` show theirs with this.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from ensync.core.errors import printable
from ensync.report import text
from ensync.report.progress import Pace
from ensync.report.terminal import Output, find_terminal, rich_console
from ensync.storage.request import BYTES, Progress

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

OTHERS = 42  # columns beside the words for the work
LONGEST = 40  # columns of these words
Clock = Callable[[], float]


class CountBar:
    """A bar of the work at hand, with its rate and the time to go; drawn only when it is told of
    progress, so that no thread runs beside those of the work.
    """

    interval = 0.25

    def __init__(self, console: RichConsole, clock: Clock = time.monotonic) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._clock, self._due = clock, clock() + self.interval
        self._what, self._pace, self._shown = "", Pace((1,), 0, clock), False
        self._columns = max(8, min(LONGEST, console.width - OTHERS))
        words = "{task.percentage:>3.0f} %  {task.fields[speed]}  {task.fields[left]}"
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(max(4, min(24, console.width - self._columns - 36))),
            TextColumn(words, markup=False),
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=1, speed="", left="")

    def __call__(self, what: str, done: int, total: int, unit: str = "", /) -> None:
        """Show that so much of the work is done; only reads the clock when it is too early."""
        if what != self._what:
            self._what, self._pace = what, Pace((max(1, total),), done, self._clock)
        if self._clock() < self._due:
            return
        self._due = self._clock() + self.interval
        left, speed = self._pace.left(done), self._pace.mean(done)
        self._bar.update(
            self._task,
            description=cut(printable(what), self._columns),
            completed=done,
            total=max(1, total),
            speed=f"{text.size(speed)}/s" if unit == BYTES else f"{text.count(speed)}/s",
            left=f"{text.clock(left)} left",
        )
        if not self._shown:  # work shorter than the interval shows no bar at all
            self._bar.start()
            self._shown = True
        self._bar.refresh()

    def close(self) -> None:
        """Remove the bar."""
        if self._shown:
            self._bar.stop()


class CountLines:
    """A line of the work at hand once in a while, for a log."""

    def __init__(
        self, line: Callable[[str], object], interval: float, clock: Clock = time.monotonic
    ) -> None:
        self._line, self._interval, self._clock = line, interval, clock
        self._what, self._pace, self._due = "", Pace((1,), 0, clock), clock() + interval

    def __call__(self, what: str, done: int, total: int, unit: str = "", /) -> None:
        """Write a line when it is time."""
        if what != self._what:
            self._what, self._pace = what, Pace((max(1, total),), done, self._clock)
        if self._clock() < self._due:
            return
        self._due = self._clock() + self._interval
        shown = text.size if unit == BYTES else text.count
        left, speed = text.clock(self._pace.left(done)), shown(self._pace.mean(done))
        self._line(f"{printable(what)}: {shown(done)} of {shown(total)}, {speed}/s, {left} left")


def cut(words: str, columns: int) -> str:
    """Return the words, without their middle where they are longer than so many columns."""
    keep = columns - 3
    if len(words) <= columns:
        return words
    return words[: (keep + 1) // 2] + "..." + words[len(words) - keep // 2 :]


@contextmanager
def bar_on(console: RichConsole | None, clock: Clock = time.monotonic) -> Iterator[Progress]:
    """Show a bar on a terminal inside the block, nothing where there is none; yield what is to be
    told of progress.
    """
    if console is None:
        yield no_progress
        return
    bar = CountBar(console, clock)
    try:
        yield bar
    finally:
        bar.close()


@contextmanager
def counting(
    stream: TextIO | None = None, shown: bool = True, log: float = 0.0
) -> Iterator[Progress]:
    """Show a bar on the terminal behind a stream [standard error], if it is one; else, where asked,
    a line every `log` seconds.
    """
    output = Output(stream or sys.stderr)
    terminal = find_terminal(output.stream) if shown else None
    if shown and log and not terminal:
        yield CountLines(lambda line: output.write(f"{line}\n"), log)
        return
    with bar_on(rich_console(output, terminal) if terminal else None) as progress:
        yield progress


def no_progress(what: str, done: int, total: int, unit: str = "", /) -> None:
    """Show nothing."""
