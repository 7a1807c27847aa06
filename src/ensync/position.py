"""Where a network stands in its training."""

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class Position:
    """Where a network stands: everything besides its vectors that a resumed run needs."""

    epoch: int = 0               # whole epochs done
    step: int = 0                # steps done in the epoch at hand
    loss_sum: float = 0.0        # of the samples seen in it
    correct: int = 0
    samples: int = 0
    seconds: float = 0.0         # of training in it
    best_loss: float = float("inf")
    best_epoch: int = 0
    rate_factor: float = 1.0     # what plateaus have left of the learning rate
    plateau_loss: float = float("inf")
    plateau_epochs: int = 0      # since the last better loss or reduction
    finished: str = ""           # why it stopped early: "early stopping", "diverged ..."

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint's attributes; JSON knows no infinity."""
        return {k: (None if v == float("inf") else v) for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Position":
        """Read what as_dict wrote."""
        return cls(**{f.name: (f.default if values[f.name] is None else values[f.name]) for f in fields(cls)})
