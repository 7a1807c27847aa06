"""What filters are, in tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ensync.report import text
from ensync.report.filters.results import KINDS, FiltersResult, RunFilters, TowersFound
from ensync.report.study_text import chance
from ensync.report.verdict import LIKELY

HEADS = [
    "",
    "towers",
    "seeds",
    "filters of one",
    "least colourful, %",
    "most, %",
    "points",
    "p",
    "colourful filters",
]
SCALE = (
    "Grey is a weight of 0; black and white are less and more by what 99 % of a run's weights stay "
    "within, the same for all of its filters."
)
MEASURE = (
    "How colourful a filter is: the share of its energy at right angles to grey, which answers to "
    "no grey image; 0 % sees brightness alone, 100 % colour alone, and random weights have 67 % in "
    "the mean. Above 50 % it is called colourful.",
    "The test: the filters of a seed are put into its towers at random, and the difference between "
    "the most and the least colourful tower is taken, in the mean over seeds. p is how often "
    "chance makes it as large. Filters of one network are not independent of each other, so that a "
    "small p tells of towers that differ, not of why.",
)


def filter_rows(result: FiltersResult) -> list[list[str]]:
    """Return the cells of a row for each network."""
    return [_row(found) for found in result.found]


def _row(found: TowersFound) -> list[str]:
    compared = found.difference is not None
    return [
        *(found.label, found.kind if found.kind != "one" else text.DASH),
        *(str(len(found.seeds)), str(found.filters)),
        *(_mean(found.least), _mean(found.most) if compared else text.DASH),
        f"{100 * found.difference:.1f}" if found.difference is not None else text.DASH,
        chance(found.p).removeprefix("= "),
        _counts(found),
    ]


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * fmean(known):.1f}" if known else text.DASH


def _counts(found: TowersFound) -> str:
    """Return how many filters are colourful, by tower, in the mean over seeds: "3.3 and 11"."""
    return " and ".join(f"{fmean(each):.3g}" for each in zip(*found.colourful)) or text.DASH


def filter_verdict(result: FiltersResult) -> list[str]:
    """Return what was found, a sentence for each network whose towers are compared."""
    compared = [found for found in result.found if found.difference is not None]
    if compared:
        return [_sentence(found) for found in compared]
    if any(run.measured for run in result.runs):
        means = [tower.mean for run in result.runs for tower in run.towers]
        return [f"Filters are colourful by {_mean(means)} % in the mean; there is one tower."]
    return ["The images are grey, so that there is no colour to measure."]


def _sentence(found: TowersFound) -> str:
    assert found.difference is not None and found.p is not None
    figures = (
        f"{_mean(found.most)} % against {_mean(found.least)} % "
        f"(p {chance(found.p)}, {text.plural(len(found.seeds), 'seed')})."
    )
    if found.kind == "blocks":
        return f"{found.label}: {KINDS['blocks']}, by chance have {figures}"
    differ = found.p < LIKELY
    what = (
        "one tower is more colourful than the other"
        if len(found.colourful[0]) == 2
        else "some towers are more colourful than others"
    )
    said = f"{found.label}: {what if differ else 'its towers are not told apart by colour'}"
    return f"{said}, {figures}"


def filter_lines(result: FiltersResult) -> list[str]:
    """Return the lines for a terminal: the table, and what was found."""
    return [*text.table(HEADS, filter_rows(result), left=(0, 1)), *filter_verdict(result)]


def caption(run: RunFilters) -> str:
    """Return what stands below the picture of a run."""
    kind = KINDS[run.kind]
    return f"Seed {run.seed}, after {text.plural(run.epochs, 'epoch')}. A tower: {kind}. {SCALE}"
