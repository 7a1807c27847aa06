"""A picture of a few steps of a timeline: a row for each rank, from the left to the right what it
did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ensync.report.axes import new_figure
from ensync.report.profile.phases import BACKWARD as BACK
from ensync.report.profile.phases import COMMUNICATION, FORWARD, INPUT, UPDATE, WAIT
from ensync.report.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Trace = Sequence[Mapping[str, Any]]  # events of Chrome's format
MOST_RANKS, STEPS = 16, 3
COLORS = {INPUT: GREY, FORWARD: BLUE, BACK: SKY, UPDATE: GREEN, COMMUNICATION: ORANGE, WAIT: PURPLE}
PHASE_OF = {  # by the first word of an event
    "load": INPUT,
    "forward": FORWARD,
    "backward": BACK,
    "update": UPDATE,
    "sum": COMMUNICATION,
    "reduce": COMMUNICATION,
    "end": COMMUNICATION,
    "wait": WAIT,
}


class Bar(NamedTuple):
    """What a rank did from `start` on, in milliseconds since its step, or the first rank's,
    began.
    """

    rank: int
    phase: str
    start: float
    length: float


class Shown(NamedTuple):
    """A step of the picture, counted from 1."""

    number: int
    bars: list[Bar]


def shown_steps(events: Trace) -> list[Shown]:
    """Return a few steps, evenly spaced, of those that every rank has recorded; of the first ranks
    where there are many.
    """
    whole = [event for event in events if event["name"].startswith("step ")]
    of_number: dict[int, list[Mapping[str, Any]]] = {}
    for event in whole:
        if event["pid"] < MOST_RANKS:
            of_number.setdefault(event["args"]["first"], []).append(event)
    ranks = max((len({e["pid"] for e in each}) for each in of_number.values()), default=0)
    common = [n for n, each in sorted(of_number.items()) if len({e["pid"] for e in each}) == ranks]
    places = sorted({(2 * i + 1) * len(common) // (2 * STEPS) for i in range(STEPS)})
    chosen = [common[place] for place in places if place < len(common)]
    return [Shown(number + 1, _bars(of_number[number], events)) for number in chosen]


def _bars(steps: Sequence[Mapping[str, Any]], events: Trace) -> list[Bar]:
    """Return the bars of one step of all ranks: from the start of the first where they train one
    network, else each from its own.
    """
    first = {step["pid"]: step for step in reversed(steps)}
    together = len({step["args"]["member"] for step in first.values()}) == 1
    begun = min(step["ts"] for step in first.values())
    bars = []
    for event in events:
        phase, step = PHASE_OF.get(event["name"].split()[0]), first.get(event["pid"])
        if phase and step and step["ts"] <= event["ts"] < step["ts"] + step["dur"]:
            since = event["ts"] - (begun if together else step["ts"])
            bars.append(Bar(event["pid"], phase, since / 1e3, event["dur"] / 1e3))
    return bars


@styled
def draw_steps(steps: Sequence[Shown]) -> Figure:
    """Return the picture of these steps, one above the other."""
    from matplotlib.patches import Patch

    ranks = sorted({bar.rank for step in steps for bar in step.bars})
    figure = new_figure(8.0, 0.9 + len(steps) * (0.75 + 0.28 * len(ranks)))
    for axes, step in zip(figure.subplots(len(steps), 1, squeeze=False)[:, 0], steps, strict=True):
        _draw(axes, step, ranks)
    axes.set_xlabel("time since the step began (ms)")
    figure.legend(
        handles=[Patch(color=color, label=name) for name, color in COLORS.items()],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def _draw(axes: Axes, step: Shown, ranks: Sequence[int]) -> None:
    for bar in step.bars:
        place = ranks.index(bar.rank)
        axes.barh(place, bar.length, 0.7, bar.start, color=COLORS[bar.phase], linewidth=0)
    axes.set_title(f"Step {step.number:,}")
    axes.set_yticks(range(len(ranks)), [f"rank {rank}" for rank in ranks])
    axes.set_ylim(len(ranks) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
