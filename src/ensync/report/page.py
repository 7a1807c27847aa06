"""A comparison or a sweep as one HTML page that needs nothing else, with the same figures as JSON
and CSV beside it.

A comparison is {"format": "ensync-comparison", "version": 1, "job", "created", "versions",
"machine", "dataset", "class_names", "rows": [{"name", "strategy", "fusion", "ranks", "members",
"test_accuracy", ...}], "histories", "confusions", "accuracy_by_members"} and, where known,
"paired": [{"rows": [name, name], "only_first", "only_second"}] (images that only one of two got
right) and "measured": [sentence]. A sweep is {"format": "ensync-sweep", "version": 1, "key",
"rows": [{"value", "test_accuracy", "validation_accuracy", "seconds", "samples_per_second"}],
"job"}. A figure that is missing is None.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ensync.core.errors import printable, printable_lines
from ensync.report import tables, text
from ensync.report.files import finite, refuse_write, write_whole
from ensync.report.verdict import interval_of, notes_of, sweep_verdict, together_and_apart, verdict

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

    from ensync.core.statistics import Interval

COMPARISON_COLUMNS = (
    "name",
    "strategy",
    "fusion",
    "ranks",
    "members",
    "test_accuracy",
    "test_accuracy_low",
    "test_accuracy_high",
    "test_loss",
    "macro_f1",
    "weighted_f1",
    "top_k",
    "top_k_accuracy",
    "seconds",
    "speedup",
    "efficiency",
    "bytes_sent",
    "note",
)
SWEEP_COLUMNS = ("value", "test_accuracy", "validation_accuracy", "seconds", "samples_per_second")


def write_comparison(directory: Path | str, comparison: Mapping) -> dict[str, Path]:
    """Write comparison.json, comparison.csv and comparison.html, each whole or not at all;
    return what is where.
    """
    directory, comparison = _made(directory), finite(comparison)
    rows = [_flat(comparison, row) for row in comparison["rows"]]
    return _write(
        directory,
        "comparison",
        comparison,
        _csv(COMPARISON_COLUMNS, rows),
        comparison_page(comparison),
    )


def write_sweep(directory: Path | str, sweep: Mapping) -> dict[str, Path]:
    """Write sweep.json, sweep.csv, sweep.html and sweep.png, each whole or not at all; return
    what is where.
    """
    from ensync.report import figures, style

    directory, sweep = _made(directory), finite(sweep)
    paths = _write(directory, "sweep", sweep, _csv(SWEEP_COLUMNS, sweep["rows"]), sweep_page(sweep))
    return paths | {
        "plot": style.save_png(figures.sweep(sweep["key"], sweep["rows"]), directory / "sweep.png")
    }


def _made(directory: Path | str) -> Path:
    """Return the directory, made where missing. EnsyncError when it cannot be."""
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse_write(Path(directory), error) from error
    return Path(directory)


def _write(directory: Path, name: str, content: Mapping, table: str, page: str) -> dict[str, Path]:
    data = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    paths = {
        kind: directory / f"{name}.{end}"
        for kind, end in (("figures", "json"), ("table", "csv"), ("page", "html"))
    }
    for path, whole in zip(paths.values(), (data, table, page)):
        write_whole(path, whole)
    return paths


def _csv(columns: Sequence[str], rows: Sequence[Mapping]) -> str:
    """Return the rows as CSV; a missing figure is an empty field."""
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: printable(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    )
    return file.getvalue()


def _flat(comparison: Mapping, row: Mapping) -> dict:
    """Return a row of the comparison without nested figures, with the interval of its accuracy."""
    top, interval = row.get("top_k") or {}, interval_of(comparison, row)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {
        **row,
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "top_k": top.get("k"),
        "top_k_accuracy": top.get("accuracy"),
    }


def comparison_page(comparison: Mapping) -> str:
    """Return the page of a comparison."""
    comparison = finite(comparison)
    heads, rows = _comparison_table(comparison)
    return _render(
        title=f"Ensync comparison: {_subject(comparison)}",
        heading=f"Together or apart? {_subject(comparison)}",
        under=_under(comparison),
        verdict=verdict(comparison),
        heads=heads,
        rows=rows,
        notes=notes_of(comparison),
        sections=_comparison_sections(comparison),
        method=_method(comparison),
        facts=_facts(comparison),
        job=_toml(comparison["job"]),
        version=_version(comparison),
        beside="comparison.json and comparison.csv",
    )


def sweep_page(sweep: Mapping) -> str:
    """Return the page of a sweep."""
    from ensync.report import figures

    sweep = finite(sweep)
    key, rows = sweep["key"], sweep["rows"]
    cells = [tables.sweep_cells(row) for row in rows]
    table = _best(
        cells,
        {
            2: [row.get("validation_accuracy") for row in rows],
            3: [_reversed(row.get("seconds")) for row in rows],
        },
    )
    plot = _figure(figures.sweep(key, rows), "sweep", f"accuracy and training time against {key}")
    return _render(
        title=f"Ensync sweep: {key}",
        heading=f"What {key} does",
        under=_under(sweep),
        verdict=sweep_verdict(sweep),
        heads=[key, *tables.SWEEP_HEADS],
        rows=table,
        notes=[],
        sections=[{"heading": "Plot", "figures": [plot]}],
        method=[
            f"The job below was run once for each value of {key}; nothing else was changed.",
            "The best value is the one with the highest validation accuracy; the test images "
            "take no part in the choice.",
        ],
        facts=_facts(sweep),
        job=_toml(sweep["job"]),
        version=_version(sweep),
        beside="sweep.json, sweep.csv and sweep.png",
    )


def _render(**parts: object) -> str:
    """Return the template filled in, every text escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ensync.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_clean,
    )
    environment.filters["unbroken"] = lambda line: re.sub(
        r"(?<=\d) (?=(%|s|points)\b|%)", "\N{NO-BREAK SPACE}", line
    )
    return environment.get_template("page.html").render(**parts)


