"""The cells of a study: one run each, and a plan of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ensync.core.config.schema import Job
from ensync.runs.study.budgets import Pace
from ensync.runs.study.facts import Facts

__all__ = ["Cell", "Facts", "Known", "Pace", "Place", "Plan"]

Place = tuple[str, int]  # the name of a contestant, and its ranks


@dataclass(frozen=True)
class Known:
    """What earlier cells have told: the pace, and the factor of the best learning rate, by
    contestant and rank count.
    """

    pace: Mapping[Place, Pace] = field(default_factory=dict)
    learning_rate_factor: Mapping[Place, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    seed: as training.seed; trial: the number, from 0, of a trial of learning rates, None for
    another run; learning_rate_factor: times the learning rate of the contestant; calibration:
    whether it only measures the pace; job: with all this, and its own output.directory.
    """

    contestant: str
    label: str
    ranks: int
    seed: int
    trial: int | None
    learning_rate_factor: float
    job: Job
    calibration: bool = False

    @property
    def place(self) -> Place:
        """Its contestant and rank count."""
        return self.contestant, self.ranks

    @property
    def name(self) -> str:
        """Its directory below that of the cells: "synchronous/ranks_2/seed_1"."""
        last = (
            "calibration"
            if self.calibration
            else f"seed_{self.seed}"
            if self.trial is None
            else f"trial_{self.trial}"
        )
        return f"{self.contestant}/ranks_{self.ranks}/{last}"

    @property
    def directory(self) -> Path:
        """Its output directory."""
        return Path(self.job.output.directory)


@dataclass(frozen=True)
class Plan:
    """What a study trains.

    cells: calibrations, then trials, then seed by seed; pending: names of the cells that cannot be
    planned until those before them are done; left_out: a sentence for each contestant and rank
    count that is not trained; jobs: of each other one, with its length where that is known.
    """

    cells: list[Cell]
    pending: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    jobs: Mapping[Place, Job] = field(default_factory=dict)
