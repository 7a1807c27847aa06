"""How the ranks of a job train networks: one module a strategy, and the dict of all of them."""

from ensync.core.config.schema import Job
from ensync.strategies.ensemble import Ensemble
from ensync.strategies.strategy import Strategy
from ensync.strategies.synchronous import Synchronous

STRATEGIES: dict[str, type[Strategy]] = {each.name: each for each in (Synchronous, Ensemble)}


def strategy_of(job: Job) -> Strategy:
    """Return the strategy of a job, with the settings that it goes by."""
    return STRATEGIES[job.training.strategy](
        job.training, job.ensemble, job.fusion, job.communication, job.parallel
    )


def settled(job: Job, ranks: int) -> Job:
    """Return the job with the number of members that it leaves to the number of ranks, so that a
    resumed run keeps it. EnsyncError for too many.
    """
    return job.model_copy(update={"ensemble": strategy_of(job).settled(ranks)})
