"""The figures of a page: drawings of a comparison's or a sweep's plots, and of intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from ensync.report import text
from ensync.report.results import Comparison, Contestant, Scaling, Sweep
from ensync.report.verdict import accuracy, rows_to_compare

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

    from ensync.core.statistics import Interval


class Drawing(TypedDict):
    """A figure of the page, as the template takes it."""

    svg: Markup
    caption: str


def draw_interval(
    interval: Interval | None, all_intervals: Sequence[Interval | None]
) -> Markup | str:
    """Return a small drawing of an accuracy's interval on the scale that all rows share; its
    figures are the tooltip.
    """
    from markupsafe import Markup

    if interval is None:
        return text.DASH
    low, high = (
        min(other.low for other in all_intervals if other),
        max(other.high for other in all_intervals if other),
    )
    x = [
        4 + 122 * (place - low) / ((high - low) or 1)
        for place in (interval.low, interval.value, interval.high)
    ]
    words = f"{100 * interval.low:.2f} to {text.percent(interval.high)}"
    drawing = (
        '<svg class="interval" viewBox="0 0 130 16" role="img" '
        'aria-label="{0}"><title>{0}</title><path d="M0 8H130" stroke="var(--faint)"/>'
        '<path d="M{1:.1f} 8H{3:.1f}M{1:.1f} 4V12M{3:.1f} 4V12" stroke="var(--blue)" '
        'stroke-width="2"/><circle cx="{2:.1f}" cy="8" r="3.5" fill="var(--blue)"/></svg>'
    )
    return Markup(drawing).format(words, *x)


def draw(figure: Figure, name: str, label: str, caption: str = "") -> Drawing:
    """Return a figure as the page takes it; name and label as in `style.to_svg`."""
    from markupsafe import Markup

    from ensync.report import style

    return {"svg": Markup(style.to_svg(figure, name, label)), "caption": caption}


def learning_curves(comparison: Comparison) -> list[Drawing]:
    """Return the accuracy against epochs, and against seconds."""
    from ensync.report import curves

    histories = {name: records for name, records in comparison.histories.items() if records}
    if not histories:
        return []
    ends = dict(zip(Contestant, rows_to_compare(comparison)))
    results = {
        who.value: (row.seconds, row.test_accuracy or 0.0)
        for who, row in ends.items()
        if who in histories and row and row.seconds is not None
    }
    same = (
        "Solid: validation, dashed: training. One rank and synchronous training take the same "
        "steps, so their lines agree to rounding."
    )
    stars = "Large marks: test accuracy of the result, for the ensemble that of the best fusion."
    return [
        draw(curves.accuracy_by_epoch(histories), "epochs", "accuracy against epochs", same),
        draw(
            curves.accuracy_by_seconds(histories, results),
            "seconds",
            "accuracy against seconds",
            stars,
        ),
    ]


def member_plots(comparison: Comparison) -> list[Drawing]:
    """Return the accuracy of the first 1, 2, ... members fused, and of each member."""
    from ensync.report import figures

    found = []
    fusions = {k: v for k, v in comparison.accuracy_by_members.items() if len(v) > 1}
    if fusions:
        found.append(
            draw(
                figures.accuracy_by_members(fusions),
                "members",
                "test accuracy against the number of members fused",
            )
        )
    last = {
        record.get("member", 0): record.get("validation_accuracy")
        for record in comparison.histories.get(Contestant.ENSEMBLE, [])
    }
    if len(last) > 1 and any(value is not None for value in last.values()):
        plot = figures.accuracy_of_members(
            [last.get(member) for member in range(max(last) + 1)],
            title="Validation accuracy of each member, last epoch",
        )
        found.append(draw(plot, "each-member", "validation accuracy of each member"))
    return found


def confusion_plots(comparison: Comparison) -> tuple[list[Drawing], list[Drawing]]:
    """Return what is open and what is folded: the confusion matrix of the better of the two
    strategies and its difference to the other's; those of all other rows.
    """
    _, together, apart = rows_to_compare(comparison)
    pair = [row for row in (together, apart) if row and comparison.confusions.get(row.name)]
    pair.sort(key=accuracy, reverse=True)
    matrices = {
        name: _confusion(comparison, name, place)
        for place, (name, counts) in enumerate(comparison.confusions.items())
        if counts
    }
    first = pair[0].name if pair else next(iter(matrices), "")
    shown = [matrices.pop(first)] if first in matrices else []
    if len(pair) > 1:
        shown.append(_difference(comparison, first, pair[1].name))
    return shown, list(matrices.values())


def _confusion(comparison: Comparison, name: str, place: int) -> Drawing:
    from ensync.report.confusion import confusion_matrix

    figure = confusion_matrix(comparison.confusions[name], comparison.class_names, name)
    return draw(figure, f"confusion-{place}", f"confusion matrix of {name}")


def _difference(comparison: Comparison, first: str, second: str) -> Drawing:
    from ensync.report.confusion import confusion_difference

    counts = [np.asarray(comparison.confusions[name]) for name in (first, second)]
    title = f"{first} less {second}"
    return draw(
        confusion_difference(*counts, comparison.class_names, title),
        "confusion-difference",
        f"confusion matrix of {title}",
        f"Images more or fewer than with {second}. Blue: better, so more on the diagonal or fewer "
        "beside it; orange: worse.",
    )


def sweep_plot(sweep: Sweep) -> Drawing:
    """Return the accuracy and the training time against the swept setting."""
    from ensync.report import figures

    label = f"accuracy and training time against {sweep.key}"
    bars = any(row.test_images for row in sweep.rows)
    caption = "Bars: 95 % intervals, by the number of images." if bars else ""
    return draw(figures.sweep(sweep.key, sweep.rows), "sweep", label, caption)


def scaling_plot(scaling: Scaling) -> Drawing:
    """Return speed-up and efficiency against ranks."""
    from ensync.report import figures

    found = figures.scaling(scaling.by_strategy)
    return draw(found, "scaling", "speed-up and efficiency against ranks")
