"""The attributes of a run's checkpoint, as JSON has them; runs.content checks that they are so."""

from typing import NotRequired, TypedDict


class IdentityRecord(TypedDict):
    """What a run was trained on (identity.Identity)."""

    name: str
    class_names: list[str]
    shape: list[int]
    mean: list[float]
    std: list[float]
    sizes: dict[str, int]
    fingerprint: str
    preparation: dict[str, str | bool | int | float | None]


class MemberPosition(TypedDict):
    """Where a member stands (training.position.Position, with None for infinity), and the updates
    of its optimiser.
    """

    epoch: int
    step: int
    loss_sum: float
    correct: int
    samples: int
    seconds: float
    best_loss: float | None
    best_epoch: int
    rate_factor: float
    plateau_loss: float | None
    plateau_epochs: int
    finished: str
    speeds: NotRequired[list[float]]
    updates: int


class EpochRecord(TypedDict):
    """An epoch of a member; a figure is None where it is not known or no
    number. Records of older versions lack some.

    seconds: of its training; elapsed: of the run up to its end. ended: why it was the last one.
    fused_validation_accuracy: of all members fused, where a study looks for a target. shares: rows
    of a batch, or of a slice of it, by rank, where these go by speed.
    """

    event: NotRequired[str]
    member: int
    epoch: int
    step: int
    train_loss: float | None
    train_accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    samples_per_second: float
    learning_rate: NotRequired[float]
    elapsed: NotRequired[float]
    ended: NotRequired[str]
    fused_validation_accuracy: NotRequired[float]
    shares: NotRequired[list[int]]


class RunAttributes(TypedDict):
    """A run. `version` 1, or none, lacks `dataset`; history and positions are in order of epoch and
    of member.
    """

    kind: NotRequired[str]
    version: NotRequired[int]
    dataset: NotRequired[IdentityRecord | None]
    creator: str
    job: dict[str, object]
    members: int
    fingerprint: str
    history: list[EpochRecord]
    elapsed: float
    best_checkpoint: str
    best_accuracy: float
    positions: list[MemberPosition]
