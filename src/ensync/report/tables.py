"""The tables of the console as lines of plain text: header, epochs, test, comparison."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ensync.core import metrics
from ensync.core.errors import printable
from ensync.core.statistics import accuracy_interval, share_interval
from ensync.report import text
from ensync.report.results import Comparison, Scaling, Sweep, TopK
from ensync.report.verdict import interval_of, notes_of, row_oversubscribed, verdict

WIDEST_CONFUSION = 20
Record = Mapping[str, float | None]


def pairs(items: Mapping[str, object]) -> list[str]:
    """Return two aligned columns, name and value; what is None or empty is left out."""
    shown = {
        printable(name): printable(str(value))
        for name, value in items.items()
        if value not in (None, "")
    }
    width = max(map(text.cells, shown), default=0)
    return [f"  {text.pad(name, width, left=True)}  {value}" for name, value in shown.items()]


def places(ranks: int, threads: int, nodes: Sequence[str]) -> str:
    """Return "4 ranks x 2 threads on 2 nodes (a, b)"."""
    listed = ", ".join(nodes[:4]) + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")
    return (
        f"{text.plural(ranks, 'rank')} x {text.plural(threads, 'thread')} on "
        f"{text.plural(len(nodes), 'node')} ({listed})"
    )


# name of the column, key of the record, how one value is written, width alone, width with the
# members' range
EPOCH_COLUMNS: tuple[tuple[str, str, Callable[[float | None], str], int, int], ...] = (
    ("loss", "train_loss", text.number, 9, 23),
    ("train", "train_accuracy", text.percent, 9, 24),
    ("val. loss", "validation_loss", text.number, 9, 23),
    ("validation", "validation_accuracy", text.percent, 10, 24),
    ("learning rate", "learning_rate", text.setting, 13, 13),
    ("samples/s", "samples_per_second", text.count, 11, 11),
    ("seconds", "seconds", text.seconds, 8, 8),
)


# What an epoch's line goes without where a terminal is too narrow for all of it, one after the
# other: the members' range of a column, or the column (True).
LEFT_OUT = (
    ("loss", False),
    ("val. loss", False),
    ("train", False),
    ("learning rate", True),
    ("samples/s", True),
    ("validation", False),
    ("seconds", True),
    ("val. loss", True),
    ("loss", True),
)


def _layout(epochs: int, members: int, columns: int | None) -> dict[str, int]:
    """Return the width of each column that a line of so many columns, or of any, has room for."""
    narrow = {name: width for name, _, _, width, _ in EPOCH_COLUMNS}
    layout = {name: wide for name, _, _, _, wide in EPOCH_COLUMNS} if members > 1 else {**narrow}
    for name, whole in LEFT_OUT:
        width = _epoch_width(epochs) + sum(layout.values()) + 2 * len(layout)
        if columns is None or width <= columns:
            break
        if whole:
            del layout[name]
        else:
            layout[name] = narrow[name]
    return layout


def epoch_heads(epochs: int, members: int, columns: int | None = None) -> str:
    """Return the heads above the epoch lines of a terminal of so many columns, None for a log."""
    layout = _layout(epochs, members, columns)
    heads = [text.pad(head, width) for head, width in layout.items()]
    return "  ".join([text.pad("epoch", _epoch_width(epochs)), *heads])


def _epoch_width(epochs: int) -> int:
    return max(5, 2 * len(str(epochs)) + 1)


def epoch_line(records: Sequence[Record], epochs: int, columns: int | None = None) -> str:
    """Return the line of one epoch: of one network, or mean (least-most) over the members' records,
    the mean alone where a terminal of so many columns has no more room.

    samples/s is the members' sum, seconds and learning rate the largest. A member without a finite
    loss is counted at the line's end, in place of the last figures where these are too many.
    """
    sound = [record for record in records if not text.missing(record.get("train_loss"))] or list(
        records
    )
    start = f"{printable(str(records[0]['epoch']))}/{epochs}"
    cells, layout = [text.pad(start, _epoch_width(epochs))], _layout(epochs, len(records), columns)
    for name, key, form, narrow, _ in EPOCH_COLUMNS:
        if name in layout:
            values = [record.get(key) for record in sound]
            shown = _over_members(key, values, form, layout[name] > narrow)
            cells.append(text.pad(shown, layout[name]))
    lost = len(records) - len(sound)
    note = f"  ({text.plural(lost, 'member')} diverged)" if lost else ""
    if note and columns and len("  ".join(cells) + note) > columns:
        note = f"  ({lost} diverged)"
        while len(cells) > 1 and len("  ".join(cells) + note) > columns:
            cells.pop()
    return "  ".join(cells) + note


def _over_members(
    key: str, values: Sequence[float | None], form: Callable[[float | None], str], ranged: bool
) -> str:
    known = [value for value in values if not text.missing(value)]
    if not known:
        return text.DASH
    if key == "samples_per_second":
        return form(math.fsum(known))
    if key in ("seconds", "learning_rate"):
        return form(max(known))
    mean = form(math.fsum(known) / len(known))
    if len(values) == 1 or not ranged:
        return mean
    return f"{mean} ({_bare(form(min(known)))}-{_bare(form(max(known)))})"


def _bare(shown: str) -> str:
    return shown.removesuffix(" %")


def test_lines(
    name: str,
    counts: np.ndarray,
    class_names: Sequence[str],
    loss: float | None = None,
    top_k: TopK | None = None,
) -> list[str]:
    """Return the test result of a network or fusion from its confusion counts (classes,
    classes).
    """
    rows, right = int(counts.sum()), int(np.trace(counts))
    if rows == 0:
        return [f"Test, {name}: no images"]
    interval = accuracy_interval(right, rows)
    sure = f"95 % interval {100 * interval.low:.2f} to {text.percent(interval.high)}"
    share = f"{text.percent(interval.value)} of {text.plural(rows, 'image')} right"
    first = f"Test, {printable(name)}: {share} ({sure})"
    more = [] if text.missing(loss) else [f"loss {text.number(loss)}"]
    more += [f"among the {top_k.k} likeliest {text.percent(top_k.accuracy)}"] if top_k else []
    return [
        ", ".join([first, *more]),
        "",
        *class_lines(counts, class_names),
        "",
        *confusion_lines(counts, class_names),
    ]


def class_lines(counts: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Return precision, recall and F1 of each class, then their plain and weighted means."""
    scores = np.stack(
        [metrics.precision(counts), metrics.recall(counts), metrics.f1(counts)], axis=1
    )
    images = counts.sum(axis=1)
    rows = [
        [name, *map(text.percent, row), f"{n:,}", _confused(counts[i], i, class_names)]
        for i, (name, row, n) in enumerate(zip(class_names, scores, images))
    ]
    seen = (images + counts.sum(axis=0)) > 0
    weighted = (images @ scores) / images.sum()
    rows.append(
        [
            "mean of classes",
            *map(text.percent, [*scores[seen].mean(axis=0)[:2], metrics.macro_f1(counts)]),
            "",
            "",
        ]
    )
    rows.append(
        [
            "weighted by images",
            *map(text.percent, [*weighted[:2], metrics.weighted_f1(counts)]),
            f"{images.sum():,}",
            "",
        ]
    )
    return text.table(
        ["class", "precision", "recall", "F1", "images", "most often taken for"], rows, left=(0, 5)
    )


