"""What all parts of a run need: ranks, job, data, console, and the request to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ensync.core.config.schema import Job
from ensync.core.signals import StopRequest
from ensync.mpi.world import Comm
from ensync.report.console import Console
from ensync.runs.callbacks import Callbacks
from ensync.runs.data import SplitLoaders
from ensync.runs.profiling import Profiler
from ensync.strategies import strategy_of
from ensync.strategies.strategy import Strategy

if TYPE_CHECKING:
    from ensync.runs.session import Session

    Judge = Callable[[Session], float | None]


@dataclass(frozen=True)
class RunContext:
    """The surroundings of a run on this rank; the job with its number of members.

    judge: called, collectively, after each epoch; returns the validation accuracy of all members
    fused, which the history then has. None: nobody asks for it. profiler: what records the steps,
    where the job wants it. callbacks: what is told how it goes. compared: whether the run stands
    beside others, so that it alone must not be trained on with other settings.
    """

    comm: Comm
    job: Job
    loaders: SplitLoaders
    console: Console
    stop_request: StopRequest
    judge: Judge | None = None
    profiler: Profiler | None = None
    callbacks: Callbacks = Callbacks()
    compared: bool = False

    @property
    def strategy(self) -> Strategy:
        """How the ranks are used."""
        return strategy_of(self.job)

    @property
    def directory(self) -> Path:
        """The run's output directory."""
        return Path(self.job.output.directory)
