"""The main plots of a study, each a function from its result to a matplotlib Figure.

A contestant has the same colour and the same mark in every plot, so that none rests on colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

import numpy as np

from ensync.report import text
from ensync.report.axes import SPREAD, accuracy_axis, new_figure, short
from ensync.report.study_results import ContestantResult, Range, StudyResult
from ensync.report.study_text import ALIKE
from ensync.report.study_verdict import networks_to_predict, untimed_reason
from ensync.report.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    MARKS,
    ORANGE,
    PURPLE,
    SERIES,
    SKY,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KNOWN = {
    "one_rank": (GREY, "P"),
    "synchronous": (BLUE, "o"),
    "synchronous_grown": (SKY, "s"),
    "ensemble_shards": (ORANGE, "^"),
    "ensemble_full": (PURPLE, "D"),
    "ensemble_bootstrap": (ORANGE, "<"),
    "shared_start": (GREEN, "v"),
    "larger_network": (INK, "X"),
    "local_sgd": (BLUE, "d"),
    "parameter_server": (INK, "d"),
}
LINES = ("-", "--", "-.", ":")


class Mark(NamedTuple):
    """How a contestant is drawn."""

    color: str
    marker: str
    line: str


def marks_of(study: StudyResult) -> dict[str, Mark]:
    """Return how each contestant is drawn, by its name."""
    names = list(dict.fromkeys(each.name for each in study.contestants))
    free = [
        (color, marker)
        for turn in range(len(MARKS))
        for color, marker in zip(SERIES, MARKS[turn:] + MARKS[:turn], strict=True)
        if (color, marker) not in KNOWN.values()
    ]
    new = iter(free * (1 + len(names)))
    return {
        name: Mark(*(KNOWN.get(name) or next(new)), LINES[place % len(LINES)])
        for place, name in enumerate(names)
    }


class CostAxis(NamedTuple):
    """The headline's horizontal axis: its label, each contestant's place on it by its name in
    pairs, and why it is not core-seconds, a sentence or nothing.
    """

    label: str
    places: dict[str, float]
    why: str = ""


def cost_of(study: StudyResult) -> CostAxis:
    """Return what the headline's horizontal axis is: core-seconds where all contestants were
    measured alone, else the arithmetic of training, or the parameters to predict with where that
    is the same. Arithmetic: samples times the parameters of the network that they went through.
    """
    everyone = study.contestants
    if everyone and all(each.cost.timed for each in everyone):
        found = {each.key: each.cost.core_seconds for each in everyone}
        places = {key: spread.mean for key, spread in found.items() if spread}
        return CostAxis("core-seconds", {key: mean for key, mean in places.items() if mean})
    reason = untimed_reason(*everyone)
    work = {each.key: (each.cost.samples or 0) * each.parameters for each in everyone}
    known = {key: product for key, product in work.items() if product}
    least = min(known.values(), default=1.0)
    if not known or max(known.values()) > ALIKE * least:
        return CostAxis(
            "samples x parameters, the least = 1",
            {key: product / least for key, product in known.items()},
            f"{reason[:1].upper()}{reason[1:]}: samples times parameters instead, as the "
            "arithmetic of training goes.",
        )
    parameters = {each.key: each.parameters * networks_to_predict(each) for each in everyone}
    return CostAxis(
        "parameters to predict with, all networks",
        {key: float(count) for key, count in parameters.items() if count},
        f"{reason[:1].upper()}{reason[1:]}, and training took all as much arithmetic: the cost of "
        "a prediction instead.",
    )


def pareto(places: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of (cost, accuracy) that no other has both cheaper and better, cheapest
    first.
    """
    order = sorted(range(len(places)), key=lambda one: (places[one][0], -places[one][1]))
    front: list[int] = []
    for one in order:
        if not front or places[one][1] > places[front[-1]][1]:
            front.append(one)
    return front


@styled
def headline(study: StudyResult) -> Figure:
    """Return test accuracy with both intervals against the cost, a point for each contestant and
    number of ranks, and the Pareto front.
    """
    label, places, _ = cost_of(study)
    figure = new_figure(5.6, 4.3)
    axes = figure.add_subplot(title="Accuracy against cost", xlabel=label, ylabel="test accuracy")
    marks, shown = marks_of(study), [each for each in study.contestants if each.key in places]
    costs = [places[each.key] for each in shown]
    xs = _places_of(figure, axes, costs)
    for each, x in zip(shown, xs, strict=True):
        draw_accuracy(axes, each, x, marks[each.name])
        top = max(tops(each))
        axes.annotate(str(each.ranks), (x, top), (0, 2), **NUMBER)
    means = [each.accuracy.mean for each in shown]
    best = pareto(list(zip(costs, means, strict=True)))
    _front(axes, [(xs[one], means[one]) for one in best])
    accuracy_axis(axes)
    _legend(figure, axes, study)
    return figure


