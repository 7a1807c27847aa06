"""A comparison as one HTML page that needs nothing else, and what all pages share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypedDict

from ensync.core.errors import printable_lines
from ensync.core.fusion import fusion_label
from ensync.report import plots, tables, text
from ensync.report.files import finite
from ensync.report.plots import Drawing
from ensync.report.results import (
    Comparison,
    ComparisonRow,
    Contestant,
    DatasetFacts,
    Machine,
    Settings,
    from_json,
)
from ensync.report.verdict import (
    choose,
    interval_of,
    notes_of,
    row_oversubscribed,
    rows_to_compare,
)


class Cell(TypedDict):
    """A cell of the page's table; best: whether it is the best of its column."""

    text: object
    best: bool


class Made(Protocol):
    """What says when, on which data, where and with what it was made."""

    @property
    def created(self) -> str:
        """The time, in ISO's form; empty where it is not known."""

    @property
    def dataset(self) -> DatasetFacts:
        """The images."""

    @property
    def machine(self) -> Machine:
        """The place."""

    @property
    def versions(self) -> Mapping[str, str]:
        """The software."""


def comparison_page(comparison: Comparison) -> str:
    """Return the page of a comparison."""
    comparison = from_json(Comparison, finite(comparison))  # as it will be read from its file
    heads, rows = _comparison_table(comparison)
    choice = choose(comparison)
    marked = any(row_oversubscribed(comparison, row) for row in comparison.rows)
    return render(
        "page.html",
        title=f"Ensync comparison: {_subject(comparison)}",
        heading=f"Together or apart? {_subject(comparison)}",
        under=made_where(comparison),
        verdict=choice.lines,
        cards=cards_of(comparison, choice.row),
        heads=heads,
        rows=rows,
        notes=[
            *tables.measure_notes(marked),
            *[f"{name}: {note}" for name, note in notes_of(comparison)],
        ],
        sections=_comparison_sections(comparison),
        method=_method(comparison),
        facts=facts_of(comparison),
        job=toml_of(comparison.job),
        version=f" {comparison.versions['ensync']}" if "ensync" in comparison.versions else "",
        beside="comparison.json and comparison.csv",
    )


def render(template: str, **parts: object) -> str:
    """Return a template of this package filled in, every text escaped."""
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
    return environment.get_template(template).render(**parts)


def framed(page: str) -> str:
    """Return a page as an element of a notebook, in a frame, so that its style is its own."""
    from markupsafe import escape

    return f'<iframe srcdoc="{escape(page)}" style="width:100%;height:40rem;border:0"></iframe>'


def _clean(value: object) -> object:
    """Return text without control characters other than the ends of lines; what is marked up
    already stays.
    """
    return (
        printable_lines(value)
        if isinstance(value, str) and not hasattr(value, "__html__")
        else value
    )


def _subject(comparison: Comparison) -> str:
    """Return "fashion-mnist with mlp"."""
    data = comparison.dataset
    network = comparison.job.get("network", {}).get("name")
    return " with ".join(str(each) for each in (data.name or Path(data.path).stem, network) if each)


def made_where(made: Made) -> str:
    """Return the line below the heading: when, where, on how many ranks."""
    machine, parts = made.machine, []
    if made.created:
        parts.append(datetime.fromisoformat(made.created).strftime("%Y-%m-%d %H:%M"))
    if machine.ranks:
        ranks = text.plural(machine.ranks, "rank")
        threads = text.plural(machine.threads_per_rank or 1, "thread")
        parts.append(f"{ranks} x {threads} on {text.plural(machine.nodes or 1, 'node')}")
    return ", ".join([*parts, *filter(None, [machine.cpu])])


class Card(TypedDict):
    """One of the strategies that stand beside each other; chosen: whether it is advised."""

    title: str
    accuracy: str
    facts: list[str]
    chosen: bool


def cards_of(comparison: Comparison, chosen: ComparisonRow | None) -> list[Card]:
    """Return one rank alone, training together and training apart, beside each other."""
    alone, together, apart = rows_to_compare(comparison)
    if together is alone:
        alone = None
    rows = {"Together": together, "Apart": apart, "One rank alone": alone}
    seconds = [row.seconds if row else None for row in rows.values()]
    return [
        {
            "title": title,
            "accuracy": text.percent(row.test_accuracy),
            "facts": _card_facts(comparison, row, spent),
            "chosen": chosen is not None and row.name == chosen.name,
        }
        for (title, row), spent in zip(rows.items(), text.column(seconds), strict=True)
        if row
    ]


