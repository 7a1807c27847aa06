"""A loaded run made ready to compute: what `predict` and `score` ask for votes."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError, nearest
from ensync.core.fusion import FUSIONS, OF_ONE
from ensync.mpi.world import Comm, alone
from ensync.report.console import SilentConsole
from ensync.runs import launch, results
from ensync.runs.data import only_pictures
from ensync.runs.ensemble_evaluator import EnsembleEvaluator
from ensync.runs.identity import Identity
from ensync.runs.memory import need_of
from ensync.runs.opening import identity_of
from ensync.runs.planned import PlannedRun
from ensync.runs.predict import loaders_for
from ensync.runs.state import Loaded


@dataclass(frozen=True)
class Tester:
    """A checkpoint that this process computes with by itself.

    threads: of the kernels; 0: as many as the process has cores. Results do not depend on it.
    """

    loaded: Loaded
    threads: int = 0

    def __getstate__(self) -> dict[str, object]:
        """What a copy in another process takes along: the checkpoint, not what is made ready."""
        return {"loaded": self.loaded, "threads": self.threads}

    @property
    def comm(self) -> Comm:
        """The communicator of this rank alone."""
        return alone()

    @cached_property
    def job(self) -> Job:
        """The run's own job."""
        return self.loaded.state.job

    @property
    def members(self) -> int:
        """How many networks the run has."""
        return self.loaded.attributes["members"]

    @cached_property
    def identity(self) -> Identity:
        """What the run was trained on."""
        return identity_of(self.comm, self.loaded, self.job.data.path, SilentConsole())

    @cached_property
    def _planned(self) -> PlannedRun:
        """The job as this process runs it: memory is enough, kernels and threads are ready."""
        training = self.job.training.model_copy(update={"threads": self.threads})
        planned = PlannedRun(self.job.model_copy(update={"training": training}), self.comm)
        launch.check_memory(self.comm, lambda: [need_of(self.job, self.identity, 1, False, ())])
        dtype = self.job.training.dtype
        none = only_pictures(self.identity, self.job.data, dtype, self._blank)
        planned.prepare(self.comm, lambda: none)
        return planned

    @property
    def _blank(self) -> np.ndarray:
        """A black image (1, height, width, channels)."""
        return np.zeros((1, *self.identity.shape), np.uint8)

    def method(self, given: str | None, only: Sequence[int] | None = None) -> str:
        """Return the fusion of the members `only` or of all: that given, or the job's. Errors:
        EnsyncError for a name that is none.
        """
        apart = self.members if only is None else len(only)
        chosen = given or (self.job.fusion.method if apart > 1 else OF_ONE)
        if chosen not in FUSIONS:
            raise EnsyncError(
                f"method={chosen!r}{nearest(chosen, FUSIONS)}",
                "one of " + ", ".join(FUSIONS),
                "choose one of them",
            )
        return chosen

    def evaluator(self, method: str, only: Sequence[int] | None = None) -> EnsembleEvaluator:
        """Return the members `only` or all, ready to be fused by `method`. Errors: EnsyncError
        where they cannot be.
        """
        loaders = loaders_for(self._planned, self.loaded, self.identity, self._blank, method)
        found = results.evaluator_of_files(self.comm, self.loaded, self.job, loaders, only)
        results.check_possible(found, method)
        return found

    def votes(
        self, images: np.ndarray, method: str, only: Sequence[int] | None = None
    ) -> np.ndarray:
        """Return the fused votes float64 (n, classes) for images uint8 (n, height, width,
        channels), of the members `only` or of all. Warn of those that are left out.
        """
        if not len(images):
            return np.zeros((0, self.identity.classes))
        loaders = loaders_for(self._planned, self.loaded, self.identity, images, method)
        predicted = results.predict(self.comm, self.loaded, self.job, loaders, method, only)
        assert predicted.votes is not None, "this rank is the only one"
        warn(predicted.left_out, 5)
        return predicted.votes


def warn(notes: Sequence[str], level: int) -> None:
    """Warn of each at a line of the user's, which is so many calls up, this one included."""
    for note in notes:
        warnings.warn(note, stacklevel=level)
