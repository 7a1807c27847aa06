"""The part of RESULTS.md on `ensync scale`, of what tests/bench/scale_on_hosts.py measured."""

import statistics
from collections.abc import Mapping

from results_text import narrow, wrapped

from ensync.report import text
from ensync.report.study_tables import Table

WITHIN = 0.15  # error of a prediction that is to be reached


def scale_lines(kept: Mapping) -> list[str]:
    """Return the table of what `ensync scale` predicted and what training then took, on hosts with
    limited links, and below it how well that agrees.
    """
    about, rows = kept["environment"], kept["rows"]
    errors = sorted(abs(row["error"]) for row in rows)
    within = sum(error <= WITHIN for error in errors)
    made = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    beyond = sorted({row["hosts"] for row in rows if row["hosts"] > about["cores"]})
    shared = (
        f" On {' and '.join(map(str, beyond))} hosts a rank has a part of a core, in the "
        "calibration as in the training."
        if beyond
        else ""
    )
    said = (
        "Milliseconds of a step as `ensync scale` predicted them, and as they then were; error: "
        "predicted less measured, of measured. Hosts are namespaces of one machine, with one rank "
        f"of one thread each, on links of a limited speed (Mbit/s) and delay (ms).{shared}"
    )
    heads = ["network", "hosts", "speed", "delay", "strategy", "predicted", "measured", "error"]
    cells = [
        [
            *(row["network"], str(row["hosts"])),
            *(_of_link(row, row["bits"] / 1e6), _of_link(row, 1e3 * row["delay"])),
            row["strategy"],
            *text.column([1e3 * row["predicted"], 1e3 * row["measured"]]),
            f"{100 * row['error']:+.1f} %",
        ]
        for row in rows
    ]
    lacking = f" Not measured: {'; '.join(kept['missing'])}." if kept["missing"] else ""
    found = (
        f"Off by {text.percent(statistics.median(errors), 1)} in the median, by "
        f"{text.percent(errors[-1], 1)} at most; {within} of {len(errors)} within "
        f"{text.percent(WITHIN, 0)}.{lacking} {kept['created'][:10]}, {about['cpu']}, "
        f"{about['cores']} cores; commit {kept['commit']}; {made}."
    )
    return [
        *("## Scale, predicted and measured", "", *wrapped(said), ""),
        *(*narrow(Table("scale", "", heads, cells, left=1)), "", *wrapped(found)),
    ]


def _of_link(row: Mapping, value: float) -> str:
    """Return a figure of a run's link; one host has none."""
    return f"{value:g}" if row["hosts"] > 1 else text.DASH
