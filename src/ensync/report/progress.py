"""The progress of a training run: epoch, speed and time left."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ensync.report import text

if TYPE_CHECKING:
    from rich.console import Console as RichConsole


class Pace:
    """Epoch, speed and time left of a run, from its step counter alone."""

    def __init__(self, ends: Sequence[int], step: int, clock: Callable[[], float]) -> None:
        self.ends, self.total = ends, ends[-1]
        self._clock, self._first = clock, (clock(), step)
        self._last = self._first
        self.rate: float | None = None

    def at(self, step: int) -> None:
        """Measure the rate of the steps since the last call."""
        now = self._clock()
        if now > self._last[0] and step > self._last[1]:
            self.rate = (step - self._last[1]) / (now - self._last[0])
            self._last = now, step

    def left(self, step: int) -> float | None:
        """Return the seconds still to go at the run's mean pace, validation included; None
        before anything is known.
        """
        taken, done = self._clock() - self._first[0], step - self._first[1]
        return taken / done * max(0, self.total - step) if done > 0 else None

    def mean(self, step: int) -> float | None:
        """Return the mean rate of steps so far; None before anything is known."""
        taken, done = self._clock() - self._first[0], step - self._first[1]
        return done / taken if done > 0 and taken > 0 else None

    def words(self, step: int, loss: float) -> tuple[str, str, str]:
        """Return "epoch 3/20", "12,345 steps/s  loss 0.3456" and "1:02 left"."""
        epochs = len(self.ends)
        return (
            f"epoch {min(epochs, bisect_right(self.ends, step) + 1)}/{epochs}",
            f"{text.count(self.rate)} steps/s  loss {text.number(loss)}",
            f"{text.clock(self.left(step))} left",
        )


class LogProgress:
    """Progress for a log: a plain line once in a while, in long epochs only."""

    def __init__(self, pace: Pace, line: Callable[[str], None], interval: float) -> None:
        self.pace, self.line, self.interval = pace, line, interval

    def show(self, step: int, loss: float) -> None:
        """Write one line."""
        self.pace.at(step)
        epoch, speed, left = self.pace.words(step, loss)
        self.line(f"  {epoch}  step {step:,} of {self.pace.total:,}  {speed}  {left}")

    def close(self) -> None:
        """There is nothing to remove."""


class BarProgress:
    """Progress on a terminal: rich's bar at the lower end, drawn only when `show` is called, so
    that no thread runs beside those of the kernels.
    """

    interval = 0.25

    def __init__(self, pace: Pace, console: RichConsole) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        words = TextColumn(
            "{task.percentage:>3.0f} %  {task.fields[speed]}  {task.fields[left]}", markup=False
        )
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(max(4, min(24, console.width - 60))),
            words,
        )
        self.pace, self._shown = pace, False
        self._bar = Progress(
            *columns,
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=pace.total, speed="", left="")

    def show(self, step: int, loss: float) -> None:
        """Draw the bar anew."""
        self.pace.at(step)
        epoch, speed, left = self.pace.words(step, loss)
        self._bar.update(self._task, completed=step, description=epoch, speed=speed, left=left)
        if not self._shown:  # not before: a run shorter than the interval shows no bar at all
            self._bar.start()
            self._shown = True
        self._bar.refresh()

    def close(self) -> None:
        """Remove the bar."""
        if self._shown:
            self._bar.stop()
