"""How long a contestant trains under a budget: whole epochs where they are exact, else steps."""

from dataclasses import dataclass
from fractions import Fraction

from ensync.core.config.schema import Job
from ensync.core.config.study import Study
from ensync.core.errors import EnsyncError
from ensync.report.text import plural
from ensync.runs.length import MOST_EPOCHS
from ensync.runs.study.contestants import SHARE_OF_START, networks, updated
from ensync.runs.study.facts import Facts
from ensync.training.learning_rate import EpochPlan

LENGTHS = ("epochs", "max_steps")  # the settings of training that make its length


@dataclass(frozen=True)
class Pace:
    """How fast a contestant trains, as its calibration found.

    step: seconds of a step; epoch_end: of the validation after an epoch; threads: of a rank.
    """

    step: float
    epoch_end: float = 0.0
    threads: int = 1


@dataclass(frozen=True)
class Networks:
    """The networks of a contestant on its ranks.

    rows: training rows of each, not rounded; common_epochs: those that are trained as one network
    on all rows before.
    """

    count: int
    rows: Fraction
    common_epochs: int = 0

    @classmethod
    def of(cls, job: Job, ranks: int, facts: Facts) -> "Networks":
        """Return those of a job on so many ranks."""
        count = networks(job, ranks)
        if count == 1:
            return cls(1, Fraction(facts.train))
        e = job.ensemble
        shared = e.data in ("shards", "label_skew")
        rows = Fraction(facts.train, count) if shared else Fraction(facts.train)
        return cls(count, rows, e.synchronous_epochs if e.start == "synchronous" else 0)


def with_samples(job: Job, ranks: int, facts: Facts, each: bool) -> Job:
    """Return the job with the length at which its networks together, or `each` of them, train on
    training.epochs * the training rows.

    What the networks share at the beginning counts once, or for each. Exact where that is whole
    epochs; else to within half a step of each network. Errors: EnsyncError for less than that.
    """
    found = Networks.of(job, ranks, facts)
    left = (job.training.epochs - found.common_epochs) * facts.train
    epochs = left / found.rows / (1 if each else found.count)
    if epochs.denominator == 1 and found.common_epochs + epochs >= 1:
        return _lasting(job, epochs=int(found.common_epochs + epochs))
    steps = _steps(job, found, epochs)
    if steps < 1:
        raise EnsyncError(
            f"training.epochs = {job.training.epochs} shared by {found.count} networks, which is "
            "less than half a step of each",
            "a budget of a step at least",
            "give more training.epochs, or a smaller training.batch",
        )
    return _lasting(job, max_steps=_common_steps(job, found, facts) + steps)


def _lasting(job: Job, **length: int) -> Job:
    """Return the job with a length, in epochs or in steps, and the default for the other."""
    defaults = {name: type(job.training).model_fields[name].default for name in LENGTHS}
    return updated(job, training=defaults | length)


def _common_steps(job: Job, found: Networks, facts: Facts) -> int:
    """Return the steps of the epochs that all networks train as one."""
    plan = EpochPlan(job, facts.train)
    return sum(plan.steps(epoch) for epoch in range(found.common_epochs))


def _steps(job: Job, found: Networks, epochs: Fraction) -> int:
    """Return the steps of so many epochs on the networks' own rows, the last part of one rounded
    to the nearest.
    """
    plan, first = EpochPlan(job, -(-found.rows // 1)), found.common_epochs
    whole, part = divmod(epochs, 1)
    last = first + int(whole)
    rounded = (2 * part * plan.rows + plan.batch(last)) // (2 * plan.batch(last))
    return sum(plan.steps(epoch) for epoch in range(first, last)) + int(rounded)


def with_seconds(job: Job, ranks: int, facts: Facts, seconds: float, paces: list[Pace]) -> Job:
    """Return the job with the steps that it does in so many seconds at its pace.

    paces: of its networks, and before that of the epochs that they train as one, where there are.
    A quarter of the time, at least an epoch, is theirs. Errors: EnsyncError where the time is not
    enough.
    """
    found = Networks.of(job, ranks, facts)
    common = 0
    if found.common_epochs:
        plan = EpochPlan(job, facts.train)
        epoch = plan.steps(0) * paces[0].step + paces[0].epoch_end
        count = max(1, round(seconds / SHARE_OF_START / epoch))
        seconds -= count * epoch
        job = updated(job, ensemble={"synchronous_epochs": count})
        found = Networks.of(job, ranks, facts)
        common = _common_steps(job, found, facts)
    steps = _steps_in(EpochPlan(job, -(-found.rows // 1)), seconds, paces[-1])
    if steps < 1:
        raise EnsyncError(
            f"{seconds:.3g} seconds for {plural(found.count, 'network')} on "
            f"{plural(ranks, 'rank')}, of which a step takes {paces[-1].step:.3g}",
            "time for a step at least",
            "give a larger study.amount",
        )
    return _lasting(job, max_steps=common + steps)


def _steps_in(plan: EpochPlan, seconds: float, pace: Pace) -> int:
    """Return the steps that take the seconds, with the validation at the end of each epoch; all
    epochs have the same steps.
    """
    steps = plan.steps(0)
    epochs, left = divmod(max(0.0, seconds), steps * pace.step + pace.epoch_end)
    part = max(0.0, left - pace.epoch_end) / pace.step
    return min(int(epochs) * steps + min(steps, int(part)), MOST_EPOCHS * steps)


def seconds_of(study: Study, ranks: int, threads: int) -> float:
    """Return the seconds that a timed budget leaves a contestant on so many ranks."""
    if study.budget == "core_seconds":
        return study.amount / (ranks * threads)
    return study.amount
