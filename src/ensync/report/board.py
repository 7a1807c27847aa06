"""The cells of a study while they run: a table on a terminal, a line a cell in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ensync.report import text
from ensync.report.results import CellResult

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.live import Live

REFRESH = 0.25  # seconds between two drawings on a terminal
LOG_SECONDS = 30.0  # between two lines about a cell that runs, in a log
DONE, RUNNING, LEFT = "#", ">", "."


@dataclass
class Shown:
    """A cell on the board: its row and its own name there, and how long it is expected to take, in
    any unit. state: one of DONE, RUNNING, LEFT; share: of it that is done.
    """

    row: str
    name: str
    cost: float
    state: str = LEFT
    share: float = 0.0
    begun: float = 0.0
    seconds: float | None = None  # that it took in this start


@dataclass
class Board:
    """The state of all cells, by number, and what is written of it.

    line: writes a line; terminal: draws the table, None where there is a log.
    """

    cells: list[Shown]
    line: Callable[[str], None]
    terminal: RichConsole | None = None
    clock: Callable[[], float] = time.monotonic
    log_seconds: float = LOG_SECONDS
    _live: Live | None = None
    _due: float = 0.0

    def begin(self, number: int) -> None:
        """Note that a cell runs."""
        cell = self.cells[number]
        cell.state, cell.share, cell.begun = RUNNING, 0.0, self.clock()
        self._due = self.clock() + (self.log_seconds if self.terminal is None else 0.0)
        self.draw()

    def step(self, number: int, share: float, words: str = "") -> None:
        """Note which share of a cell is done; only reads the clock when it is too early to show it
        again.
        """
        now = self.clock()
        if now < self._due:
            return
        cell = self.cells[number]
        cell.share = share
        self._due = now + (self.log_seconds if self.terminal is None else REFRESH)
        if self.terminal is None:
            self.line(f"  {cell.row}, {cell.name}: {share:.0%}  {words}".rstrip())
        self.draw()

    def end(self, number: int, result: CellResult | str, here: bool = True) -> None:
        """Note that a cell is done, and write its line, with its result or in these words; here:
        by this rank, whose clock tells how long it took.
        """
        cell = self.cells[number]
        if cell.state == RUNNING and here:
            cell.seconds = self.clock() - cell.begun
        cell.state, cell.share = DONE, 1.0
        words = result if isinstance(result, str) else _found(result)
        self.line(f"{self._place()}  {cell.row}, {cell.name}: {words}{self._to_go()}")
        self.draw()

    def skip(self, number: int) -> None:
        """Note that a cell was done before."""
        self.cells[number].state, self.cells[number].share = DONE, 1.0

    def _place(self) -> str:
        done, total = self.count(DONE), len(self.cells)
        return f"{done:>{len(str(total))}}/{total}"

    def _to_go(self) -> str:
        left = self.seconds_left()
        return f"; {text.clock(left)} to go" if left else ""

    def count(self, state: str) -> int:
        """Return how many cells are in a state."""
        return sum(cell.state == state for cell in self.cells)

    def seconds_left(self) -> float | None:
        """Return the seconds that the cells still take, by the pace of those of the same row, or of
        all where none of these is done; None before anything is known.
        """
        known = [cell for cell in self.cells if cell.seconds is not None]
        spent = sum(cell.cost for cell in known)
        if not spent:
            return None
        mean, left = sum(cell.seconds or 0.0 for cell in known) / spent, 0.0
        for cell in self.cells:
            if cell.state != DONE:
                same = [other for other in known if other.row == cell.row]
                cost = sum(other.cost for other in same)
                pace = sum(other.seconds or 0.0 for other in same) / cost if cost else mean
                left += (1 - cell.share) * cell.cost * pace
        return left

    def lines(self) -> list[str]:
        """Return the table: a row for each contestant and rank count, a sign for each cell; and
        what is done, running and left.
        """
        rows: dict[str, list[Shown]] = {}
        for cell in self.cells:
            rows.setdefault(cell.row, []).append(cell)
        width = max(map(len, rows), default=0)
        found = [
            f"{row:<{width}}  {''.join(c.state for c in cells)}" for row, cells in rows.items()
        ]
        running = [cell for cell in self.cells if cell.state == RUNNING]
        now = "".join(f" ({cell.row}, {cell.name}: {cell.share:.0%})" for cell in running[:1])
        left = self.seconds_left()
        return [
            *found,
            f"{self.count(DONE)} of {text.plural(len(self.cells), 'cell')} done, "
            f"{len(running)} running{now}, "
            f"{self.count(LEFT)} left" + (f", {text.clock(left)} to go" if left else ""),
        ]

    def draw(self) -> None:
        """Draw the table anew, where there is a terminal."""
        if self.terminal is None:
            return
        from rich.live import Live
        from rich.text import Text

        whole = Text("\n".join(self.lines()[-max(4, self.terminal.height - 2) :]))
        if self._live is None:
            self._live = Live(
                whole,
                console=self.terminal,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(whole, refresh=True)

    def close(self) -> None:
        """Remove the table."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _found(result: CellResult) -> str:
    """Return in words what a cell came to."""
    if result.failed:
        why = next(iter(result.excluded.values()), "no network")
        return f"failed, {why}"
    accuracy = (
        ""
        if result.validation_accuracy is None
        else f"validation {text.percent(result.validation_accuracy)}, "
    )
    out = f", {len(result.excluded)} of {text.plural(result.members, 'member')} left out" * bool(
        result.excluded
    )
    return f"{accuracy}{text.seconds(result.seconds)} s{out}"