def _confused(row: np.ndarray, label: int, class_names: Sequence[str]) -> str:
    """Return the class that this class's images are most often mistaken for."""
    others = row.copy()
    others[label] = 0
    return f"{class_names[int(others.argmax())]} ({others.max():,})" if others.any() else ""


def confusion_lines(counts: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Return the confusion counts, row = true class, column = predicted class; nothing above 20
    classes.
    """
    if len(counts) > WIDEST_CONFUSION:
        return []
    rows = [
        [str(i), name, *[str(n) if n else "." for n in counts[i]]]
        for i, name in enumerate(class_names)
    ]
    return [
        "true class by row, predicted by column",
        *text.table(["", "", *map(str, range(len(counts)))], rows, left=(1,)),
    ]


COMPARISON_HEADS = (
    "",
    "ranks",
    "accuracy",
    "95 % interval",
    "macro F1",
    "loss",
    "seconds",
    "speed-up",
    "efficiency",
    "sent",
)


def comparison_rows(comparison: Comparison) -> list[list[str]]:
    """Return the cells of the comparison table, in the order of COMPARISON_HEADS; "-" for what is
    missing, "*" behind seconds that are no measure.
    """
    seconds = text.column([row.seconds for row in comparison.rows])
    found = []
    for row, spent in zip(comparison.rows, seconds, strict=True):
        interval = interval_of(comparison, row)
        found.append(
            [
                row.name,
                text.setting(row.ranks),
                text.percent(row.test_accuracy),
                f"{100 * interval.low:.2f} to {text.percent(interval.high)}"
                if interval
                else text.DASH,
                text.percent(row.macro_f1),
                text.number(row.test_loss),
                spent + NO_MEASURE * row_oversubscribed(comparison, row),
                text.times(row.speedup),
                text.percent(row.efficiency, 0),
                text.size(row.bytes_sent),
            ]
        )
    return found


NO_MEASURE = " *"
OVERSUBSCRIBED = "* More threads than cores: these seconds are no measure."


def measure_notes(marked: bool) -> list[str]:
    """Return what stands below a table some of whose seconds are marked."""
    return [OVERSUBSCRIBED] if marked else []


def comparison_lines(comparison: Comparison) -> list[str]:
    """Return the comparison as a table, the rows' notes below it, and the verdict."""
    lines = text.table(COMPARISON_HEADS, comparison_rows(comparison))
    marked = any(row_oversubscribed(comparison, row) for row in comparison.rows)
    lines += [f"  {note}" for note in measure_notes(marked)]
    lines += [f"  {printable(name)}: {printable(note)}" for name, note in notes_of(comparison)]
    return [*lines, "", *verdict(comparison)]


SWEEP_HEADS = (
    "test accuracy",
    "95 % interval",
    "validation",
    "95 % interval",
    "seconds",
    "samples/s",
)


def sweep_rows(sweep: Sweep) -> list[list[str]]:
    """Return the cells of a sweep's table: the value, then in the order of SWEEP_HEADS."""
    seconds = text.column([row.seconds for row in sweep.rows])
    speeds = text.column([row.samples_per_second for row in sweep.rows])
    return [
        [
            text.setting(row.value),
            text.percent(row.test_accuracy),
            _interval(row.test_accuracy, row.test_images),
            text.percent(row.validation_accuracy),
            _interval(row.validation_accuracy, row.validation_images),
            spent + NO_MEASURE * row.oversubscribed,
            speed,
        ]
        for row, spent, speed in zip(sweep.rows, seconds, speeds, strict=True)
    ]


def _interval(share: float | None, images: int | None) -> str:
    """Return the 95 % interval of an accuracy on so many images."""
    if text.missing(share) or not images:
        return text.DASH
    found = share_interval(share, images)
    return f"{100 * found.low:.2f} to {text.percent(found.high)}"


def sweep_lines(sweep: Sweep) -> list[str]:
    """Return a sweep as a table."""
    lines = text.table([sweep.key, *SWEEP_HEADS], sweep_rows(sweep), left=())
    marked = any(row.oversubscribed for row in sweep.rows)
    return [*lines, *[f"  {note}" for note in measure_notes(marked)]]


SCALING_HEADS = (
    "strategy",
    "ranks",
    "seconds",
    "speed-up",
    "efficiency",
    "test accuracy",
    "95 % interval",
)


def scaling_rows(scaling: Scaling) -> list[list[str]]:
    """Return the cells of a scaling's table, in the order of SCALING_HEADS."""
    seconds = text.column([row.seconds for row in scaling.rows])
    return [
        [
            row.strategy,
            str(row.ranks),
            spent + NO_MEASURE * row.oversubscribed,
            text.times(row.speedup),
            text.percent(row.efficiency, 0),
            text.percent(row.test_accuracy),
            _interval(row.test_accuracy, row.test_images),
        ]
        for row, spent in zip(scaling.rows, seconds, strict=True)
    ]
