"""Where a network stands in its training."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ensync.core.config.training import Training
from ensync.core.shares import Speeds

EARLY, DIVERGED, LOST = (
    "early stopping",
    "diverged",
    "lost",
)  # how the reason begins why a network is trained no further before its last epoch
UNUSABLE = (DIVERGED, LOST)
SHOWN = 8  # members that a line names


@dataclass
class Position:
    """Where a network stands: everything besides its vectors that a resumed run needs."""

    epoch: int = 0  # whole epochs done
    step: int = 0  # steps done in the current epoch
    loss_sum: float = 0.0  # of the samples seen in it
    correct: int = 0
    samples: int = 0
    seconds: float = 0.0  # of training in it
    best_loss: float = float("inf")
    best_epoch: int = 0
    rate_factor: float = 1.0  # what plateaus have left of the learning rate
    plateau_loss: float = float("inf")
    plateau_epochs: int = 0  # since the last better loss or reduction
    finished: str = (
        ""  # why it stopped before the last epoch: "early stopping ...", "diverged ...", "lost ..."
    )
    speeds: Speeds = ()  # of the ranks, by which batches are cut; none: equally

    def over(self, training: Training, updates: int) -> bool:
        """Whether training ended, by these settings, after so many steps of the network."""
        end = training.max_steps
        return bool(self.finished) or (updates >= end if end else self.epoch >= training.epochs)

    def ended(self, training: Training, updates: int) -> str:
        """Say why training ended, or how far it is, by these settings, after so many steps of the
        network.
        """
        if self.finished:
            return self.finished
        epochs, steps = training.epochs, training.max_steps
        if self.over(training, updates):
            length, what = (steps, "step") if steps else (epochs, "epoch")
            return f"all {length:,} {what}{'s' * (length != 1)}"
        if steps:
            return f"not yet, after step {updates:,} of {steps:,}"
        return f"not yet, after epoch {self.epoch} of {epochs}"

    def as_dict(self) -> dict[str, object]:
        """Plain values for a checkpoint's attributes; JSON knows no infinity."""
        return {k: (None if v == float("inf") else v) for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Position":
        """Read what as_dict wrote."""
        found: dict[str, Any] = {
            f.name: f.default if values.get(f.name) is None else values[f.name] for f in fields(cls)
        }
        return cls(**{**found, "speeds": tuple(found["speeds"])})


def ends_of(ended: Mapping[int, str]) -> str:
    """Say in a line why training ended, given the reason of each member (Position.ended);
    members with the same reason share a part.
    """
    alike: dict[str, list[int]] = {}
    for member, why in ended.items():
        alike.setdefault(why, []).append(member)
    if len(alike) == 1:
        return next(iter(alike))
    return "; ".join(f"{_members(members)}: {why}" for why, members in alike.items())


def _members(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN])) + (
        f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    )
    return f"member {shown}" if len(numbers) == 1 else f"members {shown}"
