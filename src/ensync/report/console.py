"""What rank 0 prints while it works: a progress bar on a terminal, plain lines in a log. The
other ranks print nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TextIO

import numpy as np

from ensync.core.errors import EnsyncError, printable
from ensync.report import tables
from ensync.report.board import Board, Shown
from ensync.report.counting import bar_on, no_progress
from ensync.report.progress import BarProgress, LogProgress, Pace
from ensync.report.results import Comparison, Sweep, TopK
from ensync.report.terminal import Output, Terminal, find_terminal, rich_console
from ensync.storage.request import Progress as CountProgress

if TYPE_CHECKING:
    from rich.text import Text

    from ensync.report.study_results import StudyResult

NEVER = float("inf")
LOG_SECONDS = 30.0  # between two progress lines of a log
LOG_EPOCHS = (
    1_000  # lines of epochs that a log gets in any case; of later ones it gets one in LOG_SECONDS
)


def make_console(rank: int, verbose: bool = False) -> Console:
    """Return the console of a rank: rank 0 prints; the others print nothing, or with `verbose`
    plain lines with their number.
    """
    if rank == 0:
        return Console()
    return Console(prefix=f"[rank {rank}] ", terminal=None) if verbose else SilentConsole()


class Console:
    """Lines, tables and progress of one rank; each call writes its whole lines at once.

    stream: where to (standard output); prefix: before each line; terminal: what the lines end up
    on, "ask" finds out, None is a log.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        prefix: str = "",
        terminal: Terminal | Literal["ask"] | None = "ask",
        log_seconds: float = LOG_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output, self._prefix, self._clock, self._log_seconds = (
            Output(stream),
            prefix,
            clock,
            log_seconds,
        )
        found = find_terminal(self._output.stream) if isinstance(terminal, str) else terminal
        self._rich = rich_console(self._output, found) if found else None
        self._progress: BarProgress | LogProgress | None = None
        self._due, self._epochs, self._members_shown = NEVER, 0, 0
        self._epoch_lines, self._epoch_due = 0, -NEVER

    def lines(self, lines: Sequence[str], style: str = "") -> None:
        """Write lines of plain text, above the bar when there is one. style: rich's, for
        terminals ("bold", "yellow").
        """
        whole = "\n".join(self._prefix + printable(line) for line in lines)
        if self._rich is None:
            self._output.write(whole + "\n")
        else:
            self._rich.print(_styled(whole, style), soft_wrap=True)
        if isinstance(self._progress, LogProgress):
            self._due = self._clock() + self._log_seconds

    def line(self, line: str = "", style: str = "") -> None:
        """Write one line."""
        self.lines([line], style)

    def check(self) -> None:
        """Refuse to end well where lines were lost, for verbs that write nothing else. Errors:
        EnsyncError.
        """
        if self._output.trouble:
            raise EnsyncError(
                self._output.trouble, "room for what is printed", "print to another place"
            )

    def warn(self, message: str) -> None:
        """Write what may be wrong."""
        self.line(f"warning: {message}", "yellow")

    def advise(self, message: str) -> None:
        """Write what would be better."""
        self.line(f"advice: {message}", "cyan")

    @contextmanager
    def training(self, ends: Sequence[int], step: int = 0) -> Iterator[None]:
        """Show progress inside the block: of epochs that end at these steps (or samples: what
        `step` will count), `step` of them done before.
        """
        pace = Pace(ends, step, self._clock)
        self._epochs, self._members_shown = len(ends), 0
        if self._rich is None:
            self._progress = LogProgress(pace, self.line, self._log_seconds)
        else:
            self._progress = BarProgress(pace, self._rich)
        self._due = self._clock() + self._progress.interval
        try:
            yield
        finally:
            self._progress.close()
            self._progress, self._due = None, NEVER

    def step(self, step: int, loss: float) -> None:
        """Show that so many steps of the whole run are done; only reads the clock when it is too
        early to show it again.
        """
        if self._clock() < self._due or self._progress is None:
            return
        self._progress.show(step, loss)
        self._due = self._clock() + self._progress.interval

    @contextmanager
    def counting(self) -> Iterator[CountProgress]:
        """Show a bar of other work on a terminal inside the block; yield what is to be told of
        its progress.
        """
        with bar_on(self._rich, self._clock) as progress:
            yield progress

    def epoch(self, records: Mapping | Sequence[Mapping], epochs: int | None = None) -> None:
        """Write the line of an epoch from its history record, or from those of all members;
        `epochs` of the run when outside `training`.
        """
        records = [records] if isinstance(records, Mapping) else list(records)
        epochs = epochs or self._epochs
        if (
            self._rich is None
            and self._epoch_lines >= LOG_EPOCHS
            and self._clock() < self._epoch_due
            and all(r["epoch"] < epochs for r in records)
        ):
            return
        self._epoch_lines, self._epoch_due = (
            self._epoch_lines + 1,
            self._clock() + self._log_seconds,
        )
        columns = self._rich.width if self._rich else None
        if self._members_shown != len(records):
            self.line(tables.epoch_heads(epochs, len(records), columns), "bold")
            self._members_shown = len(records)
        self.line(tables.epoch_line(records, epochs, columns))

    def board(self, cells: list[Shown]) -> Board:
        """Return the board of a study's cells, which writes here; it is to be closed."""
        return Board(cells, self.line, self._rich, self._clock, self._log_seconds)

    def test(
        self,
        name: str,
        counts: np.ndarray,
        class_names: Sequence[str],
        loss: float | None = None,
        top_k: TopK | None = None,
    ) -> None:
        """Write the test result `name` from its confusion counts int64 (classes, classes)."""
        self.lines(["", *tables.test_lines(name, counts, class_names, loss, top_k)])

    def comparison(self, comparison: Comparison) -> None:
        """Write the table of a comparison, its notes and the verdict."""
        self.lines(["", *tables.comparison_lines(comparison)])

    def study(self, study: StudyResult) -> None:
        """Write the table of a study, its pairs and the verdict."""
        from ensync.report.study_tables import study_lines

        self.lines(["", *study_lines(study)])

    def sweep(self, sweep: Sweep) -> None:
        """Write the table of a sweep."""
        self.lines(["", *tables.sweep_lines(sweep)])

    def files(self, paths: Mapping[str, object]) -> None:
        """Write where files are: what each is, and its path."""
        self.lines(["", *tables.pairs(paths)])


class SilentConsole(Console):
    """The console of the other ranks: every method prints nothing."""

    def __init__(self) -> None:
        pass

    @contextmanager
    def training(self, *args: object, **kwargs: object) -> Iterator[None]:
        """Show nothing."""
        yield

    @contextmanager
    def counting(self) -> Iterator[CountProgress]:
        """Show nothing."""
        yield no_progress

    def board(self, cells: list[Shown]) -> Board:
        """Return a board that shows nothing."""
        return Board(cells, self.line)

    def _nothing(self, *args: object, **kwargs: object) -> None:
        """Print nothing."""

    lines = line = check = warn = advise = step = epoch = test = _nothing
    comparison = study = sweep = files = _nothing


def _styled(lines: str, style: str) -> Text:
    """Return rich's text; the style is the text's own, so that the bar below keeps its colours."""
    from rich.text import Text

    return Text(lines, style)
