"""The page of filters, and the files: filters.json, .html and .png."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ensync.report import text
from ensync.report.files import finite, write_whole
from ensync.report.filters.picture import draw_networks, draw_run
from ensync.report.filters.results import FiltersResult, RunFilters
from ensync.report.filters.words import HEADS, MEASURE, SCALE, caption, filter_rows, filter_verdict
from ensync.report.page import Section, best_of, phrase, render, section, toml_of
from ensync.report.plots import Drawing, draw
from ensync.report.results import from_json, to_json
from ensync.report.style import to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BESIDE = "filters.json and filters.png"


def write_filters(result: FiltersResult, directory: Path) -> dict[str, Path]:
    """Write the files, each whole or not at all; return what is where. Errors: EnsyncError where
    the directory cannot be written.
    """
    contents: dict[str, tuple[str, str | bytes]] = {
        "figures": ("filters.json", to_json(result)),
        "picture": ("filters.png", to_png(picture_of(result))),
        "page": ("filters.html", filters_page(result)),
    }
    for name, content in contents.values():
        write_whole(directory / name, content)
    return {kind: directory / name for kind, (name, _) in contents.items()}


def picture_of(result: FiltersResult) -> Figure:
    """Return the picture of one run, or of all networks below each other."""
    if len(result.runs) == 1:
        return draw_run(result.runs[0])
    return draw_networks([result.of(found.label) for found in result.found])


def filters_page(result: FiltersResult) -> str:
    """Return the page."""
    result = from_json(FiltersResult, finite(result))  # as it will be read from its file
    colours = any(run.measured for run in result.runs)
    many = len(result.runs) > 1
    return render(
        "page.html",
        title="Ensync: filters of the first layer",
        heading="What the first layer sees",
        under=_under(result),
        verdict=filter_verdict(result),
        cards=[],
        heads=HEADS,
        rows=best_of(filter_rows(result), {}),
        notes=["Several figures in a cell: of towers, the least colourful first; of seeds."] * many,
        sections=_sections(result),
        method=[SCALE, *(MEASURE if colours else ())],
        facts=_facts(result),
        job=toml_of(result.job),
        version=f" {result.versions['ensync']}" if "ensync" in result.versions else "",
        beside=BESIDE,
    )


def _under(result: FiltersResult) -> str:
    """Return the line below the heading."""
    day = datetime.fromisoformat(result.created).strftime("%Y-%m-%d %H:%M")
    runs = text.plural(len(result.runs), "run")
    return ", ".join(filter(None, [day, result.dataset.name, runs]))


def _sections(result: FiltersResult) -> list[Section]:
    """Return a section for each network: its first run, the others folded."""
    found = []
    for each in result.found:
        drawings = [_drawing(result, run) for run in result.of(each.label)]
        found.append(section(each.label or "Filters", drawings[:1], drawings[1:]))
    return found


def _drawing(result: FiltersResult, run: RunFilters) -> Drawing:
    number = result.runs.index(run)
    words = f"filters of the first layer, {run.label}, seed {run.seed}"
    return draw(draw_run(run), f"filters-{number}", words, caption(run))


def _facts(result: FiltersResult) -> list[list[tuple[str, str]]]:
    """Return tables of names and values."""
    data = [
        (key, phrase(value))
        for key, value in finite(result.dataset).items()
        if value not in (None, "", [], {})
    ]
    runs = [(f"{run.label}, seed {run.seed}", run.path) for run in result.runs]
    return [part for part in (data, runs, [*result.versions.items()]) if part]
