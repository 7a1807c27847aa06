"""How often the ranks that train one network meet, and whom, as a section of a job file. What they
do between and in their meetings is in strategies.apart and the modules that import it.
"""

import math
from typing import Annotated, Literal

from pydantic import Field

from ensync.core.config.compression import COMPRESSIONS, NONE
from ensync.core.config.layers import Positive, Rate, Section
from ensync.core.config.optimizers import Optimizer
from ensync.core.config.tables import only

NEVER = "never"
ALL, BUTTERFLY = "all", "butterfly"
LONGEST = 1 << 40  # steps of an interval; more than any run has
WITH_SERVER = ("server", "max_staleness", "staleness_weight", "shares")


class Communication(Section):
    """How often the ranks that train one network together meet (local SGD), and whom (gossip)."""

    every: Positive | Literal["never"] = Field(
        1,
        description="steps from one meeting of the ranks to the next; 1: gradients are summed in "
        "every step; more: each rank trains a replica on its part of every batch, whose mean loss "
        "it takes, with batch normalisation over these rows, and in a meeting all replicas become "
        "their mean, weighted by samples (local SGD, Stich 2019); never: they part for good. What "
        "is validated, tested and saved is always their mean",
    )
    start: Annotated[int, Field(ge=0)] = Field(
        0,
        description="steps in which gradients are summed before the first such interval "
        "(post-local SGD, Lin et al. 2020)",
    )
    start_accuracy: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="gradients are summed until an epoch has this training accuracy, or `start` "
        "steps are over where that is above 0; with every = 'never' and estimate_statistics that "
        "is SWAP (Gupta et al. 2020); 0: `start` alone counts",
    )
    growth: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="the interval that begins at the learning rate r has max(every, floor((growth "
        "/ r)^2)) steps, as many as `every` while the rate rises: meetings become rare as the rate "
        "falls (quadratic synchronization rule, Gu et al. 2024); 0: all have `every`",
    )
    partners: Literal["all", "butterfly", "ring"] = Field(
        "all",
        description="whom a rank meets; all: all others; butterfly and ring: in each meeting one "
        "other, whose replica comes while the next gradient is computed, and both come halfway "
        "(gossip, Lian et al. 2017): in turn those whose numbers differ in one bit, where the "
        "ranks are a power of two, else those beside it in a ring",
    )
    outer_learning_rate: Annotated[float, Field(gt=0)] = Field(
        1.0,
        description="how far a meeting moves the network of the last one towards the mean; with "
        "outer_momentum 0.9 often 0.7 (DiLoCo, Douillard et al. 2023)",
    )
    outer_momentum: Rate = Field(
        0.0, description="Nesterov's momentum of these moves (DiLoCo); 0: none"
    )
    shares: Literal["equal", "speed"] = Field(
        "equal",
        description="how the ranks of a network share its batches; equal: parts that differ by a "
        "row at most; speed: by the rows that each rank computes in a second, waiting left out, "
        "measured in each epoch and taken from the next one on, where that saves 5 % of the "
        "slowest rank's time: parts of one row at least, and of twice an equal one at most, so "
        "that batches take up to twice the memory. Summed gradients stay those of the whole batch",
    )
    average_optimizer: bool = Field(
        False,
        description="whether meetings also average the optimisers' states, such as momentum, which "
        "otherwise stay each rank's own",
    )
    estimate_statistics: bool = Field(
        False,
        description="whether the mean of replicas gets moving statistics of batch normalisation "
        "that are estimated anew from training images, instead of the mean of theirs",
    )
    compression: Literal["none", "bf16", "powersgd", "int8", "topk"] = Field(
        "none",
        description="what ranks send in the sums of gradients, or of differences in meetings: "
        + "; ".join(f"{name}: {spec.help}" for name, spec in COMPRESSIONS.items())
        + ". What a rank does not send of a sum it adds to the next (error feedback, Karimireddy "
        "et al. 2019)",
    )
    compression_rank: Positive = Field(
        2, description=f"{only(COMPRESSIONS, 'compression_rank')}: rank of a matrix that is sent"
    )
    compression_start: Rate = Field(
        0.1,
        description=f"{only(COMPRESSIONS, 'compression_start')}: share of the run's steps before "
        "the first compressed sum",
    )
    compression_block: Positive = Field(
        256, description=f"{only(COMPRESSIONS, 'compression_block')}: numbers that share a scale"
    )
    compression_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01, description=f"{only(COMPRESSIONS, 'compression_share')}: share of the numbers sent"
    )
    server: Literal["none", "seeded", "arrival"] = Field(
        "none",
        description="whether rank 0 serves the network to all, which push gradients of older "
        "networks, with batch normalisation over their own rows, and wait less; seeded: how old "
        "they are comes from training.seed, on one rank, too, so that the same bits come again; "
        "arrival: each takes the newest that has come, which no two runs repeat",
    )
    max_staleness: Annotated[int, Field(ge=0, le=64)] = Field(
        4,
        description="steps by which such a network may be behind (stale synchronous parallel, Ho "
        "et al. 2013); each rank keeps so many networks; 0: none, as synchronous training",
    )
    staleness_weight: Literal["equal", "inverse"] = Field(
        "inverse",
        description="of a gradient beside its rows; inverse: 1 / (1 + steps behind) (Zhang et al. "
        "2016)",
    )
    overlap: bool | Literal["auto"] = Field(
        "auto",
        description="whether sums of gradients begin, in buckets, while the backward pass still "
        "computes those of earlier layers; auto: where each rank has a node of its own, "
        "but for Open MPI, whose sums take longer so",
    )
    bucket_megabytes: Annotated[float, Field(gt=0)] = Field(
        2.0, description="overlap: bytes of such a bucket, in 10^6"
    )

    @property
    def whole_before(self) -> float:
        """The share of a run's steps whose sums are sent whole."""
        begins_later = "compression_start" in COMPRESSIONS[self.compression].settings
        return self.compression_start if begins_later else 0.0

    @property
    def is_served(self) -> bool:
        """Whether rank 0 serves the network."""
        return self.server != "none"

    @property
    def beside_server(self) -> dict[str, object]:
        """The settings given, by name, that have no place beside a server."""
        return {
            name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if name not in WITH_SERVER and getattr(self, name) != field.default
        }

    @property
    def compresses(self) -> bool:
        """Whether less than every digit is sent."""
        return self.compression != NONE

    @property
    def sums(self) -> bool:
        """Whether anything is ever summed over all ranks."""
        together = self.start > 0 or self.start_accuracy > 0
        return together or (self.every != NEVER and self.partners == ALL)

    @property
    def sums_in_steps(self) -> bool:
        """Whether whole gradients are summed over all ranks in every step."""
        return not (self.is_local or self.is_served or self.compresses)

    @property
    def is_outer(self) -> bool:
        """Whether a meeting does more than to take the mean."""
        return self.outer_learning_rate != 1 or self.outer_momentum > 0

    @property
    def outer(self) -> Optimizer:
        """The optimiser that takes the difference of a meeting for a gradient."""
        return Optimizer(
            name="nesterov" if self.outer_momentum else "sgd",
            learning_rate=self.outer_learning_rate,
            momentum=self.outer_momentum,
        )

    @property
    def by_speed(self) -> bool:
        """Whether the parts of a batch follow the speeds of the ranks."""
        return self.shares == "speed"

    @property
    def is_local(self) -> bool:
        """Whether replicas differ between meetings."""
        return self.every != 1 or self.is_outer or self.partners != ALL

    def grown(self, rate: float) -> int:
        """Return the steps that an interval which begins at this learning rate has at least, 0 for
        no more than `every`.

        The last digits of a rate do not count, which ranks of other CPU types may have others of.
        """
        if not self.growth:
            return 0
        ratio = min(self.growth / rate, math.sqrt(LONGEST)) if rate > 0 else math.sqrt(LONGEST)
        return math.floor(ratio**2 * (1 + 1e-9))
