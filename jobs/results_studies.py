"""The parts of RESULTS.md on studies."""

from collections.abc import Mapping
from pathlib import Path

from results_text import HERE, narrow, wrapped

from ensync.core.statistics import mean_interval
from ensync.report import text
from ensync.report.filters.results import FiltersResult
from ensync.report.filters.words import HEADS, MEASURE, SCALE, filter_rows, filter_verdict
from ensync.report.results import from_json
from ensync.report.study_results import ContestantResult, Range, StudyResult
from ensync.report.study_tables import (
    Table,
    accuracy_table,
    cost_table,
    predicted_by,
    predicted_table,
    sent_per_sample,
)
from ensync.report.study_text import points, shares, span
from ensync.report.study_verdict import study_verdict

SLOW_LINKS = "slow_links"  # the study whose bytes and seconds are beside those of synchronous


def together_or_apart(found: Mapping[Path, Mapping]) -> list[str]:
    """Return the table of all studies: each contestant whose networks are trained apart, less
    synchronous training on the same ranks.
    """
    studies = [from_json(StudyResult, kept) for kept in found.values()]
    heads = [
        "study",
        "ranks",
        "apart",
        "points",
        "new images",
        "better",
        "from",
        "larger",
    ]
    rows = [
        [job.stem.replace("_", " "), *cells]
        for job, study in zip(found, studies)
        for cells in _apart_rows(study)
    ]
    said = (
        "Points: test accuracy of networks trained apart less that of one trained synchronously on "
        "as many ranks, mean over seeds, with its 95 % interval on new images. From: the networks "
        "that it takes to be more accurate than that one by what a study calls practically equal, "
        "a dash where all are not. Larger: points of one network with the parameters of all, less "
        "the same one; with the budget `samples` it takes as many times the arithmetic of the "
        "others. Each study has its section below, with its budget, which is `samples` where its "
        "name has no other."
    )
    return [
        *("## Together or apart", "", *wrapped(said), ""),
        *narrow(Table("apart", "", heads, rows, left=1)),
    ]


def _apart_rows(study: StudyResult) -> list[list[str]]:
    """Return the cells of each contestant of a study that is compared with synchronous training."""
    by_key = {each.key: each for each in study.contestants}
    pairs = {(pair.first, pair.second): pair for pair in study.pairs}
    larger = {
        pair.ranks: points(-pair.difference, True)
        for pair in study.pairs
        if by_key[pair.first].name == "synchronous" and by_key[pair.second].name == "larger_network"
    }
    rows = []
    for each in study.contestants:
        pair = pairs.get((f"synchronous@{each.ranks}", each.key))
        if each.together or pair is None:
            continue
        interval = pair.on_new_images
        turned = interval and Range(low=-interval.high, high=-interval.low)
        better = {"first": "together", "second": "apart", "equal": "equal"}.get(pair.verdict, "?")
        rows.append(
            [
                *(str(each.ranks), each.label, points(-pair.difference, True)),
                *(span(turned, True), better),
                _from(each, by_key[pair.first].accuracy.mean + study.practically_equal / 100),
                larger.get(each.ranks, text.DASH),
            ]
        )
    return rows


def _from(apart: ContestantResult, least: float) -> str:
    """Return the fewest networks of a contestant that reach an accuracy, by the mean over their
    choices and seeds.
    """
    sizes = apart.member_figures.by_size if apart.member_figures else []
    enough = [each.members for each in sizes if (each.accuracy or 0) >= least]
    return str(min(enough)) if enough else text.DASH


def study_section(job: Path, kept: Mapping) -> list[str]:
    """Return what a study showed: where it was made, its table, its verdict."""
    study = from_json(StudyResult, kept)
    made = ", ".join(f"{name} {version}" for name, version in study.versions.items())
    size, day = study.dataset.sizes, study.created[:10]
    seeds = max(len(each.seeds) for each in study.contestants)
    lines = [f"## {job.relative_to(HERE)}", ""]
    lines += wrapped(
        f"{study.dataset.name}: {size['train']:,} images for training, {size['test']:,} for "
        f"testing; {text.plural(seeds, 'seed')}. Budget, {study.budget.name}: "
        f"{study.budget.sentence}"
    )
    where = f"{study.machine.cpu}, {text.plural(study.machine.nodes or 1, 'node')}"
    precision = study.job["training"].get("precision", "float32")
    where += f"; {precision}" if precision != "float32" else ""
    lines += ["", *wrapped(f"{day}, {where}; commit {kept['commit']}; {made}."), ""]
    table = _links_table if job.stem == SLOW_LINKS else _short_table
    lines += [*narrow(table(study)), ""]
    if study.predicted:
        lines += [*wrapped(predicted_by(study)), "", *narrow(_predicted(study)), ""]
    for each in study.left_out:
        lines += [*wrapped(f"Left out: {each.what}: {each.reason}."), ""]
    for sentence in study_verdict(study):
        lines += [*wrapped(sentence), ""]
    if "filters" in kept:
        filters = from_json(FiltersResult, kept["filters"])
        lines += [*_against_towers(study, filters), *_filter_lines(job.stem, filters)]
    return lines[:-1]


