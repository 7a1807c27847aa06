"""A study from its job to its cells: what is missing is trained, what is done is kept.

Collective throughout. All that can be refused is refused before anything is trained.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.core.signals import StopRequest
from ensync.mpi.world import Comm, on_root
from ensync.report.board import DONE, LEFT
from ensync.report.console import Console
from ensync.report.text import plural, size
from ensync.runs import launch
from ensync.runs.data import SplitLoaders
from ensync.runs.header import show_place
from ensync.runs.memory import Need, need_of
from ensync.runs.planned import PlannedRun
from ensync.runs.study import existing
from ensync.runs.study.cells import Cell, Facts, Known, Plan
from ensync.runs.study.origin import Origin, origin_of
from ensync.runs.study.planning import plan
from ensync.runs.study.showing import shown
from ensync.runs.study.splits import StudyData
from ensync.runs.study.stage import Listed, Manner, Stage
from ensync.runs.warm_up import try_step
from ensync.storage.dataset import open_dataset
from ensync.strategies import strategy_of


@dataclass(frozen=True)
class Again:
    """How a study is run.

    resume: what is done is kept; overwrite: it is deleted first; pack: cells run beside each other;
    unit: only the cells of this number of `units_of`, None: all.
    """

    resume: bool = False
    overwrite: bool = False
    pack: bool = False
    unit: int | None = None


class FoundData(NamedTuple):
    """The dataset of a study: its facts, its fingerprint, and the names of its classes."""

    facts: Facts
    fingerprint: str
    class_names: list[str]


@dataclass
class Execution:
    """A study on its ranks."""

    comm: Comm
    job: Job
    console: Console
    stop_request: StopRequest
    options: Again
    dataset: FoundData
    threads: int = 1
    data: StudyData = field(init=False)

    @property
    def directory(self) -> Path:
        """That of the whole study."""
        return Path(self.job.output.directory)

    @property
    def launched(self) -> int:
        """The ranks that the plan may count on."""
        return self.comm.size

    def planned(self) -> Plan:
        """Return the plan by all that cells have told so far, with the cells of the wanted unit
        only. Collective.
        """
        return on_root(self.comm, self._planned)

    def whole_plan(self) -> Plan:
        """Return the plan of all units by all that cells have told so far."""
        known: Known | None = None
        while True:
            found = plan(self.job, self.launched, self.dataset.facts, known or Known())
            told = existing.known_of(found.cells)
            if told == known or not found.pending:
                return found
            known = told

    def _planned(self) -> Plan:
        found = self.whole_plan()
        if self.options.unit is None:
            return found
        wanted = self._wanted(found)
        cells = [cell for cell in found.cells if cell.calibration or cell.name in wanted]
        return Plan(cells, [name for name in found.pending if name in wanted], found.left_out)

    def _wanted(self, found: Plan) -> list[str]:
        """Return the names of the cells of the wanted unit. EnsyncError where there is none."""
        units, number = units_of(self.job, self.launched, self.dataset.facts), self.options.unit
        assert number is not None
        if not 0 <= number < len(units):
            raise EnsyncError(
                f"--cell {number}",
                f"a number from 0 to {len(units) - 1}",
                "see `ensync compare JOB.toml --list-cells`",
            )
        return units[number]

    def origin(self, cell: Cell) -> Origin:
        """Return what a cell rests on."""
        return origin_of(cell, self.job, self.dataset.fingerprint)

    def clear(self) -> None:
        """Refuse what is there already, or make way, as the options say. Collective."""
        directory, options, found = self.directory, self.options, self.planned()
        cells = None if options.unit is None else found.cells

        def look() -> str:
            if options.overwrite and not options.resume:  # requeued, it goes on
                return existing.remove_all(directory, cells)
            if not options.resume:
                existing.refuse_earlier(directory, cells)
            return ""

        if report := on_root(self.comm, look):
            self.console.line(report)
        found = self.planned()  # without what was known of those that were deleted

        def check() -> list[str]:
            existing.check_planned((cell, self.origin(cell)) for cell in found.cells)
            if cells is not None or not found.cells:
                return []
            asked = [*(cell.name for cell in found.cells), *found.pending]
            return existing.others(directory, asked, self.origin(found.cells[0]))

        if beside := on_root(self.comm, check):
            self.console.line(
                f"{plural(len(beside), 'cell')} of an earlier start beside those that are asked "
                f"for: {', '.join(beside[:3])}" + ", ..." * (len(beside) > 3)
            )
        for why in found.left_out:
            self.console.line(f"left out: {why}")

    def prepare(self) -> None:
        """Check memory, open the dataset, compile the kernels of all contestants. Collective."""
        cells = list({cell.place: cell for cell in self.planned().cells}.values())
        launch.check_memory(self.comm, lambda: self._needs(cells))

        def step(loaders: SplitLoaders, cores: int) -> None:
            for job in {_kernels_of(cell.job): cell.job for cell in cells}.values():
                try_step(job, loaders, cores)

        whole = PlannedRun(self.job, self.comm)
        place = launch.prepare(
            self.comm, self.job.training.threads, partial(whole.open, self.comm), step
        )
        self.threads, self.data = place.threads, StudyData(self.comm, self.job, place.loaders)
        for cell in cells:
            PlannedRun(cell.job, self.comm).check_validation(self.dataset.facts.validation)
        show_place(self.console, place)
        self.console.line(f"outputs of a cell take up to {size(self._outputs(cells))}")

    def _outputs(self, cells: Sequence[Cell]) -> int:
        """Return the bytes of the largest cell's outputs, which its rank 0 gathers."""
        facts = self.dataset.facts
        members = max(strategy_of(cell.job).members(cell.ranks) for cell in cells)
        return 4 * members * (facts.test + facts.validation) * facts.classes

    def _needs(self, cells: Sequence[Cell]) -> list[Need]:
        """Return what cells need of memory; packed, as many at once as there is room for."""
        with open_dataset(self.job.data.path) as dataset:
            needs = [need_of(cell.job, dataset, cell.ranks) for cell in cells]
        size = self.comm.size
        return [replace(each, ranks=size) for each in needs] if self.options.pack else needs

    def run(self) -> None:
        """Run all cells that are missing, in as many stages as it takes to know them all.
        Collective.
        """
        while True:
            found = self.planned()
            done = on_root(self.comm, partial(existing.all_done, found.cells))
            if not all(done):
                self._run(found, done)
            if not found.pending:
                return
            assert not all(done), f"nothing leads to {found.pending[0]}"

    def _run(self, found: Plan, done: Sequence[bool]) -> None:
        """Run the cells of a plan that are not done. Collective."""
        cells = [
            Listed(cell, self.origin(cell), shown(cell, self.dataset.facts.train))
            for cell in found.cells
        ]
        for each, ready in zip(cells, done, strict=True):
            each.shown.state = DONE if ready else LEFT
        stage = Stage(self.comm, self.console, self.stop_request, cells, self._manner())
        stage.run(self.data)

    def _manner(self) -> Manner:
        study = self.job.study
        targets = study is not None and study.budget == "target"
        target = study.amount if study is not None and targets else None
        return Manner(self.options.resume, self.options.pack, self.threads, target)