def _clean(value: object) -> object:
    """Return text without control characters other than the ends of lines; what is marked up
    already stays.
    """
    return (
        printable_lines(value)
        if isinstance(value, str) and not hasattr(value, "__html__")
        else value
    )


def _subject(content: Mapping) -> str:
    """Return "fashion-mnist with mlp"."""
    data = content.get("dataset", {})
    return " with ".join(
        filter(
            None,
            [
                data.get("name") or Path(data.get("path", "")).stem,
                content.get("job", {}).get("network", {}).get("name"),
            ],
        )
    )


def _under(content: Mapping) -> str:
    """Return the line below the heading: when, where, on how many ranks."""
    machine, parts = content.get("machine", {}), []
    if content.get("created"):
        parts.append(datetime.fromisoformat(content["created"]).strftime("%Y-%m-%d %H:%M"))
    if machine.get("ranks"):
        ranks, threads = (
            text.plural(machine["ranks"], "rank"),
            text.plural(machine.get("threads_per_rank", 1), "thread"),
        )
        parts.append(f"{ranks} x {threads} on {text.plural(machine.get('nodes', 1), 'node')}")
    return ", ".join([*parts, *filter(None, [machine.get("cpu")])])


def _version(content: Mapping) -> str:
    return f" {content['versions']['ensync']}" if "ensync" in content.get("versions", {}) else ""


def _reversed(value: float | None) -> float | None:
    return None if value is None else -value


def _best(
    cells: Sequence[Sequence[str]], greatest: Mapping[int, Sequence[float | None]]
) -> list[list[dict]]:
    """Return the cells for the template, the greatest of each column in `greatest` marked (all
    of several equal ones).
    """
    best = {
        column: max((value for value in values if value is not None), default=None)
        for column, values in greatest.items()
    }
    return [
        [
            {
                "text": cell,
                "best": best.get(column) is not None and greatest[column][place] == best[column],
            }
            for column, cell in enumerate(row)
        ]
        for place, row in enumerate(cells)
    ]


def _comparison_table(comparison: Mapping) -> tuple[list[str], list[list[dict]]]:
    """Return the heads and the cells of the comparison's table."""
    rows = comparison["rows"]
    k = next((row["top_k"]["k"] for row in rows if row.get("top_k")), None)
    heads, intervals = list(tables.COMPARISON_HEADS), [interval_of(comparison, row) for row in rows]
    cells = [tables.comparison_cells(comparison, row) for row in rows]
    for row, line, interval in zip(rows, cells, intervals):
        line[3] = _interval(interval, intervals)
        line.insert(2, text.setting(row.get("members")))
    heads.insert(2, "members")
    if k:
        heads.insert(5, f"top {k}")
        for row, line in zip(rows, cells):
            line.insert(5, text.percent((row.get("top_k") or {}).get("accuracy")))
    seconds = heads.index("seconds")
    return heads, _best(
        cells,
        {
            3: [row.get("test_accuracy") for row in rows],
            seconds: [_reversed(row.get("seconds")) for row in rows],
        },
    )


def _interval(interval: Interval | None, all_intervals: Sequence[Interval | None]) -> Markup | str:
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


def _figure(figure: Figure, name: str, label: str, caption: str = "") -> dict:
    from markupsafe import Markup

    from ensync.report import style

    return {"svg": Markup(style.to_svg(figure, name, label)), "caption": caption}


def _comparison_sections(comparison: Mapping) -> list[dict]:
    """Return the page's figures under their headings."""
    return [
        {"heading": "While training", "figures": _curves(comparison)},
        {"heading": "The members", "figures": _members(comparison)},
        {"heading": "What is taken for what", "figures": _confusions(comparison)},
    ]


