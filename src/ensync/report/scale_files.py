"""The files of a prediction: scale.json, .csv and .html, all with the same figures."""

from __future__ import annotations

from pathlib import Path

from ensync.report.export import csv_text
from ensync.report.files import finite, refuse_write, write_whole
from ensync.report.results import to_json
from ensync.report.scale_results import ScaleResult

COLUMNS = (
    "strategy",
    "every",
    "ranks",
    "nodes",
    "threads",
    "rows",
    "step_seconds",
    "samples_per_second",
    "efficiency",
    "epoch_seconds",
    "epoch_bytes",
    "bound",
    "shared",
    "small",
    "update",
    "waiting",
    "node",
    "latency",
    "bandwidth",
)


def write_scale(directory: Path, result: ScaleResult) -> dict[str, Path]:
    """Write the files of a prediction, each whole or not at all; return what is where."""
    from ensync.report.scale_page import scale_page

    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse_write(directory, error) from error
    rows = [finite(row) for row in result.rows]
    table = csv_text(COLUMNS, [row | row["parts"] for row in rows])
    contents = {
        "figures": ("json", to_json(result)),
        "table": ("csv", table),
        "page": ("html", scale_page(result)),
    }
    paths = {kind: directory / f"scale.{end}" for kind, (end, _) in contents.items()}
    for kind, (_, content) in contents.items():
        write_whole(paths[kind], content)
    return paths
