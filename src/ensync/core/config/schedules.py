"""The schedules of the learning rate, each described once. The shapes are in nn.schedules."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """A schedule, and what settings, help and refusals know of it.

    settings: those of [schedule] that it has beside warmup_epochs.
    """

    help: str
    settings: tuple[str, ...] = ()


SCHEDULES = {
    "constant": ScheduleSpec("1 throughout"),
    "step": ScheduleSpec("reduced after every step_epochs", ("step_epochs", "factor")),
    "cosine": ScheduleSpec("falls along half a cosine to minimum", ("minimum",)),
}
