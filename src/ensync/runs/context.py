"""What all parts of a run need: ranks, job, data, console, and the request to stop."""

from dataclasses import dataclass
from pathlib import Path

from ensync.core.config.schema import Job
from ensync.core.signals import StopRequest
from ensync.mpi.world import Comm
from ensync.report.console import Console
from ensync.runs.data import SplitLoaders


@dataclass(frozen=True)
class RunContext:
    """The surroundings of a run on this rank."""

    comm: Comm
    job: Job
    loaders: SplitLoaders
    console: Console
    stop_request: StopRequest

    @property
    def directory(self) -> Path:
        """The run's output directory."""
        return Path(self.job.output.directory)
