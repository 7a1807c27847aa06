"""A sweep and a scaling as HTML pages that need nothing else."""

from ensync.report import plots, tables
from ensync.report.files import finite
from ensync.report.page import best_of, facts_of, made_where, render, reversed_of, section, toml_of
from ensync.report.results import Scaling, Sweep, from_json
from ensync.report.verdict import scaling_verdict, sweep_verdict

INTERVALS = (
    "Intervals of accuracies are Wilson's for a share, 95 %: they know the number of images, not "
    "the luck of the seed. Seconds are of one run and vary from run to run."
)
SECONDS = 5  # column of a sweep's table


def sweep_page(sweep: Sweep) -> str:
    """Return the page of a sweep."""
    sweep = from_json(Sweep, finite(sweep))
    rows = sweep.rows
    table = best_of(
        tables.sweep_rows(sweep),
        {
            3: [row.validation_accuracy for row in rows],
            SECONDS: [reversed_of(row.seconds) for row in rows],
        },
    )
    return render(
        "page.html",
        title=f"Ensync sweep: {sweep.key}",
        heading=f"What {sweep.key} does",
        under=made_where(sweep),
        verdict=sweep_verdict(sweep),
        cards=[],
        heads=[sweep.key, *tables.SWEEP_HEADS],
        rows=table,
        notes=tables.measure_notes(any(row.oversubscribed for row in rows)),
        sections=[section("Plot", [plots.sweep_plot(sweep)])],
        method=[
            f"The job below was run once for each value of {sweep.key}; nothing else was changed.",
            "The best value is the one with the highest validation accuracy; the test images "
            "take no part in the choice.",
            INTERVALS,
        ],
        facts=facts_of(sweep),
        job=toml_of(sweep.job),
        version=f" {sweep.versions['ensync']}" if "ensync" in sweep.versions else "",
        beside="sweep.json, sweep.csv and sweep.png",
    )


def scaling_page(scaling: Scaling) -> str:
    """Return the page of a scaling over ranks."""
    scaling = from_json(Scaling, finite(scaling))
    cells = tables.scaling_rows(scaling)
    return render(
        "page.html",
        title="Ensync scaling",
        heading="What more ranks give",
        under=made_where(scaling),
        verdict=scaling_verdict(scaling),
        cards=[],
        heads=list(tables.SCALING_HEADS),
        rows=best_of(cells, {}),
        notes=tables.measure_notes(any(row.oversubscribed for row in scaling.rows)),
        sections=[section("Plot", [plots.scaling_plot(scaling)])],
        method=[
            "The job below was run once on each number of ranks, each run by itself.",
            "Speed-up is the time of one rank over the row's time, or of the fewest ranks there "
            "are, taken as perfect; efficiency is speed-up over ranks.",
            INTERVALS,
        ],
        facts=facts_of(scaling),
        job=toml_of(scaling.job),
        version=f" {scaling.versions['ensync']}" if "ensync" in scaling.versions else "",
        beside="scaling.json, scaling.csv and scaling.png",
    )
