"""What a person sees of a cell while it runs: its share on the study's board, and its warnings."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ensync.report.board import Board, Shown
from ensync.report.console import Console
from ensync.report.text import plural
from ensync.runs.study.cells import Cell
from ensync.runs.study.places import Load
from ensync.strategies import strategy_of
from ensync.training.learning_rate import EpochPlan


def shown(cell: Cell, train_rows: int) -> Shown:
    """Return a cell as a board shows it."""
    if cell.calibration:
        name = "calibration"
    elif cell.trial is not None:
        name = f"trial {cell.trial + 1}, learning rate x {cell.learning_rate_factor:g}"
    else:
        name = f"seed {cell.seed}"
    row = f"{cell.label} on {plural(cell.ranks, 'rank')}"
    return Shown(row, name, load_of(cell, train_rows).cost)


def load_of(cell: Cell, train_rows: int) -> Load:
    """Return what a cell takes: its ranks, and the samples that the slowest of them trains on."""
    members = strategy_of(cell.job).members(cell.ranks)
    shards = members > 1 and cell.job.ensemble.data == "shards"
    rows = max(1, train_rows // members if shards else train_rows)
    plan = EpochPlan(cell.job, rows)
    steps = cell.job.training.max_steps or plan.starts[-1]
    samples = steps * plan.batch(0) * members / cell.ranks
    return Load(cell.ranks, 1.0 if cell.calibration else samples)


class CellConsole(Console):
    """The console of a cell on rank 0 of its ranks: its progress goes to the board, its warnings
    with its name to the study's console, all else is in its files.
    """

    def __init__(self, board: Board, number: int, console: Console) -> None:
        self._board, self._number, self._study, self._total = board, number, console, 0

    def lines(self, lines: Sequence[str], style: str = "") -> None:
        """Write nothing."""

    def warn(self, message: str) -> None:
        """Write what may be wrong, with the cell."""
        cell = self._board.cells[self._number]
        self._study.warn(f"{cell.row}, {cell.name}: {message}")

    @contextmanager
    def training(self, ends: Sequence[int], step: int = 0) -> Iterator[None]:
        """Have the steps inside the block shown."""
        self._total = ends[-1] if ends else 0
        yield

    def step(self, step: int, loss: float) -> None:
        """Show how far the training is."""
        self._board.step(self._number, min(1.0, step / max(self._total, 1)))

    def epoch(self, records: Mapping | Sequence[Mapping], epochs: int | None = None) -> None:
        """Write nothing: the history has it."""
