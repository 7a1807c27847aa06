"""The settings of the training loop."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ensync.core.config.layers import Positive, Rate, Section
from ensync.core.config.losses import LOSSES
from ensync.core.config.strategies import STRATEGIES
from ensync.core.config.tables import only

if TYPE_CHECKING:
    LossName = str
    StrategyName = str
else:
    LossName = Literal[tuple(LOSSES)]
    StrategyName = Literal[tuple(STRATEGIES)]


class Training(Section):
    """The loop: strategy, length, batch, loss, and when to stop."""

    strategy: StrategyName = Field(
        "synchronous",
        description="; ".join(f"{name}: {each.help}" for name, each in STRATEGIES.items()),
    )
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10, description="passes over the training rows of a network"
    )
    max_steps: Annotated[int, Field(ge=0)] = Field(
        0,
        description="end the training of each network after so many steps, those before members "
        "part included, in place of epochs: the schedule spans these steps, and the last epoch may "
        "be part of one; 0: train all epochs",
    )
    batch: Positive | Literal["full"] = Field(
        64,
        description="samples behind one step of one network, over all its ranks; 1: a step per "
        "sample; full: one step per epoch",
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        1, description="of start weights, order, dropout and shards"
    )
    loss: LossName = Field(
        "cross_entropy",
        description="; ".join(f"{name}: {spec.help}" for name, spec in LOSSES.items()),
    )
    targets: tuple[float, float] = Field(
        (0.0, 1.0),
        description=f"{only(LOSSES, 'targets')}: targets of the wrong and of the right output",
    )
    label_smoothing: Rate = Field(
        0.0,
        description=f"{only(LOSSES, 'label_smoothing')}: share of the target spread over "
        "all classes",
    )
    slice: Positive = Field(
        512,
        description="samples that go through the network at once, over all its ranks; gradients "
        "of larger batches are added up slice by slice "
        "(gradient accumulation), and batch normalisation sees one slice at a time",
    )
    weight_average: Rate = Field(
        0.0,
        description="share of the old average kept at each step in an exponential moving average "
        "of the weights, which is then validated and tested, "
        "with statistics of batch normalisation that are estimated for it from 2,048 training "
        "rows after each epoch (PyTorch's update_bn); 0: none",
    )
    precision: Literal["float32", "bf16", "float64"] = Field(
        "float32",
        description="of parameters and arithmetic; bf16: parameters, their gradients and sums in "
        "float32, the operands of convolutions and dense layers and what lies between "
        "layers rounded to 8 bits, where the CPU has AVX512-BF16 or AMX; float64 is for tests",
    )
    threads: Annotated[int, Field(ge=0)] = Field(
        0,
        description="numba threads per rank; 0: the cores of this rank, from its affinity mask "
        "and the ranks beside it, "
        "and fewer of them while steps are faster so, as beside other busy programs",
    )
    early_stopping: Annotated[int, Field(ge=0)] = Field(
        0,
        description="stop a network after so many epochs without a better validation loss; 0: "
        "never",
    )
    best_weights: bool = Field(
        False,
        description="test each network with the parameters, or their average, of its best "
        "validation epoch",
    )
    deterministic: bool = Field(
        False,
        description="the same bits of every network (of an ensemble: of each of "
        "ensemble.members) on any number of ranks and threads: each batch is cut into "
        "virtual_shards, computed one by one and added along a fixed tree. Costs speed, since a "
        "shard has few rows, and memory of up to five "
        "gradients; the ranks send as much as without it, half as much more where some hold two "
        "branches of the tree (3 ranks of 8 shards)",
    )
    virtual_shards: Positive = Field(
        8,
        description="deterministic: parts of each batch, at least as many as ranks train one "
        "network, best a multiple of them; another number gives other bits",
    )
    watchdog: Annotated[float, Field(ge=0)] = Field(
        600.0,
        description="seconds in which no rank gets on (a step, a part of an evaluation, a file; "
        "compiling does not count) after which the job says who waits for whom and ends; 0: never",
    )
    check_replicas: Annotated[int, Field(ge=0)] = Field(
        0, description="compare the replicas by hash every so many epochs; 0: only at the end"
    )

    @property
    def dtype(self) -> str:
        """The type of parameters and values, as numpy names it."""
        return "float32" if self.precision == "bf16" else self.precision
