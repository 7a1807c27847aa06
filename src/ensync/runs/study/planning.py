"""The plan of a study: what is trained, in which order, and what is left out for which reason.

Everything here is a pure function: the plan of a study that was interrupted is the same one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ensync.core.config.communication import Communication
from ensync.core.config.job import without_study
from ensync.core.config.schema import Job
from ensync.core.config.study import TIMED, Study
from ensync.core.errors import EnsyncError
from ensync.runs.study.budgets import Networks, seconds_of, with_samples, with_seconds
from ensync.runs.study.cells import Cell, Known, Place, Plan
from ensync.runs.study.contestants import (
    Impossible,
    contestant,
    most_together,
    networks,
    updated,
    with_rate,
)
from ensync.runs.study.facts import Facts
from ensync.training.learning_rate import EpochPlan

# Times the learning rate of a contestant, in the order in which they are tried.
FACTORS = (1.0, 1 / 2, 2.0, 1 / 4, 4.0, 1 / 8, 8.0, 1 / 16, 16.0)
CALIBRATION_STEPS = 50  # at most an epoch
CALIBRATION_SAMPLES = 4096  # at least, where steps are of few samples
# Contestants that are one network on one rank, the first of them in a study's list among them.
ALONE = ("one_rank", "synchronous", "synchronous_grown", "larger_network", "local_sgd")


def plan(job: Job, launched: int, facts: Facts, known: Known) -> Plan:
    """Return what the study of a job trains on so many launched ranks, as far as `known` says.

    Errors: EnsyncError for ranks beyond those launched, splits that are not there, a contestant
    that is described wrongly, or a budget too small for one step.
    """
    study = job.study or Study()
    counts = study.ranks or [launched]
    _check(study, counts, launched, facts)
    if job.training.max_steps:
        raise EnsyncError(
            f"training.max_steps = {job.training.max_steps} in a job that is studied",
            "training.epochs, from which the budget makes the length of each contestant",
            "give training.epochs in its place",
        )
    return _Planner(job, study, facts, known).plan(counts)


def _check(study: Study, counts: Sequence[int], launched: int, facts: Facts) -> None:
    """Refuse a study that cannot be trained here, or on this dataset."""
    if max(counts) > launched:
        raise EnsyncError(
            f"study.ranks = {study.ranks} with {launched} ranks launched",
            f"at most {launched}",
            f"launch {max(counts)} (`mpirun -n {max(counts)} ensync compare ...`), or leave the "
            "larger counts out",
        )
    if not facts.test:
        raise EnsyncError(
            "a study on a dataset without test images",
            "a test split to compare by",
            "prepare the dataset with a test split (`ensync data prepare --help`)",
        )
    asked = {
        f"study.trials = {study.trials}": study.trials > 1,
        "study.budget = 'target'": study.budget == "target",
        "study.redraw_validation = true": study.redraw_validation,
    }
    for given, wanted in asked.items():
        if wanted and not facts.validation:
            raise EnsyncError(
                f"{given} on a dataset without validation images",
                "a validation split to decide by",
                "prepare the dataset with --validation 0.1, or leave the setting out",
            )


@dataclass
class _Planner:
    """The work on one plan."""

    job: Job
    study: Study
    facts: Facts
    known: Known
    left_out: list[str] = field(default_factory=list)

    def plan(self, counts: Sequence[int]) -> Plan:
        """Return the plan for these rank counts."""
        jobs = self._jobs(counts)
        calibrations = self._calibrations(jobs)
        lasting = {place: self._lasting(place, job) for place, job in jobs.items()}
        waiting = [place for place, job in lasting.items() if job is None]
        there = {place: job for place, job in lasting.items() if job is not None}
        cells, pending = [*calibrations, *self._trials(there)], []
        for place in waiting:
            pending += [self._cell(place, self.job, trial=k).name for k in self._tried]
        for seed in self._seeds:
            for place in jobs:
                factor = self.known.learning_rate_factor.get(place)
                factor = 1.0 if self.study.trials == 1 else factor
                ready = place in there and factor is not None
                cell = self._cell(place, there.get(place, self.job), factor or 1.0, seed=seed)
                if ready:
                    cells.append(cell)
                else:
                    pending.append(cell.name)
        return Plan(cells, pending, self.left_out, jobs | there)

    @property
    def _seeds(self) -> range:
        first = self.job.training.seed
        return range(first, first + self.study.seeds)

    @property
    def _tried(self) -> range:
        """The numbers of the trials; none where there is but one."""
        return range(self.study.trials if self.study.trials > 1 else 0)

    def _jobs(self, counts: Sequence[int]) -> dict[Place, Job]:
        """Return the jobs of all contestants and rank counts in order, without their length; note
        what is left out.
        """
        found: dict[Place, Job] = {}
        why: dict[str, None] = {}
        for ranks in counts:
            for name in self.study.names:
                place = (name, 1 if self._base(name) == "one_rank" else ranks)
                if place in found:
                    continue
                job = self._contestant(name, place[1])
                if isinstance(job, Job):
                    job = self._unless_same(name, job, found, place[1])
                if isinstance(job, Job):
                    found[place] = job
                else:
                    why.setdefault(f"{name} on {_ranks(place[1])}: {job.why}")
        self.left_out = list(why)
        if not found:
            raise EnsyncError(
                f"a study of which nothing is left ({'; '.join(self.left_out)})",
                "a contestant that can be trained",
                "launch more ranks, or choose other study.contestants",
            )
        return found

    def _contestant(self, name: str, ranks: int) -> Job | Impossible:
        if same := self._same(name, ranks):
            return Impossible(f"the same as {same}")
        found = contestant(self.job, name, ranks, self.facts)
        if (
            isinstance(found, Job)
            and self.study.made(name)
            and self.study.budget in TIMED
            and Networks.of(found, ranks, self.facts).common_epochs
        ):
            return Impossible(
                "its two parts have two paces, and study.budget needs one that a calibration finds"
            )
        return found

    def _unless_same(
        self, name: str, job: Job, before: Mapping[Place, Job], ranks: int
    ) -> Job | Impossible:
        """Return the job of a contestant, unless it is one of a setting's values that trains on so
        many ranks what one before it does.
        """
        axis = self.study.axis
        for place, other in before.items() if axis and name in axis.values else ():
            comparable = axis and place[0] in axis.values and place[1] == ranks
            if comparable and _trained(other, ranks) == _trained(job, ranks):
                return Impossible(f"the same as {place[0]}")
        return job

    def _base(self, name: str) -> str:
        own = self.study.made(name)
        return own.base if own else name

    def _same(self, name: str, ranks: int) -> str:
        """Return the contestant before it that a contestant is on one rank, "" for none."""
        if ranks > 1 or name not in ALONE:
            return ""
        if name == "larger_network" and self.job.ensemble.members > 1:
            return ""
        if name == "local_sgd" and self.job.communication.is_outer:
            return ""
        before = self.study.names[: self.study.names.index(name)]
        return next((other for other in ALONE if other in before), "")

    def _lasting(self, place: Place, job: Job) -> Job | None:
        """Return the job with its length, None where its pace is not known yet."""
        study, facts, ranks = self.study, self.facts, place[1]
        try:
            if study.budget not in TIMED:
                return with_samples(job, ranks, facts, study.budget == "samples_per_network")
            paces = [self.known.pace.get((name, ranks)) for name in self._paced_by(place, job)]
            known = [pace for pace in paces if pace is not None]
            if len(known) < len(paces):
                return None
            seconds = seconds_of(study, ranks, known[-1].threads)
            return with_seconds(job, ranks, facts, seconds, known)
        except EnsyncError as error:
            given = f"{place[0]} on {_ranks(ranks)} under study.budget = '{study.budget}'"
            raise EnsyncError(f"{given}: {error.given}", error.expected, error.action) from None

    def _paced_by(self, place: Place, job: Job) -> list[str]:
        """Return the contestants whose paces make the length of one: with a synchronous start, that
        of its first part and that of the rest.
        """
        if job.ensemble.start == "synchronous" and networks(job, place[1]) > 1:
            return ["synchronous", "ensemble_shards"]
        return [place[0]]

    def _calibrations(self, jobs: Mapping[Place, Job]) -> list[Cell]:
        """Return short runs that measure the paces a timed budget needs."""
        if self.study.budget not in TIMED:
            return []
        if self.job.growth.every_epochs:
            raise EnsyncError(
                f"study.budget = '{self.study.budget}' with growth.every_epochs = "
                f"{self.job.growth.every_epochs}",
                "steps that cost alike",
                "set growth.every_epochs = 0, or choose another budget",
            )
        places = dict.fromkeys(
            (name, place[1]) for place, job in jobs.items() for name in self._paced_by(place, job)
        )
        cells = []
        for name, ranks in places:
            job = jobs.get((name, ranks)) or contestant(self.job, name, ranks, self.facts)
            if isinstance(job, Job):
                cells.append(self._cell((name, ranks), self._short(job, ranks), calibrates=True))
        return cells

    def _short(self, job: Job, ranks: int) -> Job:
        """Return the job for the few steps of a calibration."""
        rows = Networks.of(job, ranks, self.facts).rows
        plan = EpochPlan(job, -(-rows // 1))
        steps = max(CALIBRATION_STEPS, -(-CALIBRATION_SAMPLES // plan.batch(0)))
        return updated(job, training={"max_steps": min(steps, plan.steps(0))})

    def _trials(self, jobs: Mapping[Place, Job]) -> list[Cell]:
        return [
            self._cell(place, job, FACTORS[k], trial=k)
            for place, job in jobs.items()
            for k in self._tried
        ]

    def _cell(
        self,
        place: Place,
        job: Job,
        factor: float = 1.0,
        seed: int | None = None,
        trial: int | None = None,
        calibrates: bool = False,
    ) -> Cell:
        """Return a cell, with the first seed where none is given."""
        name, ranks = place
        seed = self.job.training.seed if seed is None else seed
        cell = Cell(name, self.study.label(name), ranks, seed, trial, factor, self.job, calibrates)
        directory = Path(self.job.output.directory) / "cells" / cell.name
        given = updated(
            with_rate(job, factor),
            training={"seed": seed},
            data={"validation_seed": seed if self.study.redraw_validation else 0},
            output={"directory": str(directory)},
        )
        return replace(cell, job=without_study(given))


def _trained(job: Job, ranks: int) -> Job:
    """Return the job without what has no effect on so many ranks: where each has a network of its
    own, none meets another.
    """
    if most_together(job, ranks) > 1 or job.communication.is_outer:
        return job
    return job.model_copy(update={"communication": Communication()})


def _ranks(count: int) -> str:
    return f"{count} rank{'s' * (count > 1)}"
