"""The plots of a prediction, each a function from its rows to a matplotlib Figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ensync.core.scaling.noise import Together, soonest
from ensync.core.scaling.prediction import Calibration
from ensync.core.scaling.steps import curves
from ensync.report import text
from ensync.report.axes import SPREAD, new_figure
from ensync.report.scale_results import ScaleRow
from ensync.report.scale_tables import BOUNDS
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

PART_COLORS = {
    "shared": BLUE,
    "small": SKY,
    "update": GREEN,
    "waiting": FAINT,
    "node": PURPLE,
    "latency": GREY,
    "bandwidth": ORANGE,
}
HATCHES = ("", "//", "..", "xx", "\\\\", "--", "++")  # so that no part rests on its colour
MOST_TICKS = 12


def ranks_axis(axes: Axes, ranks: Sequence[int]) -> None:
    """Give ranks a logarithmic axis, whose ticks are theirs."""
    axes.set_xscale("log", base=2)
    shown = ranks if len(ranks) <= MOST_TICKS else ranks[:: -(-len(ranks) // MOST_TICKS)]
    axes.set_xticks(shown, [f"{count:,}" for count in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("ranks")


def value_axis(axes: Axes, values: Sequence[float]) -> None:
    """Give values an axis from zero, or a logarithmic one where they are far apart."""
    if max(values) > SPREAD * min(values):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


@styled
def epochs(rows: Sequence[ScaleRow]) -> Figure:
    """Return the seconds of an epoch against ranks, a line for each strategy, and where they would
    be if each rank did what one does alone.
    """
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot(title="Seconds of an epoch", ylabel="seconds")
    labels = list(dict.fromkeys(row.label for row in rows))
    for label, color, mark in zip(labels, SERIES * len(labels), MARKS * len(labels)):
        mine = sorted((row for row in rows if row.label == label), key=lambda row: row.ranks)
        x, y = [row.ranks for row in mine], [row.epoch_seconds for row in mine]
        axes.plot(x, y, color=color, marker=mark, label=label)
    ranks = sorted({row.ranks for row in rows})
    one = max((row for row in rows if row.ranks == ranks[0]), key=lambda row: row.epoch_seconds)
    ideal = [one.epoch_seconds * ranks[0] / count for count in ranks]
    axes.plot(ranks, ideal, ":", color=INK, linewidth=1.2, label="ideal")
    axes.set_yscale("log")
    ranks_axis(axes, ranks)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled
def parts(rows: Sequence[ScaleRow]) -> Figure:
    """Return what a step of one strategy is made of, a bar for each number of ranks."""
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot(title=f"What a step is made of: {rows[0].label}", xlabel="ranks")
    axes.set_ylabel("milliseconds")
    below = [0.0] * len(rows)
    for (name, color), hatch in zip(PART_COLORS.items(), HATCHES):
        values = [1e3 * getattr(row.parts, name) for row in rows]
        if max(values) <= 0:
            continue
        axes.bar(
            range(len(rows)),
            values,
            bottom=below,
            color=color,
            hatch=hatch,
            edgecolor=INK,
            linewidth=0.4,
            label=BOUNDS[name],
        )
        below = [before + value for before, value in zip(below, values)]
    axes.set_xticks(range(len(rows)), [f"{row.ranks:,}" for row in rows])
    axes.grid(False, axis="x")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@styled
def same_loss(rows: Sequence[Together]) -> Figure:
    """Return the time to the same loss against the ranks that train one network, with the batch
    that is best for them, and the soonest of all marked.
    """
    figure = new_figure(6.4, 3.8)
    axes = figure.add_subplot(
        title="Time to the same loss, with the best batch",
        ylabel="times one rank with the job's batch",
    )
    axes.plot([row.ranks for row in rows], [row.time for row in rows], color=BLUE, marker="o")
    for row in rows[:: -(-len(rows) // MOST_TICKS)]:
        axes.annotate(
            text.count(row.batch),
            (row.ranks, row.time),
            (0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    best = soonest(rows)
    axes.plot([best.ranks], [best.time], "*", color=ORANGE, markersize=15, label="soonest")
    axes.margins(y=0.15)
    value_axis(axes, [row.time for row in rows])
    ranks_axis(axes, [row.ranks for row in rows])
    figure.legend(loc="outside lower center")
    return figure


@styled
def measured_steps(calibration: Calibration) -> Figure:
    """Return the measured seconds of a step against the samples of a rank, a line for each number
    of threads.
    """
    figure = new_figure(6.4, 3.6)
    axes = figure.add_subplot(
        title="Measured steps of one rank", xlabel="samples", ylabel="milliseconds"
    )
    for (threads, curve), color, mark in zip(curves(calibration.steps).items(), SERIES, MARKS):
        rows = [point.rows for point in curve.points]
        values = [1e3 * point.mean for point in curve.points]
        label = text.plural(threads, "thread")
        axes.plot(rows, values, color=color, marker=mark, label=label)
    axes.set_xscale("log", base=2)
    rows = sorted({point.rows for point in calibration.steps})
    axes.set_xticks(rows, [f"{count:,}" for count in rows])
    axes.set_xticks([], minor=True)
    value_axis(axes, [1e3 * point.mean for point in calibration.steps])
    figure.legend(loc="outside lower center", ncols=4)
    return figure
