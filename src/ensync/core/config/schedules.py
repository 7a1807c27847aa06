"""The schedules of the learning rate, each described once, and the settings of what changes in the
course of training: learning rate, batch, slow weights. The shapes are in nn.schedules.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ensync.core.config.layers import Positive, Section
from ensync.core.config.tables import only


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """A schedule, and what settings, help and refusals know of it.

    settings: those of [schedule] that it has beside warmup_epochs. over_run: whether it spans the
    run, so that other epochs change every factor.
    """

    help: str
    settings: tuple[str, ...] = ()
    over_run: bool = False


SCHEDULES = {
    "constant": ScheduleSpec("1 throughout"),
    "step": ScheduleSpec("reduced after every step_epochs", ("step_epochs", "factor")),
    "multi_step": ScheduleSpec("reduced after each of milestones", ("milestones", "factor")),
    "cosine": ScheduleSpec("falls along half a cosine to minimum", ("minimum",), over_run=True),
    "linear": ScheduleSpec("falls along a line to minimum", ("minimum",), over_run=True),
    "polynomial": ScheduleSpec(
        "falls to minimum as (1 - share of the run) to a power",
        ("power", "minimum"),
        over_run=True,
    ),
    "triangular": ScheduleSpec(
        "rises along a line from start to 1 at peak, then falls along one to minimum",
        ("start", "peak", "minimum"),
        over_run=True,
    ),
    "one_cycle": ScheduleSpec(
        "rises along half a cosine from start to 1 at peak, then falls along one to minimum in the "
        "last step (Smith and Topin 2018)",
        ("start", "peak", "minimum"),
        over_run=True,
    ),
    "cosine_restarts": ScheduleSpec(
        "falls along half a cosine to minimum, from 1 again after every cycle (Loshchilov and "
        "Hutter 2017)",
        ("restart_epochs", "restart_growth", "minimum"),
    ),
}

if TYPE_CHECKING:
    ScheduleName = str
else:
    ScheduleName = Literal[tuple(SCHEDULES)]


class Schedule(Section):
    """The factor on the learning rate, a function of the step."""

    name: ScheduleName = Field(
        "constant",
        description="shape after the warm-up; "
        + "; ".join(f"{name}: {spec.help}" for name, spec in SCHEDULES.items()),
    )
    warmup_epochs: Annotated[float, Field(ge=0)] = Field(
        0.0, description="the factor rises linearly to 1 over so many epochs"
    )
    step_epochs: Annotated[float, Field(gt=0)] = Field(
        10.0,
        description=f"{only(SCHEDULES, 'step_epochs')}: epochs between two reductions, also "
        "parts of one; each falls on the first step after them",
    )
    milestones: list[Annotated[float, Field(gt=0)]] = Field(
        [],
        description=f"{only(SCHEDULES, 'milestones')}: epochs after which it is reduced, in rising "
        "order, also parts of one",
    )
    factor: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1,
        description=f"{only(SCHEDULES, 'factor')}: what each reduction multiplies by",
    )
    minimum: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description=f"{only(SCHEDULES, 'minimum')}: the factor at the end, or of a cycle's",
    )
    power: Annotated[float, Field(gt=0)] = Field(
        2.0, description=f"{only(SCHEDULES, 'power')}: 1 is a line"
    )
    start: Annotated[float, Field(ge=0, le=1)] = Field(
        0.04, description=f"{only(SCHEDULES, 'start')}: the factor of the first step"
    )
    peak: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.3,
        description=f"{only(SCHEDULES, 'peak')}: share of the run, after the warm-up, at which "
        "the factor is 1",
    )
    restart_epochs: Annotated[float, Field(gt=0)] = Field(
        10.0,
        description=f"{only(SCHEDULES, 'restart_epochs')}: epochs of the first cycle, also parts "
        "of one",
    )
    restart_growth: Positive = Field(
        1,
        description=f"{only(SCHEDULES, 'restart_growth')}: what the length of a cycle is "
        "multiplied by for the next",
    )

    @model_validator(mode="after")
    def _rising(self) -> "Schedule":
        """Refuse milestones that are none, or not in order."""
        if self.name == "multi_step" and not self.milestones:
            raise ValueError(
                "schedule.name = 'multi_step' without schedule.milestones"
                "|the epochs after which the rate is reduced, such as [80, 120]|name them"
            )
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(
                f"schedule.milestones = {self.milestones}"
                "|epochs that rise from one to the next|put them in order, each once"
            )
        return self


class Lookahead(Section):
    """Slow weights that the trained ones meet now and then (Zhang et al. 2019)."""

    every_steps: Annotated[int, Field(ge=0)] = Field(
        0,
        description="steps from one meeting to the next, after which both are the mean of slow and "
        "trained weights, statistics of batch normalisation included; after the last step of the "
        "run the slow ones are taken; 0: never",
    )
    share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.5, description="share of the slow weights in that mean"
    )
    power: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="the share is multiplied by this power of the share of the run that is over",
    )


class Plateau(Section):
    """A learning rate that falls when the validation loss does not (Keras' ReduceLROnPlateau)."""

    patience: Annotated[int, Field(ge=0)] = Field(
        0,
        description="epochs without a better validation loss before each reduction; 0: never "
        "reduced",
    )
    factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="what each reduction multiplies the rate by"
    )
    threshold: Annotated[float, Field(ge=0)] = Field(
        1e-4, description="by how much a loss must be lower to be better"
    )
    minimum: Annotated[float, Field(ge=0)] = Field(
        0.0, description="rate below which it is not reduced"
    )


class Growth(Section):
    """A batch and a learning rate that grow at run time (Lee et al. 2019)."""

    every_epochs: Annotated[int, Field(ge=0)] = Field(
        0, description="epochs between two growths; 0: none"
    )
    batch: Positive = Field(2, description="what each growth multiplies the batch by")
    largest_batch: Positive = Field(4096, description="batch beyond which neither grows")
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        1.0, description="what each growth multiplies the learning rate by"
    )
