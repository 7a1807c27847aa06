"""Learning curves: the accuracy against epochs, and against seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensync.report import text
from ensync.report.axes import Look, colors_of, new_figure, percent_axis, whole_axis
from ensync.report.results import Contestant, Record
from ensync.report.style import INK, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Records = Sequence[Record]


def _by_member(records: Records) -> list[Records]:
    members = sorted({record.get("member", 0) for record in records})
    return [
        [record for record in records if record.get("member", 0) == member] for member in members
    ]


def _points(records: Records, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y as float64; missing figures are gaps (NaN)."""
    rows = [(record.get(x), record.get(y)) for record in records]
    xs, ys = (
        np.array([np.nan if value is None else value for value in column], dtype=float)
        for column in zip(*rows)
    )
    return xs, ys


def _learning_curves(axes: Axes, name: str, records: Records, x: str, color: str) -> None:
    """Draw train dashed and validation solid; several members thin, each its own lines; one rank
    broad and pale, as others may hide it.
    """
    members = _by_member(records)
    alone, broad = len(members) == 1, name == Contestant.ONE_RANK
    label = name if alone else f"{name}: {text.plural(len(members), 'member')}"
    dense = min(0.75, 0.1 + 3 / len(members))
    look: Look = {
        "marker": "o" if len(members[0]) < 3 else "",
        "alpha": 0.45 if broad else 0.9 if alone else dense,
    }
    for place, member in enumerate(members):
        axes.plot(
            *_points(member, x, "train_accuracy"),
            "--",
            color=color,
            markerfacecolor="none",
            linewidth=2.2 if broad else 1.1 if alone else 0.8,
            **look,
        )
        axes.plot(
            *_points(member, x, "validation_accuracy"),
            "-",
            color=color,
            linewidth=4 if broad else 1.8 if alone else 1.0,
            label=label if place == 0 else None,
            **look,
        )


def _learning_figure(
    histories: Mapping[str, Records], x: str, title: str, xlabel: str
) -> tuple[Figure, Axes]:
    figure = new_figure()
    axes = figure.add_subplot(title=title, xlabel=xlabel, ylabel="accuracy")
    for name, color in colors_of(list(histories)).items():
        if histories[name]:
            _learning_curves(axes, name, histories[name], x, color)
    _cut_start(axes)
    percent_axis(axes)
    return figure, axes


def _cut_start(axes: Axes) -> None:
    """Let the first epochs leave at the lower edge where they would press the rest into a line."""
    accuracies = np.concatenate([line.get_ydata() for line in axes.get_lines()] or [[0.0]])
    accuracies = accuracies[np.isfinite(accuracies)]
    best, middle, least = (
        (accuracies.max(), np.median(accuracies), accuracies.min())
        if len(accuracies)
        else (0, 0, 0)
    )
    bottom = best - max(5 * (best - middle), 0.02)
    if bottom > least:
        axes.set_ylim(bottom, best + 0.05 * (best - bottom))


def _legend(axes: Axes, *more: Look) -> None:
    """Draw the legend of learning curves: the strategies, then what solid and dashed mean, then
    `more`.
    """
    from matplotlib.lines import Line2D

    kinds: list[Look] = [
        {"label": "validation", "linewidth": 1.6},
        {"label": "training", "linewidth": 1.1, "linestyle": "--"},
        *more,
    ]
    legend = axes.legend(
        handles=axes.get_legend_handles_labels()[0]
        + [Line2D([], [], color=INK, **kind) for kind in kinds]
    )
    for line in legend.get_lines():
        line.set_alpha(max(0.45, line.get_alpha() or 1))


@styled
def accuracy_by_epoch(histories: Mapping[str, Records]) -> Figure:
    """Return accuracy against epochs from history records by strategy."""
    figure, axes = _learning_figure(histories, "epoch", "Accuracy after each epoch", "epoch")
    whole_axis(axes)
    _legend(axes)
    return figure


@styled
def accuracy_by_seconds(
    histories: Mapping[str, Records], results: Mapping[str, tuple[float, float]] | None = None
) -> Figure:
    """Return accuracy against the seconds since training began, from history records by strategy.

    results: by strategy the seconds and the test accuracy in the end, of the fused members for an
    ensemble; shown as stars.
    """
    figure, axes = _learning_figure(
        histories, "elapsed", "Accuracy against time", "time since training began (s)"
    )
    star: Look = {"marker": "*", "markersize": 11, "linestyle": "none", "markeredgewidth": 0}
    for name, color in colors_of(list(histories)).items():
        if results and name in results:
            seconds, accuracy = results[name]
            axes.plot([seconds], [accuracy], color=color, **star)
            axes.set_ylim(min(axes.get_ylim()[0], accuracy - 0.01))
    axes.set_xlim(left=0)
    _legend(axes, *([star | {"label": "test, in the end"}] if results else []))
    return figure
