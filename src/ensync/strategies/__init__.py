"""How the ranks of a job train networks: one module a strategy, and the dict of all of them."""

from ensync.core.config.schema import Job
from ensync.strategies.ensemble import Ensemble
from ensync.strategies.strategy import Strategy
from ensync.strategies.synchronous import Synchronous

STRATEGIES: dict[str, Strategy] = {each.name: each for each in (Synchronous(), Ensemble())}


def strategy_of(job: Job) -> Strategy:
    """Return the strategy of a job."""
    return STRATEGIES[job.training.strategy]