def _against_towers(study: StudyResult, filters: FiltersResult) -> list[str]:
    """Return what a network of towers has more than each other one, seed by seed."""
    labels = {each.label for each in filters.found if each.kind == "towers"}
    found = [each for each in study.contestants if each.label in labels]
    if not found:
        return []
    towers, rows = max(found, key=lambda each: each.ranks), []
    for each in study.contestants:
        if each is not towers:
            gains = [a - b for a, b in zip(towers.accuracy.values, each.accuracy.values)]
            mean, low, high = mean_interval(gains)
            shown = [points(gain, True) for gain in (mean, *gains)]
            rows.append([each.label, shown[0], span(Range(low=low, high=high), True), *shown[1:]])
    heads = ["less", "points", "95 %", *(f"seed {seed}" for seed in towers.seeds)]
    said = f"What the network of {towers.label} has more than each other one, by seeds in pairs:"
    return [*wrapped(said), "", *narrow(Table("towers", "", heads, rows)), ""]


def _filter_lines(name: str, result: FiltersResult) -> list[str]:
    """Return what the first layers of a study's networks see: a table, its answer, a picture."""
    lines = ["### Filters of the first layer", ""]
    lines += [*narrow(Table("filters", "", HEADS, filter_rows(result), left=2)), ""]
    for sentence in (*filter_verdict(result), *MEASURE):
        lines += [*wrapped(sentence), ""]
    lines += [
        "<picture>",
        f'  <source media="(prefers-color-scheme: dark)" srcset="{name}_filters-dark.svg">',
        f'  <img src="{name}_filters-light.svg" alt="filters of the first layer">',
        "</picture>",
    ]
    return [*lines, "", *wrapped(f"Of the first seed, and the curves of all. {SCALE}"), ""]


def _short_table(study: StudyResult) -> Table:
    """Return accuracy with both intervals and core-seconds, narrow enough for a text file."""
    accuracy, cost = accuracy_table(study), cost_table(study)
    timed = all(each.cost.timed for each in study.contestants)
    shown = {"core-s": cost.heads.index("core-seconds")} if timed else {}
    if study.over:
        shown["sent a sample"] = cost.heads.index("sent a sample")
    rows = [
        [*row[:3], *row[4:7], *(spent[place] for place in shown.values())]
        for row, spent in zip(accuracy.rows, cost.rows)
    ]
    heads = ["", "ranks", "nets", "accuracy, %", "these images", "new images"]
    return Table("short", "", [*heads, *shown], rows)


def _predicted(study: StudyResult) -> Table:
    """Return the seconds that were predicted for more nodes; the sentence stands before it."""
    table = predicted_table(study)
    return Table(table.name, "", ["", *table.heads[1:]], table.rows)


def _links_table(study: StudyResult) -> Table:
    """Return the accuracy, the bytes and the seconds of each contestant beside those of synchronous
    training.
    """
    first = next(each for each in study.contestants if each.name == "synchronous")
    rows = [
        [
            each.label,
            shares(each.validation_accuracy),
            shares(each.accuracy),
            sent_per_sample(each),
            text.seconds(_spent(each)),
            *(_part(of(each), of(first)) for of in (_sent, _spent)),
        ]
        for each in study.contestants
    ]
    heads = ["", "validation, %", "test, %", "sent a sample", "s", "of its bytes", "of its seconds"]
    return Table("links", "", heads, rows)


def _sent(each: ContestantResult) -> float | None:
    return each.cost.bytes_per_sample.mean if each.cost.bytes_per_sample else None


def _spent(each: ContestantResult) -> float | None:
    return each.cost.seconds.mean if each.cost.seconds else None


def _part(value: float | None, whole: float | None) -> str:
    """Return a share in percent: "12 %", "0.7 %"."""
    if not (value and whole):
        return text.DASH
    return text.percent(value / whole, 0 if value >= 0.095 * whole else 1)
