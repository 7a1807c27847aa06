"""What the attributes of a run's checkpoint are. A true checksum says that they are as they were
written, not by whom.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ensync import __version__
from ensync.core.errors import EnsyncError
from ensync.storage.layout import LARGEST_SIDE, MOST_CLASSES
from ensync.strategies.ensemble import MOST_MEMBERS

VERSION = 2  # of a run's attributes; 1 lacks `dataset`


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("characters that cannot be printed")
    return text


Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Figure = float | None
Word = Annotated[str, Field(max_length=500)]


Printable = Annotated[str, Field(max_length=60_000), AfterValidator(_printable)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Exact(BaseModel):
    """Values of the very types; what else is there does no harm."""

    model_config = ConfigDict(strict=True, extra="allow")


class Sizes(Exact):
    """Images of each split."""

    train: Count
    validation: Count
    test: Count


class Standing(Exact):
    """Where a member stands (training.Position)."""

    epoch: Count
    step: Count
    loss_sum: float
    correct: Count
    samples: Count
    seconds: float
    best_loss: Figure
    best_epoch: Count
    rate_factor: float
    plateau_loss: Figure
    plateau_epochs: Count
    finished: Word
    speeds: list[Annotated[Finite, Field(gt=0)]] = []
    updates: Count


class Record(Exact):
    """An epoch of a member, as the history has it."""

    epoch: Count
    member: Count
    step: Count
    train_loss: Figure
    train_accuracy: Figure
    validation_loss: Figure
    validation_accuracy: Figure
    seconds: float
    samples_per_second: float


class Trained(Exact):
    """What a run was trained on (identity.Identity)."""

    name: Printable
    class_names: Annotated[list[Printable], Field(min_length=2, max_length=MOST_CLASSES)]
    shape: Annotated[
        list[Annotated[int, Field(ge=1, le=LARGEST_SIDE)]], Field(min_length=3, max_length=3)
    ]
    mean: list[Finite]
    std: list[Annotated[Finite, Field(gt=0)]]
    sizes: Sizes
    fingerprint: Word
    preparation: dict[Printable, Printable | bool | int | float | None]


class Content(Exact):
    """A run."""

    version: Annotated[int, Field(ge=1)] = 1
    dataset: Trained | None = None
    creator: Word
    job: dict[str, Any]
    members: Annotated[int, Field(ge=1, le=MOST_MEMBERS)]
    fingerprint: Word
    history: list[Record]
    elapsed: float
    best_checkpoint: Annotated[
        str, Field(pattern=re.compile(r"\A(checkpoint-e\d{1,19}-s\d{1,19}\.h5)?\Z"))
    ]
    best_accuracy: float
    positions: list[Standing]


def check(path: object, attributes: Mapping[str, object]) -> None:
    """Raise EnsyncError unless these attributes are a run's."""
    version = attributes.get("version", 1)
    if isinstance(version, int) and version > VERSION:
        raise EnsyncError(
            f"{path} is of a run of version {version}",
            f"version {VERSION} or before, which this Ensync ({__version__}) reads",
            "use the Ensync that wrote it",
        )
    try:
        content = Content.model_validate(attributes)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, found["loc"]))[:80]
        what = "lacks" if found["type"] == "missing" else "holds a wrong value as"
        raise _refusal(path, f"{what} {where!r}") from None
    if len(content.positions) != content.members:
        raise _refusal(
            path, f"tells where {len(content.positions)} of {content.members} members stand"
        )
    trained = content.dataset
    if trained and not (
        len(trained.mean) == len(trained.std) == trained.shape[2]
        and trained.fingerprint == content.fingerprint
    ):
        raise _refusal(path, "holds a wrong value as 'dataset'")


def _refusal(path: object, why: str) -> EnsyncError:
    return EnsyncError(
        f"{path} {why}", "a checkpoint of a training run", "use one that `ensync train` wrote"
    )
