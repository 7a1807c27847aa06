"""The schedules of the learning rate, each described once. The shapes are in nn.schedules."""

from dataclasses import dataclass


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
