"""The plots of a study, each a function from its result to a matplotlib Figure.

A contestant has the same colour and the same mark in every plot, so that none rests on colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensync.report import text
from ensync.report.axes import SPREAD, Lettering, new_figure, percent_axis, short, whole_axis
from ensync.report.study_results import ContestantResult, Range, StudyResult
from ensync.report.study_verdict import points
from ensync.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MARKS,
    ORANGE,
    PURPLE,
    RIGHT,
    SERIES,
    SKY,
    WRONG,
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
    "shared_start": (GREEN, "v"),
}
LINES = ("-", "--", "-.", ":")
DIAGRAMS = 6  # reliability diagrams on the page at most


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


def cost_of(study: StudyResult) -> tuple[str, dict[str, float]]:
    """Return what the headline's horizontal axis is, and each contestant's place on it:
    core-seconds where all were measured alone, else samples.
    """
    everyone = study.contestants
    if everyone and all(each.cost.timed for each in everyone):
        found = {each.key: each.cost.core_seconds for each in everyone}
        places = {key: spread.mean for key, spread in found.items() if spread}
        return "core-seconds", {key: mean for key, mean in places.items() if mean}
    samples = {each.key: each.cost.samples for each in everyone}
    return "samples trained on, all networks", {key: n for key, n in samples.items() if n}


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
    label, places = cost_of(study)
    figure = new_figure(6.4, 4.6)
    axes = figure.add_subplot(title="Accuracy against cost", xlabel=label, ylabel="test accuracy")
    marks, shown = marks_of(study), [each for each in study.contestants if each.key in places]
    _front(axes, [(places[each.key], each.accuracy.mean) for each in shown])
    for each, x in zip(shown, _dodged([places[each.key] for each in shown]), strict=True):
        _point(axes, each, x, marks[each.name])
        annotation = f"{each.ranks}"
        axes.annotate(
            annotation, (x, each.accuracy.mean), (6, 4), textcoords="offset points", fontsize=8
        )
    _cost_axis(axes, [places[each.key] for each in shown])
    percent_axis(axes)
    _legend(figure, axes, study)
    return figure


def _dodged(places: Sequence[float]) -> list[float]:
    """Return places of which equal ones are moved a little apart, so that all are seen."""
    found: list[float] = []
    seen: dict[float, int] = {}
    span = max(places, default=0.0) - min(places, default=0.0)
    step = 0.012 * (span or max(places, default=1.0))
    counts = {place: places.count(place) for place in places}
    for place in places:
        turn = seen[place] = seen.get(place, -1) + 1
        found.append(place + step * (turn - (counts[place] - 1) / 2))
    return found


def _front(axes: Axes, places: Sequence[tuple[float, float]]) -> None:
    front = [places[one] for one in pareto(places)]
    if len(front) > 1:
        axes.plot(
            *zip(*front, strict=True),
            color=INK,
            linestyle=(0, (4, 3)),
            linewidth=1.0,
            label="Pareto front",
            zorder=1,
        )


def _point(axes: Axes, each: ContestantResult, x: float, mark: Mark, label: str = "") -> None:
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
    if found is None or text.missing(found.low) or text.missing(found.high):
        return None
    return [found.low, found.high]


def _cost_axis(axes: Axes, places: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if places and max(places) > SPREAD * min(places):
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
        if places:
            room = max(0.08 * (max(places) - min(places)), 0.02 * max(places))
            axes.set_xlim(min(places) - room, max(places) + 1.4 * room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short_count(value)))


def _short_count(value: float) -> str:
    """Return "540,000" or "1.08 M"."""
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
    figure = new_figure(6.4, 4.6)
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
            _point(axes, each, x, mark)
    axes.set_xticks(range(len(counts)), [str(ranks) for ranks in counts])
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.grid(axis="x", visible=False)
    percent_axis(axes)
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


def grown(study: StudyResult) -> list[ContestantResult]:
    """Return of each contestant of several networks the one with most of them."""
    most: dict[str, ContestantResult] = {}
    for each in study.contestants:
        found = each.member_figures
        if found is None or len(found.by_size) < 2:
            continue
        if each.name not in most or each.members > most[each.name].members:
            most[each.name] = each
    return list(most.values())


@styled
def accuracy_by_size(study: StudyResult) -> Figure:
    """Return test accuracy against the number of members fused, mean and spread over subsets."""
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot(
        title="Accuracy against members fused", xlabel="members fused", ylabel="test accuracy"
    )
    marks = marks_of(study)
    for each in grown(study):
        assert each.member_figures is not None
        sizes = [one for one in each.member_figures.by_size if one.accuracy is not None]
        mark = marks[each.name]
        xs = [size.members for size in sizes]
        means = np.array([size.accuracy or 0.0 for size in sizes])
        sds = np.array([size.sd or 0.0 for size in sizes])
        axes.fill_between(xs, means - sds, means + sds, color=mark.color, alpha=0.18, linewidth=0)
        axes.plot(
            xs,
            means,
            color=mark.color,
            marker=mark.marker,
            linestyle=mark.line,
            label=_called(each),
        )
    percent_axis(axes)
    whole_axis(axes)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def likelihood_by_size(study: StudyResult) -> Figure:
    """Return calibrated log-likelihood against the number of members fused, and the power law."""
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot(
        title="Calibrated log-likelihood against members fused",
        xlabel="members fused",
        ylabel="log-likelihood (nats)",
    )
    marks, lawful = marks_of(study), False
    for each in grown(study):
        assert each.member_figures is not None
        mark = marks[each.name]
        known = [one for one in each.member_figures.by_size if one.log_likelihood is not None]
        axes.plot(
            [one.members for one in known],
            [one.log_likelihood or 0.0 for one in known],
            color=mark.color,
            marker=mark.marker,
            linestyle="none",
            label=_called(each),
        )
        law = [one for one in each.member_figures.by_size if one.predicted is not None]
        axes.plot(
            [one.members for one in law],
            [one.predicted or 0.0 for one in law],
            color=mark.color,
            linewidth=1.2,
            label=None if lawful or not law else "power law, fitted on few",
        )
        lawful = lawful or bool(law)
    whole_axis(axes)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _called(each: ContestantResult) -> str:
    return short(f"{each.label}, {text.plural(each.ranks, 'rank')}", 44)


@styled
def reliability(contestants: Sequence[ContestantResult], marks: Sequence[Mark]) -> Figure:
    """Return a reliability diagram for each contestant: accuracy against confidence in bins of
    equal mass, before and after calibration.
    """
    columns = min(3, len(contestants))
    rows = math.ceil(len(contestants) / columns)
    figure = new_figure(max(2.9 * columns, 4.2), 2.9 * rows + 0.5)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, each, mark in zip(grid.flat, contestants, marks):
        axes.plot([0, 1], [0, 1], ":", color=INK, linewidth=1, label="perfect")
        for bins, line, marker, label in (
            (each.reliability, "-", mark.marker, "as trained"),
            (each.reliability_calibrated, "--", "", "after temperature"),
        ):
            axes.plot(
                [one.confidence for one in bins],
                [one.accuracy for one in bins],
                color=mark.color if marker else INK,
                linestyle=line,
                marker=marker,
                markersize=3.5,
                linewidth=1.2,
                label=label,
            )
        axes.set_title(short(each.label, 26), fontsize=9)
        axes.set(aspect="equal", xlim=(0, 1.02), ylim=(0, 1.02))
    for axes in list(grid.flat)[len(contestants) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("confidence")
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


@styled
def differences(study: StudyResult, ranks: int) -> Figure:
    """Return the matrix of paired differences on a number of ranks: row - column in points of
    accuracy, blue where the row is better, orange where it is worse; bold: told apart.
    """
    from matplotlib.patches import Rectangle

    pairs = [pair for pair in study.pairs if pair.ranks == ranks]
    keys = list(dict.fromkeys(key for pair in pairs for key in (pair.first, pair.second)))
    keys.sort(key=lambda key: -study.by_key(key).accuracy.mean)
    side = 1.9 + 0.72 * len(keys)
    figure = new_figure(side + 0.6, side)
    axes = figure.add_subplot(
        title=f"Row less column, in points, {text.plural(ranks, 'rank')}", aspect="equal"
    )
    axes.grid(False)
    axes.spines[:].set_visible(False)
    most = max((abs(pair.difference) for pair in pairs), default=0.0) or 1.0
    for i, row in enumerate(keys):
        for j, column in enumerate(keys):
            pair = study.pair(row, column)
            centred: Lettering = {"ha": "center", "va": "center", "fontsize": 8}
            if pair is None:
                axes.text(j, i, "\N{MIDDLE DOT}", color=GREY, **centred)
                continue
            shade = 0.06 + 0.34 * abs(pair.difference) / most
            color = RIGHT if pair.difference > 0 else WRONG
            axes.add_patch(
                Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=color, alpha=shade, linewidth=0)
            )
            told = pair.verdict in ("first", "second")
            mark = {"equal": "\n=", "unknown": "\n?"}.get(pair.verdict, "")
            axes.text(
                j,
                i,
                points(pair.difference, sign=True) + mark,
                color=INK,
                weight="bold" if told else "normal",
                **centred,
            )
    names = [short(study.by_key(key).label, 22) for key in keys]
    axes.set(xlim=(-0.5, len(keys) - 0.5), ylim=(len(keys) - 0.5, -0.5))
    axes.set_xticks(range(len(keys)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(keys)), names)
    axes.tick_params(length=0)
    return figure
