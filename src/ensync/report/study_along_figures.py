"""The main plots of a study over one setting: accuracy against what ranks sent, against time, and
against the values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor, log10
from types import MappingProxyType
from typing import TYPE_CHECKING

from ensync.report import text
from ensync.report.axes import accuracy_axis, error_axis, new_figure, short, value_axis
from ensync.report.study_along import on_axis, value_of
from ensync.report.study_figures import LINES, NUMBER, Mark, draw_accuracy, marks_of, tops
from ensync.report.study_results import ContestantResult, Spread, StudyAxis, StudyResult
from ensync.report.style import GREY, MARKS, SERIES, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEETINGS = "communication."  # settings in this section decide what ranks send
DECADE = 10  # values further apart than this factor get a logarithmic axis
ASIDE = 6  # what nothing stands for is left of the least by this factor, where there is no zero
FAR = 0.1  # accuracies further apart than this share are shown by the logarithm of their errors
ROOM = 1.6  # factor between the outermost marks and the ends of a logarithmic axis
Places = Mapping[str, float]  # on the horizontal axis, by the contestants' names in pairs


def sends(study: StudyResult) -> bool:
    """Return whether the headline of a study is accuracy against what was sent."""
    return study.over is not None and study.over.setting.startswith(MEETINGS)


def sent(study: StudyResult) -> dict[str, float]:
    """Return the bytes that each contestant sent for a sample, by its name in pairs, where that is
    known.
    """
    return _means(study, lambda each: each.cost.bytes_per_sample)


def seconds(study: StudyResult) -> dict[str, float]:
    """Return the seconds that each contestant took, none where any of them is no measure."""
    if not all(each.cost.timed for each in study.contestants):
        return {}
    return _means(study, lambda each: each.cost.seconds)


def _means(study: StudyResult, of: Callable[[ContestantResult], Spread | None]) -> dict[str, float]:
    found = {each.key: of(each) for each in study.contestants}
    known = {key: spread.mean for key, spread in found.items() if spread}
    return {key: mean for key, mean in known.items() if mean is not None}


@styled
def by_bytes(study: StudyResult) -> Figure:
    """Return test accuracy with both intervals against the bytes sent for each sample, a line for
    each number of ranks.

    Nothing sent stands left of the logarithmic axis, behind a dotted line.
    """
    figure, axes = _new("Accuracy against what is sent", "bytes sent for a sample, by all ranks")
    found = sent(study)
    known = [size for size in found.values() if size > 0]
    nothing = min(known, default=1.0) / ASIDE
    places = {key: size or nothing for key, size in found.items()}
    apart = {nothing: "0 B"} if known and len(known) < len(found) else {}
    _log_axis(axes, list(places.values()), _size, apart)
    if apart:
        axes.axvline(nothing * ASIDE**0.5, color=GREY, linestyle=":", linewidth=1.0)
    _draw(figure, axes, study, places)
    return figure


@styled
def by_seconds(study: StudyResult) -> Figure:
    """Return test accuracy with both intervals against the seconds of the training, a line for each
    number of ranks.
    """
    figure, axes = _new("Accuracy against time", "seconds of training, measured here")
    places = seconds(study)
    if places and max(places.values()) > DECADE * min(places.values()) > 0:
        _log_axis(axes, list(places.values()), text.setting)
    _draw(figure, axes, study, places)
    return figure


@styled
def by_prediction(study: StudyResult) -> Figure:
    """Return test accuracy with both intervals, as measured on the most ranks, against the seconds
    predicted for more nodes, a line for each number of these.
    """
    figure, axes = _new("Accuracy against predicted time", "seconds of training, predicted")
    ranks = max(study.ranks)
    lines = [
        {f"{name}@{ranks}": spent for name, spent in each.seconds.items()}
        for each in study.predicted
    ]
    _log_axis(axes, [spent for line in lines for spent in line.values()], text.setting)
    for number, (each, line) in enumerate(zip(study.predicted, lines, strict=True)):
        _series(axes, study, ranks, line, (_mark(number), text.plural(each.nodes, "node")))
    _accuracies(axes, study)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@styled
def by_value(study: StudyResult) -> Figure:
    """Return test accuracy with both intervals against the values of the study's setting, a line
    for each number of ranks; other contestants are level lines.
    """
    axis = study.over
    assert axis is not None, "a study over a setting"
    figure, axes = _new(f"Accuracy against {axis.key}", axis.setting)
    rows = [each for ranks in study.ranks for each in on_axis(study, ranks)]
    places, labels = _value_places(axis, rows)
    shown = list(dict.fromkeys(places.values()))
    if labels is None and max(shown) > DECADE * min(shown) > 0:
        axes.set_xscale("log")
        axes.set_xlim(min(shown) / ROOM, max(shown) * ROOM)
    value_axis(axes, shown, labels)
    _draw(figure, axes, study, places)
    return figure


def _new(title: str, xlabel: str) -> tuple[Figure, Axes]:
    figure = new_figure(5.6, 4.3)
    title, xlabel = (short(words, 60) for words in (title, xlabel))
    return figure, figure.add_subplot(title=title, xlabel=xlabel, ylabel="test accuracy")


def _value_places(
    axis: StudyAxis, rows: Sequence[ContestantResult]
) -> tuple[dict[str, float], list[str] | None]:
    """Return where values stand: at themselves where all are numbers, else one after the other with
    their labels.
    """
    values = [axis.values[each.name] for each in rows]
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return {each.key: float(str(value)) for each, value in zip(rows, values)}, None
    names = [name for name in axis.values if name in {each.name for each in rows}]
    labels = [short(value_of(axis, _named(rows, name)), 24) for name in names]
    return {each.key: float(names.index(each.name)) for each in rows}, labels


def _named(rows: Sequence[ContestantResult], name: str) -> ContestantResult:
    return next(each for each in rows if each.name == name)


def _log_axis(
    axes: Axes,
    places: Sequence[float],
    label: Callable[[float], str],
    apart: Mapping[float, str] = MappingProxyType({}),
) -> None:
    """Have a logarithmic axis with ticks at powers of ten, or where that are too few at the places
    themselves. apart: the labels of places that stand for something else.
    """
    low, high = min(places, default=1.0) / ROOM, max(places, default=1.0) * ROOM
    axes.set_xscale("log")
    first = min((place for place in places if place not in apart), default=low) / ROOM
    powers = [10.0**n for n in range(floor(log10(first)), ceil(log10(high)) + 1)]
    ticks = [power for power in powers if first < power < high]
    if len(ticks) < 2:
        ticks = sorted({*places} - {*apart})
    axes.set_xticks([*apart, *ticks], [*apart.values(), *map(label, ticks)])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)


def _size(value: float) -> str:
    """Return bytes as an axis has them: "1 kB"."""
    return text.size(value).replace(".0 ", " ")


def _draw(figure: Figure, axes: Axes, study: StudyResult, places: Places) -> None:
    """Draw the accuracies of a study at their places, and the legend where it tells something."""
    for number, ranks in enumerate(study.ranks):
        _series(axes, study, ranks, places, (_mark(number), text.plural(ranks, "rank")))
    beside = [each for each in study.contestants if not _is_value(study, each)]
    for each in beside:
        _beside(axes, study, each, places.get(each.key))
    _accuracies(axes, study)
    if beside or len(study.ranks) > 1:
        figure.legend(loc="outside lower center", ncols=2)


def _accuracies(axes: Axes, study: StudyResult) -> None:
    """Label the axis of accuracies, when all is drawn."""
    accuracies = [each.accuracy.mean for each in study.contestants]
    far = max(accuracies) - min(accuracies) > FAR
    (error_axis if far else accuracy_axis)(axes)


def _mark(number: int) -> Mark:
    return Mark(*(found[number % len(found)] for found in (SERIES, MARKS, LINES)))


def _is_value(study: StudyResult, each: ContestantResult) -> bool:
    return study.over is not None and each.name in study.over.values


def _series(
    axes: Axes, study: StudyResult, ranks: int, places: Places, look: tuple[Mark, str]
) -> None:
    """Draw the values of the setting on so many ranks, each with its value above. look: how the
    line is drawn, and what it is called.
    """
    mark, name = look
    rows = [each for each in on_axis(study, ranks) if each.key in places]
    if not rows or study.over is None:
        return
    ordered = sorted(rows, key=lambda each: places[each.key])
    axes.plot(
        [places[each.key] for each in ordered],
        [each.accuracy.mean for each in ordered],
        color=mark.color,
        linestyle=mark.line,
        linewidth=1.2,
        marker=mark.marker,
        label=name,
    )
    for each in rows:
        x = places[each.key]
        draw_accuracy(axes, each, x, mark)
        label = short(value_of(study.over, each), 12)
        axes.annotate(label, (x, max(tops(each))), (0, 2), **NUMBER)


def _beside(axes: Axes, study: StudyResult, each: ContestantResult, place: float | None) -> None:
    """Draw a contestant that is no value of the setting: at its place, or as a level line."""
    mark = marks_of(study)[each.name]
    label = f"{short(each.label, 30)}, {text.plural(each.ranks, 'rank')}"
    if place is None:
        axes.axhline(each.accuracy.mean, color=mark.color, linestyle="--", label=label)
    else:
        draw_accuracy(axes, each, place, mark, label)
