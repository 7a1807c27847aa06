"""The plots of a study that look closer: members, reliability and pairs, each a function from its
result to a matplotlib Figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensync.report import text
from ensync.report.axes import Lettering, accuracy_axis, new_figure, short, whole_axis
from ensync.report.study_figures import Mark, marks_of
from ensync.report.study_results import (
    ContestantResult,
    ReliabilityBin,
    SizeFigures,
    StudyResult,
)
from ensync.report.study_text import points
from ensync.report.study_verdict import told_on_a_page
from ensync.report.style import GREY, INK, RIGHT, WRONG, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIAGRAMS = 6  # reliability diagrams on the page at most


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


def by_size(each: ContestantResult) -> Sequence[SizeFigures]:
    """Return what a contestant reached with 1, 2, ... of its members; nothing of one network."""
    return each.member_figures.by_size if each.member_figures else []


@styled
def accuracy_by_size(study: StudyResult) -> Figure:
    """Return test accuracy against the number of members fused, mean and spread over subsets."""
    figure = new_figure(5.6, 3.8)
    axes = figure.add_subplot(
        title="Accuracy against members fused", xlabel="members fused", ylabel="test accuracy"
    )
    marks, most = marks_of(study), 1
    for each in grown(study):
        sizes = [one for one in by_size(each) if one.accuracy is not None]
        mark = marks[each.name]
        xs = [size.members for size in sizes]
        most = max(most, *xs)
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
    accuracy_axis(axes)
    whole_axis(axes, 1, most)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def likelihood_by_size(study: StudyResult) -> Figure:
    """Return calibrated log-likelihood against the number of members fused, and the power law."""
    figure = new_figure(5.6, 3.8)
    axes = figure.add_subplot(
        title="Calibrated log-likelihood against members fused",
        xlabel="members fused",
        ylabel="log-likelihood (nats)",
    )
    marks, lawful = marks_of(study), False
    for each in grown(study):
        mark = marks[each.name]
        known = [one for one in by_size(each) if one.log_likelihood is not None]
        axes.plot(
            [one.members for one in known],
            [one.log_likelihood or 0.0 for one in known],
            color=mark.color,
            marker=mark.marker,
            linestyle="none",
            label=_called(each),
        )
        law = [one for one in by_size(each) if one.predicted is not None]
        axes.plot(
            [one.members for one in law],
            [one.predicted or 0.0 for one in law],
            color=mark.color,
            linestyle=mark.line,
            linewidth=1.2,
            label=None if lawful or not law else "power law, fitted on few",
        )
        lawful = lawful or bool(law)
    sizes = [size for each in grown(study) for size in by_size(each)]
    whole_axis(axes, 1, max((size.members for size in sizes), default=1))
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
    figure = new_figure(max(2.9 * columns, 4.2), 3.0 * rows + 0.8)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    low = _lowest([*each.reliability, *each.reliability_calibrated] for each in contestants)
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
        axes.set(aspect="equal", xlim=(low, 1.02), ylim=(low, 1.02))
    for axes in list(grid.flat)[len(contestants) :]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("confidence")
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _lowest(bins: Iterable[Sequence[ReliabilityBin]]) -> float:
    """Return where the axes of reliability diagrams begin: a tenth below all bins."""
    least = min(min(one.confidence, one.accuracy) for each in bins for one in each)
    return max(0.0, math.floor(10 * least - 0.5) / 10)


@styled
def differences(study: StudyResult, ranks: int) -> Figure:
    """Return the matrix of paired differences on a number of ranks: row - column in points of
    accuracy, blue where the row is better, orange where it is worse; bold: told apart, also after
    Holm's correction.
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
            told = told_on_a_page(pair)
            mark = {"equal": "\n=", "unknown": "\n?"}.get(pair.verdict, "")
            axes.text(
                j,
                i,
                points(pair.difference, sign=True) + mark,
                color=INK,
                weight="bold" if told else "normal",
                **centred,
            )
    names = [short(study.by_key(key).label, 26) for key in keys]
    axes.set(xlim=(-0.5, len(keys) - 0.5), ylim=(len(keys) - 0.5, -0.5))
    axes.set_xticks(range(len(keys)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(keys)), names)
    axes.tick_params(length=0)
    return figure
