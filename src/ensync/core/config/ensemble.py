"""The settings of members and their fusion."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ensync.core.config.layers import Positive, Section
from ensync.core.fusion import FUSIONS

if TYPE_CHECKING:
    FusionName = str
else:
    FusionName = Literal[tuple(FUSIONS)]


class Ensemble(Section):
    """Members: how many, on which rows, from which start."""

    members: Annotated[int, Field(ge=0)] = Field(
        0,
        description="networks; 0: one per rank; fewer than ranks: groups train one member "
        "together; more: ranks take turns",
    )
    data: Literal["shards", "bootstrap", "full", "label_skew"] = Field(
        "shards",
        description="shards: disjoint; bootstrap: as many rows as there are, drawn with "
        "replacement; full: everything; label_skew: disjoint, classes uneven",
    )
    skew: Annotated[float, Field(gt=0)] = Field(
        0.5, description="label_skew: Dirichlet concentration; smaller is more uneven"
    )
    start: Literal["own", "shared", "synchronous"] = Field(
        "own",
        description="own: each member its start weights; shared: the same for all; synchronous: "
        "trained together for synchronous_epochs first",
    )
    synchronous_epochs: Positive = Field(
        1, description="start = synchronous: epochs trained as one network before the members part"
    )


class Fusion(Section):
    """How rank 0 makes one prediction of the members'."""

    method: FusionName = Field(
        "soft_voting", description="; ".join(fusion.help for fusion in FUSIONS.values())
    )
