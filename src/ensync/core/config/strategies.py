"""The strategies as settings know them: their names and help. What they do is in
ensync.strategies, which has one of each name.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StrategySettings:
    """What the settings say of a strategy.

    ensemble: whether it trains the members that [ensemble] describes and [fusion] fuses.
    """

    help: str
    ensemble: bool = False


STRATEGIES = {
    "synchronous": StrategySettings("all ranks train one network"),
    "ensemble": StrategySettings("each rank trains its own, or as [ensemble] says", ensemble=True),
}
