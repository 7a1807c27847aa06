"""The plots of members, of a sweep and of a scaling, each a function from plain numbers to a
matplotlib Figure.

`style.to_svg` and `style.save_png` write them. Only matplotlib's object interface is used, so that
nothing here has a state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensync.core.fusion import fusion_label
from ensync.core.statistics import share_interval
from ensync.report import text
from ensync.report.axes import (
    accuracy_axis,
    colors_of,
    draw_crosses,
    new_figure,
    percent_axis,
    short,
    value_axis,
    whole_axis,
)
from ensync.report.results import ScalingRow, SweepRow
from ensync.report.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MARKS,
    ORANGE,
    PAPER,
    SERIES,
    mark_of,
    styled,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HOLLOW = "more threads than cores: no measure"


@styled
def accuracy_by_members(fusions: Mapping[str, Sequence[float]]) -> Figure:
    """Return test accuracy against the number of fused members: for each fusion the accuracies
    of 1, 2, ... members.
    """
    figure = new_figure(6.4, 3.6)
    axes = figure.add_subplot(
        title="Test accuracy of the first 1, 2, ... members fused",
        xlabel="members fused",
        ylabel="test accuracy",
    )
    for (name, values), color, mark in zip(
        fusions.items(), SERIES * len(fusions), MARKS * len(fusions)
    ):
        known = [np.nan if value is None else value for value in values]
        axes.plot(
            range(1, len(known) + 1), known, color=color, marker=mark, label=fusion_label(name)
        )
    most = max(map(len, fusions.values()), default=1)
    axes.set_xlim(1 - min(0.9, 0.04 * most), most + 0.04 * most)
    accuracy_axis(axes)
    whole_axis(axes, 1, most)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled
def sweep(key: str, rows: Sequence[SweepRow]) -> Figure:
    """Return accuracy with its 95 % interval and seconds, one above the other, against the values
    of the swept setting `key`; seconds are hollow where there were more threads than cores.
    """
    figure = new_figure(6.4, 5.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    places, labels = _sweep_places([row.value for row in rows])
    line = {"test": "-", "validation": "--", "seconds": "-"}
    for axes, name, column, color, mark in (
        (upper, "test", "test_accuracy", BLUE, "o"),
        (upper, "validation", "validation_accuracy", GREEN, "s"),
        (lower, "seconds", "seconds", ORANGE, "D"),
    ):
        axes.plot(
            places,
            _column(rows, column),
            linestyle="none" if labels else line[name],
            marker=mark,
            color=color,
            label=name,
        )
    for column, images, color, aside in (
        ("test_accuracy", "test_images", BLUE, -2.0),
        ("validation_accuracy", "validation_images", GREEN, 2.0),
    ):
        shares = zip(places, _column(rows, column), _column(rows, images))
        _draw_intervals(upper, list(shares), color, aside)
    accuracy_axis(upper)
    lost = [place for place, row in zip(places, rows) if row.test_accuracy is None]
    draw_crosses(upper, lost, "no result")
    upper.set(title=f"What {key} does to accuracy and time", ylabel="accuracy")
    lower.set(xlabel=key, ylabel="training time (s)")
    lower.set_ylim(0, 1.12 * np.nanmax([*_column(rows, "seconds"), 1e-9]))
    hollow = [
        each for each in zip(places, _column(rows, "seconds"), rows) if each[2].oversubscribed
    ]
    _draw_hollow(lower, [(place, seconds) for place, seconds, _ in hollow], "D", ORANGE)
    value_axis(lower, places, labels)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _draw_intervals(
    axes: Axes, shares: Sequence[tuple[float, float, float]], color: str, aside: float
) -> None:
    """Draw the 95 % interval of each of `shares`: place, accuracy, images that it is a share of;
    so many points beside its place, that others are seen.
    """
    from matplotlib.transforms import ScaledTranslation

    beside = ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    for place, accuracy, images in shares:
        if np.isfinite(accuracy) and np.isfinite(images):
            found = share_interval(accuracy, int(images))
            ends = [found.low, found.high]
            moved = axes.transData + beside
            axes.plot([place, place], ends, color=color, linewidth=1.2, transform=moved)
            axes.update_datalim([(place, end) for end in ends])
    axes.autoscale_view()


def _draw_hollow(axes: Axes, places: Sequence[tuple[float, float]], mark: str, color: str) -> None:
    """Draw marks anew as hollow ones: what was measured there is no measure of time."""
    if places:
        axes.plot(
            *zip(*places),
            marker=mark,
            color=color,
            markerfacecolor=PAPER,
            linestyle="none",
            label=HOLLOW,
            zorder=3,
        )


def _column(rows: Sequence[SweepRow] | Sequence[ScalingRow], name: str) -> list[float]:
    values = [getattr(row, name) for row in rows]
    return [np.nan if value is None else value for value in values]


def _sweep_places(values: Sequence[object]) -> tuple[list[float], list[str] | None]:
    """Return where the values stand on the axis: numbers where they are, names one after the
    other with their labels.
    """
    numbers: list[float] = [
        value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    if len(numbers) == len(values):
        return numbers, None
    return list(range(len(values))), [short(str(value), 24) for value in values]


@styled
def scaling(series: Mapping[str, Sequence[ScalingRow]]) -> Figure:
    """Return speed-up and efficiency against ranks, from the rows by strategy, with the ideal;
    hollow where there were more threads than cores.
    """
    figure = new_figure(8.0, 4.0)
    left, right = figure.subplots(1, 2)
    ranks = sorted({row.ranks for rows in series.values() for row in rows})
    left.plot(ranks, ranks, ":", color=GREY, label="ideal")
    right.plot(ranks, [1.0] * len(ranks), ":", color=GREY)
    for name, color in colors_of(list(series)).items():
        rows = sorted(series[name], key=lambda row: row.ranks)
        for axes, column in ((left, "speedup"), (right, "efficiency")):
            values = _column(rows, column)
            axes.plot(
                [row.ranks for row in rows],
                values,
                marker=mark_of(name),
                color=color,
                label=name if axes is left else None,
            )
            beyond = [(row.ranks, value) for row, value in zip(rows, values) if row.oversubscribed]
            _draw_hollow(axes, beyond, mark_of(name), color)
    left.set(title="Speed-up over one rank", xlabel="ranks", ylabel="times as fast")
    right.set(title="Efficiency of each rank", xlabel="ranks", ylabel="efficiency")
    right.set_ylim(0, max(1.05, right.get_ylim()[1]))
    percent_axis(right)
    for axes in (left, right):
        value_axis(axes, ranks, None)
    if left.get_xscale() == "log":
        left.set_yscale("log")
        left.set_yticks(ranks, [str(rank) for rank in ranks])
        left.set_yticks([], minor=True)
    handles = dict(zip(*reversed(left.get_legend_handles_labels())))  # one for each label
    if (last := handles.pop(HOLLOW, None)) is not None:
        handles[HOLLOW] = last
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4)
    return figure


@styled
def accuracy_of_members(
    accuracies: Sequence[float | None],
    fused: Mapping[str, float] | None = None,
    title: str = "Accuracy of each member",
) -> Figure:
    """Return a point for each member's accuracy (a cross for a lost one) and a line for each fusion
    of them.

    Points, since bars would have to begin at 0 %, where no difference could be seen.
    """
    figure = new_figure(6.4, 3.2)
    axes = figure.add_subplot(title=title, xlabel="member", ylabel="accuracy")
    known = [np.nan if text.missing(value) else value for value in accuracies]
    axes.plot(known, "o", color=ORANGE, markersize=8, label="member")
    if len(known) <= 12:
        for member, value in enumerate(known):
            axes.annotate(
                text.percent(value, 1),
                (member, value),
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
    for (name, value), color, line in zip(
        (fused or {}).items(), (BLUE, GREEN, INK) * 2, ("-", "--", ":") * 2
    ):
        axes.axhline(value, color=color, linestyle=line, linewidth=1.6, label=fusion_label(name))
    axes.margins(x=max(0.03, 0.5 / len(known)), y=0.25)
    lost = [member for member, value in enumerate(known) if np.isnan(value)]
    accuracy_axis(axes)
    draw_crosses(axes, lost, "lost")
    whole_axis(axes, 0, len(known) - 1)
    if fused or lost:
        figure.legend(loc="outside lower center", ncols=6)
    return figure
