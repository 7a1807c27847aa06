"""Learning curves: the accuracy against epochs, and against seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensync.report import text
from ensync.report.axes import (
    Look,
    accuracy_axis,
    colors_of,
    error_axis,
    new_figure,
    whole_axis,
)
from ensync.report.results import Contestant, Record
from ensync.report.style import INK, mark_of, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Records = Sequence[Record]
WIDE = 0.1  # accuracies further apart than this may get an axis by the logarithm of their errors
MARKS_OF_A_CURVE = 6


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
    look: Look = {"alpha": 0.45 if broad else 0.9 if alone else dense}
    epochs = len(members[0])
    between = max(1, epochs // MARKS_OF_A_CURVE)
    for place, member in enumerate(members):
        axes.plot(
            *_points(member, x, "train_accuracy"),
            "--",
            color=color,
            marker="o" if epochs < 3 else "",
            markerfacecolor="none",
            linewidth=2.2 if broad else 1.1 if alone else 0.8,
            **look,
        )
        axes.plot(
            *_points(member, x, "validation_accuracy"),
            "-",
            color=color,
            marker=mark_of(name),
            markersize=9 if broad else 5,
            markeredgewidth=0,
            markevery=((len(member) - 1) % between, between),  # the last one, too
            linewidth=4 if broad else 1.8 if alone else 1.0,
            label=label if place == 0 else None,
            **look,
        )


def _learning_figure(
    histories: Mapping[str, Records], x: str, title: str, xlabel: str
) -> tuple[Figure, Axes]:
    figure = new_figure(6.4, 4.4)
    axes = figure.add_subplot(title=title, xlabel=xlabel, ylabel="accuracy")
    for name, color in colors_of(list(histories)).items():
        if histories[name]:
            _learning_curves(axes, name, histories[name], x, color)
    return figure, axes


def _spread(axes: Axes) -> None:
    """Give the accuracies their axis: one by the logarithm of errors where the first epochs would
    press the better half of all points into a fifth of the height.
    """
    drawn = np.concatenate([line.get_ydata() for line in axes.get_lines()] or [[0.0]])
    known = drawn[np.isfinite(drawn)]
    best, middle, least = (known.max(), np.median(known), known.min()) if len(known) else (0, 0, 0)
    wide = best - least > WIDE and 5 * (best - middle) < best - least
    (error_axis if wide else accuracy_axis)(axes)


def _legend(figure: Figure, axes: Axes, *more: Look) -> None:
    """Draw the legend of learning curves below them: the strategies, then what solid and dashed
    mean, then `more`.
    """
    from matplotlib.lines import Line2D

    kinds: list[Look] = [
        {"label": "validation", "linewidth": 1.6},
        {"label": "training", "linewidth": 1.1, "linestyle": "--"},
        *more,
    ]
    legend = figure.legend(
        handles=axes.get_legend_handles_labels()[0]
        + [Line2D([], [], color=INK, **kind) for kind in kinds],
        loc="outside lower center",
        ncols=3,
    )
    for line in legend.get_lines():
        line.set_alpha(max(0.45, line.get_alpha() or 1))


@styled
def accuracy_by_epoch(histories: Mapping[str, Records]) -> Figure:
    """Return accuracy against epochs from history records by strategy."""
    figure, axes = _learning_figure(histories, "epoch", "Accuracy after each epoch", "epoch")
    last = [record["epoch"] for records in histories.values() for record in records]
    if last:
        whole_axis(axes, 1, max(last))
    _spread(axes)
    _legend(figure, axes)
    return figure


@styled
def accuracy_by_seconds(
    histories: Mapping[str, Records], results: Mapping[str, tuple[float, float]] | None = None
) -> Figure:
    """Return accuracy against the seconds since training began, from history records by strategy.

    results: by strategy the seconds and the test accuracy in the end, of the fused members for an
    ensemble; shown as large marks.
    """
    figure, axes = _learning_figure(
        histories, "elapsed", "Accuracy against time", "time since training began (s)"
    )
    large: Look = {"markersize": 11, "linestyle": "none", "markeredgewidth": 1.0}
    for name, color in colors_of(list(histories)).items():
        if results and name in results:
            seconds, accuracy = results[name]
            axes.plot(
                [seconds],
                [accuracy],
                color=color,
                marker=mark_of(name),
                markeredgecolor=INK,
                zorder=4,
                **large,
            )
    axes.set_xlim(left=0)
    _spread(axes)
    test: Look = {"marker": "o", "markerfacecolor": "none", "label": "test, in the end"}
    _legend(figure, axes, *([large | test] if results else []))
    return figure
