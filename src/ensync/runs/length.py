"""How long the networks of a run train: epochs as the job says, or those that
training.max_steps comes to on their rows.
"""

import numpy as np

from ensync.core.config.schema import Job
from ensync.core.errors import EnsyncError
from ensync.strategies import strategy_of
from ensync.strategies.strategy import Strategy
from ensync.training.learning_rate import EpochPlan, Part

MOST_EPOCHS = 1_000_000  # as training.epochs


def parts_of(strategy: Strategy, ranks: int, labels: np.ndarray, member: int) -> list[Part]:
    """Return the parts of a member's training, where it has several: the rows of the one network
    that it starts from, then its own.

    labels: int64 (rows,), of the training split.
    """
    phases = strategy.phases(ranks)
    if len(phases) == 1:
        return []
    return [
        Part(len(strategy.rows(labels, each.members, member % each.members)), each.last_epoch)
        for each in phases
    ]


def with_epochs(job: Job, ranks: int, labels: np.ndarray) -> Job:
    """Return a job with the epochs that its training.max_steps comes to, the last of which may be
    a part of one: those of the member that has most.

    labels: int64 (rows,), of the training split. Errors: EnsyncError for steps that members do
    not come to part before, or too many epochs.
    """
    training = job.training
    if not training.max_steps:
        return job
    longest = _with(job, MOST_EPOCHS)
    strategy = strategy_of(longest)
    count = strategy.members(ranks)
    uneven = job.ensemble.data == "label_skew"  # else rows of members differ by one at most
    plans = [
        EpochPlan(
            longest,
            len(strategy.rows(labels, count, member)),
            parts_of(strategy, ranks, labels, member),
        )
        for member in (range(count) if uneven else sorted({0, count - 1}))
    ]
    first = plans[0].parts[0].last_epoch if plans[0].parts else 0
    if training.max_steps <= (common := plans[0].updates(first)):
        raise EnsyncError(
            f"training.max_steps = {training.max_steps:,} with ensemble.synchronous_epochs = "
            f"{first}, which are {common:,} steps",
            "more steps, of which the members train the rest",
            "give more training.max_steps or fewer ensemble.synchronous_epochs",
        )
    epochs = max(-(-plan.length // 1) for plan in plans)
    if epochs > MOST_EPOCHS:
        raise EnsyncError(
            f"training.max_steps = {training.max_steps:,}, which are {epochs:,} epochs",
            f"at most {MOST_EPOCHS:,} epochs",
            "give fewer",
        )
    return _with(job, int(epochs))


def without_epochs(job: Job) -> Job:
    """Return a job without the epochs that its training.max_steps came to."""
    default = type(job.training).model_fields["epochs"].default
    return _with(job, default) if job.training.max_steps else job


def _with(job: Job, epochs: int) -> Job:
    training = job.training.model_copy(update={"epochs": epochs})
    return job.model_copy(update={"training": training})
