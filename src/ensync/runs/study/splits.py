"""The images of a study's cells: one dataset, opened once for all that read it alike."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

from ensync.core.config.schema import Job
from ensync.mpi.world import Comm
from ensync.runs.data import SplitLoaders
from ensync.runs.planned import PlannedRun
from ensync.runs.study.cells import Cell
from ensync.strategies import strategy_of

Key = tuple[str, str]


@dataclass
class StudyData:
    """The loaders of a study, by what of a job they depend on."""

    comm: Comm
    job: Job
    first: SplitLoaders
    _opened: dict[Key, SplitLoaders] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._opened[_key(self.job)] = self.first

    def open(self, cell: Cell) -> None:
        """Open what a cell reads, unless that is open. Collective over all ranks of the study."""
        key = _key(cell.job)
        if key not in self._opened:
            self._opened[key] = PlannedRun(cell.job, self.comm).open(self.comm)
        loaders = self._opened[key]
        members = strategy_of(cell.job).members(cell.ranks)
        loaders.in_shards = members > 1 and cell.job.ensemble.data != "full"
        loaders.check_shards(self.comm)  # here, where all ranks are
        loaders.in_shards = False

    def only(self, cell: Cell) -> None:
        """Open what a cell reads, and close what it does not, so that one set of images is in
        memory beside those of the job. Collective over all ranks of the study.
        """
        kept = (_key(self.job), _key(cell.job))
        for key in [key for key in self._opened if key not in kept]:
            self._opened.pop(key).close()
        self.open(cell)

    def of(self, cell: Cell) -> SplitLoaders:
        """Return the open loaders of a cell, for it alone."""
        return replace(self._opened[_key(cell.job)])

    def close(self) -> None:
        """Give the images back. Collective over all ranks of the study."""
        for loaders in self._opened.values():
            loaders.close()
        self._opened.clear()


def _key(job: Job) -> Key:
    return json.dumps(job.data.model_dump(mode="json"), sort_keys=True), job.training.dtype