def _card_facts(comparison: Comparison, row: ComparisonRow, seconds: str) -> list[str]:
    """Return what stands below a row's accuracy: interval, seconds, ranks and networks."""
    interval = interval_of(comparison, row)
    facts = []
    if interval:
        facts.append(f"95 % interval {100 * interval.low:.2f} to {text.percent(interval.high)}")
    if not text.missing(row.seconds):
        mark = tables.NO_MEASURE * row_oversubscribed(comparison, row)
        facts.append(f"{seconds} s{mark}")
    networks = text.plural(row.members or 1, "network")
    if row.fusion:
        networks += f", {fusion_label(row.fusion)}"
    return [*facts, f"{text.plural(row.ranks or 1, 'rank')}, {networks}"]


def reversed_of(value: float | None) -> float | None:
    return None if value is None else -value


def best_of(
    cells: Sequence[Sequence[object]], greatest: Mapping[int, Sequence[float | None]]
) -> list[list[Cell]]:
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


def _comparison_table(comparison: Comparison) -> tuple[list[str], list[list[Cell]]]:
    """Return the heads and the cells of the comparison's table."""
    rows = comparison.rows
    k = next((row.top_k.k for row in rows if row.top_k), None)
    heads, intervals = list(tables.COMPARISON_HEADS), [interval_of(comparison, row) for row in rows]
    cells: list[list[object]] = [[*cells] for cells in tables.comparison_rows(comparison)]
    for row, line, interval in zip(rows, cells, intervals):
        line[3] = plots.draw_interval(interval, intervals)
        line.insert(2, text.setting(row.members))
    heads.insert(2, "members")
    if k:
        heads.insert(5, f"top {k}")
        for row, line in zip(rows, cells):
            line.insert(5, text.percent(row.top_k.accuracy if row.top_k else None))
    seconds = heads.index("seconds")
    return heads, best_of(
        cells,
        {
            3: [row.test_accuracy for row in rows],
            seconds: [reversed_of(row.seconds) for row in rows],
        },
    )


class Section(TypedDict):
    """Figures under a heading; folded: others, shown on demand, under the words of `fold`."""

    heading: str
    figures: list[Drawing]
    folded: list[Drawing]
    fold: str


def section(heading: str, figures: list[Drawing], folded: list[Drawing] | None = None) -> Section:
    """Return figures under a heading, others of the same kind folded."""
    return {"heading": heading, "figures": figures, "folded": folded or [], "fold": "The others"}


def _comparison_sections(comparison: Comparison) -> list[Section]:
    """Return the page's figures under their headings."""
    return [
        section("While training", plots.learning_curves(comparison)),
        section("The members", plots.member_plots(comparison)),
        section("What is taken for what", *plots.confusion_plots(comparison)),
    ]


def _method(comparison: Comparison) -> list[str]:
    """Return how the figures came about, sentence by sentence."""
    training = comparison.job.get("training", {})
    what = "step" if training.get("max_steps") else "epoch"
    length = training.get("max_steps") or training.get("epochs")
    budget = (
        f"All rows trained for {text.plural(length, what)} on the same rows with the same seed."
        if isinstance(length, int)
        else ""
    )
    _, _, apart = rows_to_compare(comparison)
    several = sum(row.contestant is Contestant.ENSEMBLE for row in comparison.rows) > 1
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
            *comparison.measured,
            picked,
            "Speed-up is the time of one rank over the row's time, efficiency is speed-up over "
            "ranks. Seconds are of one run and vary from run to run.",
            "The interval is Wilson's for a share, 95 %: it knows the number of test images, not "
            "the luck of the seed.",
        )
        if line
    ]


def facts_of(made: Made) -> list[list[tuple[str, str]]]:
    """Return tables of names and values: data and machine, then versions."""
    names = {"name": "dataset", "threads_per_rank": "threads per rank"}
    first = [
        (names.get(key, key), phrase(value))
        for key, value in {**finite(made.dataset), **finite(made.machine)}.items()
        if value not in (None, "", [], {})
    ]
    second = [(name, str(version)) for name, version in made.versions.items()]
    return [part for part in (first, second) if part]


def phrase(value: object) -> str:
    """Return a value in words: {"train": 10} as "train 10", lists with commas."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {phrase(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(phrase, value))
    return text.count(value) if isinstance(value, int) else str(value)


def toml_of(job: Settings) -> str:
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