# What decides no kernel.
NO_KERNELS = ("ensemble", "fusion", "checkpoint", "output", "schedule", "growth", "study")
NO_KERNELS_IN = {
    "training": ("seed", "epochs", "max_steps", "batch", "strategy"),
    "optimizer": ("learning_rate",),
}


def _kernels_of(job: Job) -> str:
    """Return what of a job decides on the kernels that its warm-up compiles."""
    settings = job.model_dump(mode="json", exclude=set(NO_KERNELS))
    for section, keys in NO_KERNELS_IN.items():
        settings[section] = {k: v for k, v in settings[section].items() if k not in keys}
    return json.dumps(settings, sort_keys=True)


def units_of(job: Job, launched: int, facts: Facts) -> list[list[str]]:
    """Return the names of the cells of each unit that can be run by itself: one cell, or where
    some depend on others all of a contestant and rank count.
    """
    found = plan(job, launched, facts, Known())
    names = [*(cell.name for cell in found.cells if not cell.calibration), *found.pending]
    if not found.pending:
        return [[name] for name in names]
    units: dict[str, list[str]] = {}
    for name in names:
        units.setdefault(name.rpartition("/")[0], []).append(name)
    return list(units.values())


def facts_of_file(path: str) -> FoundData:
    """Return what a study must know of its dataset."""
    with open_dataset(path) as dataset:
        sizes, names = dataset.sizes, list(dataset.class_names)
        facts = Facts(
            *(sizes["train"], sizes["validation"], sizes["test"]),
            tuple(dataset.shape),
            len(names),
        )
        return FoundData(facts, dataset.fingerprint, names)
