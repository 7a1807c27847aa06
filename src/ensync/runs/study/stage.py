"""The cells of a study that can be run by now, each on its ranks: in turn, or packed."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ensync.core.signals import AGAIN, INTERRUPTED, STOPPED, StopRequest
from ensync.mpi.world import Comm, patient_barrier, share
from ensync.report.board import DONE, LEFT, Board, Shown
from ensync.report.console import Console
from ensync.report.results import CellResult
from ensync.runs import results
from ensync.runs.hearing import hearing_each_other
from ensync.runs.planned import Study
from ensync.runs.stopped import Stopped
from ensync.runs.study.calibration import calibrate, read_pace
from ensync.runs.study.cells import Cell
from ensync.runs.study.existing import is_done
from ensync.runs.study.files import read_cell
from ensync.runs.study.origin import Origin
from ensync.runs.study.places import Load, Places, Turn, in_order, packed
from ensync.runs.study.running import WHOLE, Around, run_cell
from ensync.runs.study.showing import CellConsole
from ensync.runs.study.splits import StudyData

LOOK = 2.0  # seconds between two looks for cells that other ranks have done


@dataclass(frozen=True)
class Manner:
    """How cells are run.

    resume: started ones are continued; pack: several beside each other; threads: of a rank;
    target: the fused validation accuracy that is looked for, None: nothing is.
    """

    resume: bool
    pack: bool
    threads: int
    target: float | None = None


@dataclass(frozen=True)
class Listed:
    """A cell, what it rests on, and how it is shown."""

    cell: Cell
    origin: Origin
    shown: Shown


@dataclass
class Stage:
    """The cells of a stage on all ranks of a study; those that are not done are run."""

    comm: Comm
    console: Console
    stop_request: StopRequest
    cells: Sequence[Listed]
    manner: Manner
    board: Board = field(init=False)
    stopped: Stopped | None = None
    _looked: float = 0.0

    def run(self, data: StudyData) -> None:
        """Run what is not done. Collective; a stop is raised on all ranks."""
        self.board = self.console.board([each.shown for each in self.cells])
        places = Places(self.comm, [each.cell.ranks for each in self.cells])
        turns = self._turns()
        for turn in turns if self.manner.pack else []:
            data.open(self.cells[turn.cell].cell)
        try:
            with hearing_each_other(self.comm, self.stop_request):
                for turn in turns:
                    self._turn(turn, places, data)
                self._meet()
        finally:
            self.board.close()
        places.free()

    def _turn(self, turn: Turn, places: Places, data: StudyData) -> None:
        """Run a cell where this rank is one of its ranks. Collective."""
        cell = self.cells[turn.cell].cell
        if not self.manner.pack:
            data.only(cell)
        ranks = places.group(cell.ranks, turn.group)
        asked = ranks if self.manner.pack else self.comm
        stops = asked is not None and self._stops(turn.cell, asked)
        if ranks is not None and not stops:
            self._take(turn.cell, ranks, data)
        if not self.manner.pack:
            self._meet()

    def _turns(self) -> list[Turn]:
        left = [number for number, each in enumerate(self.cells) if each.shown.state == LEFT]
        loads = [Load(self.cells[n].cell.ranks, self.cells[n].shown.cost) for n in left]
        turns = packed(loads, self.comm.size) if self.manner.pack else in_order(loads)
        return [Turn(left[turn.cell], turn.group) for turn in turns]

    def _take(self, number: int, ranks: Comm, data: StudyData) -> None:
        """Run a cell on its ranks. Collective over them."""
        each = self.cells[number]
        if ranks.rank == 0:
            self.board.begin(number)
        try:
            self._run(number, ranks, data)
        except Stopped as stop:
            self.stopped = stop
            return
        if ranks.rank == 0:
            self.board.end(number, _told(each.cell))

    def _run(self, number: int, ranks: Comm, data: StudyData) -> None:
        cell, manner = self.cells[number].cell, self.manner
        shared = Study(
            ranks,
            CellConsole(self.board, number, self.console),
            self.stop_request,
            manner.resume,
            None if manner.target is None else results.fused_on_validation,
        )
        beside = manner.pack and ranks.size < self.comm.size
        around = Around(
            *(shared, data.of(cell), manner.threads, beside),
            self.cells[number].origin,
            manner.target,
        )
        if cell.calibration:
            calibrate(cell, around)
        else:
            run_cell(cell, around)

    def _stops(self, number: int, ranks: Comm) -> bool:
        """Return whether one of the ranks was asked to stop; then all have stopped before this
        cell. Collective over them.
        """
        self.stop_request()  # also what others were asked
        heard = share(ranks, (self.stopped, int(self.stop_request.number)))
        earlier = next((stop for stop, _ in heard if stop is not None), None)
        signalled = max(signal_number for _, signal_number in heard)
        if earlier is None and signalled:
            earlier = Stopped(
                f"stopped by {signal.Signals(signalled).name} before the cell "
                f"{self.cells[number].cell.name}",
                "",
                f"{WHOLE} continues",
                STOPPED if signalled in AGAIN else INTERRUPTED,
            )
        self.stopped = self.stopped or earlier
        return earlier is not None

    def _meet(self) -> None:
        """Wait for all ranks; raise the first stop on all of them. Collective."""
        patient_barrier(self.comm, meanwhile=self._wait)
        self._looked = 0.0
        self._look()
        if heard := [stop for stop in share(self.comm, self.stopped) if stop is not None]:
            raise heard[0]

    def _wait(self) -> None:
        """Pass on, and hear, wishes to stop while others work."""
        self.stop_request()
        self._look()

    def _look(self) -> None:
        """Show on rank 0 the cells that other ranks have done meanwhile, by their files."""
        if self.comm.rank or not self.manner.pack or time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        for number, each in enumerate(self.cells):
            if each.shown.state != DONE and is_done(each.cell):
                self.board.end(number, _told(each.cell), here=False)


def _told(cell: Cell) -> CellResult | str:
    """Return what a cell that is done came to."""
    if cell.calibration:
        pace = read_pace(cell.directory)
        assert pace is not None
        return f"a step takes {1000 * pace.step:.3g} ms"
    result = read_cell(cell.directory)
    assert result is not None
    return result