GAP = 11.0  # points between two marks side by side: a mark and its number are narrower
FAR = 3  # gaps that a mark may be moved aside before its place tells another cost


class _Number(TypedDict):
    """How the number of ranks stands above a mark."""

    textcoords: Literal["offset points"]
    ha: Literal["center"]
    va: Literal["bottom"]
    fontsize: float


NUMBER: _Number = {"textcoords": "offset points", "ha": "center", "va": "bottom", "fontsize": 8}


def tops(each: ContestantResult) -> list[float]:
    """Return where the bars of a point end above, and the point itself."""
    bars = (each.accuracy.on_these_images, each.accuracy.on_new_images)
    return [each.accuracy.mean, *[ends[1] for ends in map(_ends, bars) if ends]]


def _places_of(figure: Figure, axes: Axes, costs: Sequence[float]) -> list[float]:
    """Set up the horizontal axis, and return the place of each cost on it: where it is, or a little
    beside others like it, or, where too many are alike, in groups of equal cost.
    """
    if not costs:
        return []
    _cost_axis(axes, costs)
    figure.draw_without_rendering()  # so that places on the paper are known
    points = figure.dpi / 72
    found = _beside(axes, costs, points)
    ends = [axes.transData.transform([(x, 0.5) for x in xs])[:, 0] for xs in (costs, found)]
    if np.abs(ends[1] - ends[0]).max() / points <= FAR * GAP:
        return found
    return _in_groups(axes, costs)


def _in_groups(axes: Axes, costs: Sequence[float]) -> list[float]:
    """Return places in which equal costs stand side by side, a tick for each cost, in its order."""
    from matplotlib.ticker import FixedFormatter, FixedLocator

    places, groups, x = [0.0] * len(costs), list[tuple[float, list[float]]](), 0.0
    for one in sorted(range(len(costs)), key=lambda one: costs[one]):
        if not groups or costs[one] > ALIKE * groups[-1][0]:
            x += 1.0 if groups else 0.0  # between groups
            groups.append((costs[one], []))
        places[one] = x
        groups[-1][1].append(x)
        x += 1.0
    axes.set_xscale("linear")
    axes.set_xlim(-1.0, x)
    axes.xaxis.set_major_locator(FixedLocator([float(np.mean(xs)) for _, xs in groups]))
    told = [_short_count(float(f"{cost:.3g}")) for cost, _ in groups]
    axes.xaxis.set_major_formatter(FixedFormatter(told))
    axes.grid(False, axis="x")
    for _, xs in groups[1:]:
        axes.axvline(xs[0] - 1.0, color=FAINT, linewidth=0.7, zorder=0)
    return places


def _beside(axes: Axes, places: Sequence[float], points: float) -> list[float]:
    """Return places on the horizontal axis of which those that nearly coincide are moved apart, so
    that all marks and their numbers are seen. points: pixels of a point.
    """
    on_paper = axes.transData.transform([(place, 0.5) for place in places])[:, 0] / points
    box = axes.get_window_extent()
    ends = (box.x0 / points + GAP, box.x1 / points - GAP)
    moved = apart(on_paper.tolist(), min(GAP, (ends[1] - ends[0]) / len(places)), ends)
    back = axes.transData.inverted().transform([(place * points, box.y0) for place in moved])
    return [float(x) for x in back[:, 0]]