def _curves(comparison: Mapping) -> list[dict]:
    from ensync.report import figures

    histories = {
        name: records for name, records in comparison.get("histories", {}).items() if records
    }
    if not histories:
        return []
    ends = dict(zip(("one rank", "synchronous", "ensemble"), together_and_apart(comparison)))
    results = {
        name: (row["seconds"], row["test_accuracy"])
        for name, row in ends.items()
        if name in histories and row and row.get("seconds") is not None
    }
    same = (
        "Solid: validation, dashed: training. One rank and synchronous training take the same "
        "steps, so their lines agree to rounding."
    )
    stars = "Stars: test accuracy of the result, for the ensemble that of the best fusion."
    return [
        _figure(figures.accuracy_by_epoch(histories), "epochs", "accuracy against epochs", same),
        _figure(
            figures.accuracy_by_seconds(histories, results),
            "seconds",
            "accuracy against seconds",
            stars,
        ),
    ]


def _members(comparison: Mapping) -> list[dict]:
    from ensync.report import figures

    found, fusions = (
        [],
        {
            name: values
            for name, values in comparison.get("accuracy_by_members", {}).items()
            if len(values) > 1
        },
    )
    if fusions:
        found.append(
            _figure(
                figures.accuracy_by_members(fusions),
                "members",
                "test accuracy against the number of members fused",
            )
        )
    last = {
        record.get("member", 0): record.get("validation_accuracy")
        for record in comparison.get("histories", {}).get("ensemble", [])
    }
    if len(last) > 1 and any(value is not None for value in last.values()):
        plot = figures.accuracy_of_members(
            [last.get(member) for member in range(max(last) + 1)],
            title="Validation accuracy of each member, last epoch",
        )
        found.append(_figure(plot, "each-member", "validation accuracy of each member"))
    return found


def _confusions(comparison: Mapping) -> list[dict]:
    from ensync.report import figures

    matrices = comparison.get("confusions", {})
    return [
        _figure(
            figures.confusion_matrix(counts, comparison["class_names"], name),
            f"confusion-{place}",
            f"confusion matrix of {name}",
        )
        for place, (name, counts) in enumerate(matrices.items())
        if counts
    ]


def _method(comparison: Mapping) -> list[str]:
    """Return how the figures came about, sentence by sentence."""
    training = comparison.get("job", {}).get("training", {})
    budget = (
        f"All rows trained for {text.plural(training['epochs'], 'epoch')} on the same rows with "
        "the same seed."
        if "epochs" in training
        else ""
    )
    _, _, apart = together_and_apart(comparison)
    several = sum(row.get("strategy") == "ensemble" for row in comparison["rows"]) > 1
    picked = (
        "The verdict takes the fusion that is best on these test images, which flatters the "
        "ensemble a little."
        if apart and several
        else ""
    )
    return [
        line
        for line in (
            budget,
            *comparison.get("measured", []),
            picked,
            "Speed-up is the time of one rank over the row's time, efficiency is speed-up over "
            "ranks. Seconds are of one run and vary from run to run.",
            "The interval is Wilson's for a share, 95 %: it knows the number of test images, not "
            "the luck of the seed.",
        )
        if line
    ]


def _facts(content: Mapping) -> list[list[tuple[str, str]]]:
    """Return tables of names and values: data and machine, then versions."""
    data, machine = content.get("dataset", {}), content.get("machine", {})
    names = {"name": "dataset", "threads_per_rank": "threads per rank"}
    first = [
        (names.get(key, key), _phrase(value))
        for key, value in {**data, **machine}.items()
        if value not in (None, "", [], {})
    ]
    second = [(name, str(version)) for name, version in content.get("versions", {}).items()]
    return [part for part in (first, second) if part]


def _phrase(value: object) -> str:
    """Return a value in words: {"train": 10} as "train 10", lists with commas."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_phrase(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_phrase, value))
    return text.count(value) if isinstance(value, int) else str(value)


def _toml(job: Mapping) -> str:
    """Return the job as the TOML of a job file; settings without a value are left out."""
    import tomli_w

    def known(value: object) -> object:
        if isinstance(value, Mapping):
            return {key: known(item) for key, item in value.items() if item is not None}
        return (
            [known(item) for item in value if item is not None]
            if isinstance(value, list)
            else value
        )

    whole = tomli_w.dumps({key: known(item) for key, item in job.items() if item is not None})
    short = re.compile(r"\[\n((?: +[^\n\[\]]*,\n)+)\]")  # an array of plain values, one to a line
    return short.sub(
        lambda found: "[" + ", ".join(line.strip(" ,") for line in found[1].splitlines()) + "]",
        whole,
    ).strip()
