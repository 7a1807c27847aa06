"""The plot of a study that shows how old the networks were that gradients were computed with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ensync.report import text
from ensync.report.axes import new_figure, percent_axis, short
from ensync.report.study_figures import marks_of
from ensync.report.study_results import ContestantResult, StudyResult
from ensync.report.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def served(study: StudyResult) -> list[ContestantResult]:
    """Return the contestants whose gradients were of older networks."""
    return [each for each in study.contestants if each.staleness]


@styled
def staleness(study: StudyResult) -> Figure:
    """Return the share of gradients against the steps that their network was behind."""
    figure, shown = new_figure(5.6, 3.6), served(study)
    axes = figure.add_subplot(
        title="Age of the networks of gradients", xlabel="steps behind", ylabel="gradients"
    )
    marks, width = marks_of(study), 0.8 / len(shown)
    for place, each in enumerate(shown):
        counts = np.array(each.staleness, float)
        axes.bar(
            np.arange(len(counts)) + (place - (len(shown) - 1) / 2) * width,
            counts / max(counts.sum(), 1),
            width,
            color=marks[each.name].color,
            alpha=1 - 0.5 * place / len(shown),
            label=short(f"{each.label}, {text.plural(each.ranks, 'rank')}", 44),
        )
    percent_axis(axes)
    axes.set_xticks(range(max(len(each.staleness) for each in shown)))
    figure.legend(loc="outside lower center", ncols=2)
    return figure