def apart(places: Sequence[float], gap: float, ends: tuple[float, float]) -> np.ndarray:
    """Return the places nearest to those given (least squares), between both ends, of which no two
    are closer than `gap`; in the same order, equal ones as they come.

    What is left of each place without the gaps before it must not decrease: that is isotonic
    regression, by pooling adjacent violators (Barlow et al. 1972).
    """
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(order))
    pools: list[tuple[float, int]] = []  # mean, how many
    for value in np.asarray(places, float)[order] - steps:
        pools.append((float(value), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, many), (other, more) = pools[-2:]
            pools[-2:] = [((one * many + other * more) / (many + more), many + more)]
    level = np.repeat([mean for mean, _ in pools], [many for _, many in pools])
    found = np.empty(len(order))
    found[order] = np.clip(level, ends[0], ends[1] - gap * (len(order) - 1)) + steps
    return found


def _front(axes: Axes, places: Sequence[tuple[float, float]]) -> None:
    if len(places) > 1:
        axes.plot(
            *zip(*places, strict=True),
            color=INK,
            linestyle=(0, (4, 3)),
            linewidth=1.0,
            label="Pareto front",
            zorder=1,
        )


def draw_accuracy(
    axes: Axes, each: ContestantResult, x: float, mark: Mark, label: str = ""
) -> None:
    """Draw an accuracy with the interval on these images thick, on new images thin."""
    for found, width in ((each.accuracy.on_these_images, 2.4), (each.accuracy.on_new_images, 0.9)):
        if (ends := _ends(found)) is not None:
            axes.plot([x, x], ends, color=mark.color, linewidth=width, solid_capstyle="butt")
    axes.plot(
        [x],
        [each.accuracy.mean],
        marker=mark.marker,
        color=mark.color,
        markersize=7,
        markeredgecolor=INK,
        markeredgewidth=0.6,
        linestyle="none",
        label=label or None,
    )


def _ends(found: Range | None) -> list[float] | None:
    """Return the ends of an interval as far as accuracies go, None where it has none."""
    if found is None or text.missing(found.low) or text.missing(found.high):
        return None
    return [max(0.0, found.low), min(1.0, found.high)]


def _cost_axis(axes: Axes, places: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if places and max(places) > SPREAD * min(places):
        axes.set_xscale("log")
        axes.set_xlim(min(places) / 1.5, max(places) * 1.5)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
        if places:
            room = max(0.08 * (max(places) - min(places)), 0.02 * max(places))
            axes.set_xlim(min(places) - room, max(places) + 1.4 * room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_count(value)))


def _short_count(value: float) -> str:
    """Return "540,000", "1.08 M" or "3.25"."""
    return f"{value / 1e6:g} M" if abs(value) >= 1e6 else f"{value:,.10g}"


def _legend(figure: Figure, axes: Axes, study: StudyResult, front: bool = True) -> None:
    """Draw a legend below, an entry for each contestant."""
    from matplotlib.lines import Line2D

    labels = {each.name: each.label for each in study.contestants}
    handles = [
        Line2D(
            [],
            [],
            color=mark.color,
            marker=mark.marker,
            markeredgecolor=INK,
            markeredgewidth=0.6,
            linestyle="none" if front else mark.line,
            label=short(labels[name], 40),
        )
        for name, mark in marks_of(study).items()
    ]
    drawn = axes.get_legend_handles_labels()[0]
    figure.legend(handles=[*handles, *drawn], loc="outside lower center", ncols=2)


@styled
def accuracy_by_ranks(study: StudyResult) -> Figure:
    """Return test accuracy with both intervals against ranks, a line for each contestant."""
    figure = new_figure(5.6, 4.3)
    axes = figure.add_subplot(
        title="Accuracy against ranks", xlabel="ranks", ylabel="test accuracy"
    )
    marks, counts = marks_of(study), study.ranks
    places = _beside_each_other(study)
    for name, mark in marks.items():
        rows = sorted(
            (each for each in study.contestants if each.name == name), key=lambda one: one.ranks
        )
        xs = [places[each.key] for each in rows]
        axes.plot(
            xs,
            [each.accuracy.mean for each in rows],
            color=mark.color,
            linestyle=mark.line,
            linewidth=1.2,
        )
        for x, each in zip(xs, rows, strict=True):
            draw_accuracy(axes, each, x, mark)
    axes.set_xticks(range(len(counts)), [str(ranks) for ranks in counts])
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.grid(axis="x", visible=False)
    accuracy_axis(axes)
    _legend(figure, axes, study, front=False)
    return figure


def _beside_each_other(study: StudyResult) -> dict[str, float]:
    """Return where contestants stand on the axis of ranks: those of one number beside each other
    around it, by their names in pairs.
    """
    places: dict[str, float] = {}
    for place, ranks in enumerate(study.ranks):
        keys = [each.key for each in study.contestants if each.ranks == ranks]
        step = min(0.12, 0.6 / len(keys))
        places |= {key: place + step * (i - (len(keys) - 1) / 2) for i, key in enumerate(keys)}
    return places
