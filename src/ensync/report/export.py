"""The files of a comparison, a sweep and a scaling: JSON and CSV with the same figures, and a page
or a plot.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ensync.core.errors import printable
from ensync.report.files import finite, refuse_write, write_whole
from ensync.report.page import comparison_page
from ensync.report.results import Comparison, ComparisonRow, Scaling, Sweep, to_json
from ensync.report.sweep_page import scaling_page, sweep_page
from ensync.report.verdict import interval_of

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
SWEEP_COLUMNS = (
    "value",
    "test_accuracy",
    "validation_accuracy",
    "seconds",
    "samples_per_second",
    "test_images",
    "validation_images",
    "oversubscribed",
)
SCALING_COLUMNS = (
    "strategy",
    "ranks",
    "seconds",
    "speedup",
    "efficiency",
    "test_accuracy",
    "test_images",
    "oversubscribed",
)


def write_comparison(directory: Path | str, comparison: Comparison) -> dict[str, Path]:
    """Write comparison.json, comparison.csv and comparison.html, each whole or not at all;
    return what is where.
    """
    directory = _made(directory)
    rows = [_flat(comparison, row) for row in comparison.rows]
    table = csv_text(COMPARISON_COLUMNS, rows)
    page = comparison_page(comparison)
    return _write(directory, "comparison", to_json(comparison), table, page)


def write_sweep(directory: Path | str, sweep: Sweep) -> dict[str, Path]:
    """Write sweep.json, sweep.csv, sweep.html and sweep.png, each whole or not at all; return
    what is where.
    """
    from ensync.report import figures, style

    directory = _made(directory)
    table = csv_text(SWEEP_COLUMNS, [finite(row) for row in sweep.rows])
    paths = _write(directory, "sweep", to_json(sweep), table, sweep_page(sweep))
    plot = style.save_png(figures.sweep(sweep.key, sweep.rows), directory / "sweep.png")
    return paths | {"plot": plot}


def write_scaling(directory: Path, scaling: Scaling) -> dict[str, Path]:
    """Write scaling.json, .csv, .html and .png, each whole or not at all; return what is where."""
    from ensync.report import figures, style

    table = csv_text(SCALING_COLUMNS, [finite(row) for row in scaling.rows])
    paths = _write(directory, "scaling", to_json(scaling), table, scaling_page(scaling))
    plot = style.save_png(figures.scaling(scaling.by_strategy), directory / "scaling.png")
    return paths | {"plot": plot}


def _made(directory: Path | str) -> Path:
    """Return the directory, made where missing. EnsyncError when it cannot be."""
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse_write(Path(directory), error) from error
    return Path(directory)


def _write(directory: Path, name: str, data: str, table: str, page: str) -> dict[str, Path]:
    paths = {
        kind: directory / f"{name}.{end}"
        for kind, end in (("figures", "json"), ("table", "csv"), ("page", "html"))
    }
    for path, whole in zip(paths.values(), (data, table, page)):
        write_whole(path, whole)
    return paths


def csv_text(columns: Sequence[str], rows: Sequence[Mapping]) -> str:
    """Return the rows as CSV; a missing figure is an empty field."""
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: printable(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in rows
    )
    return file.getvalue()


def _flat(comparison: Comparison, row: ComparisonRow) -> dict[str, object]:
    """Return a row of the comparison without nested figures, with the interval of its accuracy."""
    interval = interval_of(comparison, row)
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {
        **finite(row),
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "top_k": row.top_k.k if row.top_k else None,
        "top_k_accuracy": row.top_k.accuracy if row.top_k else None,
    }
