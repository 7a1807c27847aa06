"""The part of RESULTS.md on single trainings."""

import re
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from results_text import HERE, narrow, wrapped

from ensync.core.statistics import mean_interval
from ensync.report import text
from ensync.report.results import FusionFigures, RunResult, from_json
from ensync.report.study_tables import Table


def run_lines(found: Mapping[Path, Sequence[Mapping]]) -> list[str]:
    """Return the table of single trainings, a row for each job, precision, place and processor, and
    below it where each was made and what its source says.
    """
    lines = ["## Single trainings", ""]
    lines += wrapped(
        "Means over seeds; seconds of those beside which nothing else ran. Accuracy in %, the "
        "test's with its standard deviation over seeds; training and validation: after the last "
        "epoch, of several members the mean of theirs."
    )
    for folder in dict.fromkeys(job.parent for job in found):
        here = {job: runs for job, runs in found.items() if job.parent == folder}
        rows, notes = [], []
        for job, runs in here.items():
            for group in _alike(runs):
                rows.append(_run_row(job, group))
            notes += _run_notes(job, runs)
        heads = ["job", "processor", "ranks x threads", "epochs", "seeds", "seconds"]
        heads += ["train", "val.", "test"]
        table = Table("runs", str(folder.relative_to(HERE)), heads, rows)
        lines += ["", f"### {table.title}", "", *narrow(table), "", *notes]
    return lines


def _alike(runs: Sequence[Mapping]) -> list[list[tuple[RunResult, Mapping]]]:
    """Return the runs of one job in groups that differ in their seed alone, made on one kind of
    processor, each with what is kept of it.
    """
    groups: dict[tuple, list[tuple[RunResult, Mapping]]] = {}
    for each in runs:
        run = from_json(RunResult, each)
        key = (_place(run), _processor(run), run.job["training"].get("precision", "float32"))
        groups.setdefault(key, []).append((run, each))
    return list(groups.values())


def _place(run: RunResult) -> str:
    machine = run.machine
    return f"{machine.ranks} x {machine.threads_per_rank}" if machine else text.DASH


def _processor(run: RunResult) -> str:
    return run.machine.cpu or text.DASH if run.machine else text.DASH


def _run_row(job: Path, group: Sequence[tuple[RunResult, Mapping]]) -> list[str]:
    """Return the cells of runs that differ in their seed alone."""
    runs = [run for run, _ in group]
    training = runs[0].job["training"]
    precision = training.get("precision", "float32")
    name = job.stem + (f" ({precision})" if precision != "float32" else "")
    steps = training.get("max_steps")
    train = _mean([_mean(kept["train_accuracy"]) for _, kept in group])
    validation = _mean([_mean(run.validation_accuracy) for run in runs])
    seconds = _mean([run.seconds for run, kept in group if not kept.get("busy")])
    return [
        name,
        _processor(runs[0]),
        _place(runs[0]),
        f"{steps} steps" if steps else str(training["epochs"]),
        str(len(runs)),
        text.seconds(seconds),
        *[text.percent(value).removesuffix(" %") for value in (train, validation)],
        _over_seeds([_tested(run) for run in runs]),
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _tested(run: RunResult) -> float | None:
    """Return the test accuracy of a run, of its own fusion."""
    figures = next(iter(run.test.values()), None)
    return figures.accuracy if isinstance(figures, FusionFigures) else None


def _over_seeds(values: Sequence[float | None]) -> str:
    """Return the mean with its standard deviation in percent."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return text.DASH
    if len(known) == 1:
        return f"{known[0]:.2f}"
    mean, sd = mean_interval(known).value, statistics.stdev(known)
    return f"{mean:.2f} \N{PLUS-MINUS SIGN} {sd:.2f}"


def _exits(run: RunResult) -> str:
    """Return what a network with exits reaches, with which share of its arithmetic."""
    if not run.exits:
        return ""
    whole = max(row.multiply_adds for row in run.exits)
    found = [
        f"{text.percent(row.accuracy)} with {text.percent(row.multiply_adds / whole, 0)} "
        + ("(never)" if row.threshold is None else f"({row.threshold:g})")
        for row in run.exits
    ]
    return (
        "Exits, test accuracy with a share of the multiply-adds of all layers, by the confidence "
        f"from which images leave: {', '.join(found)}."
    )


def _members(run: RunResult) -> str:
    """Return how accurate each of several members is by itself, beside what they are fused by."""
    alone = [accuracy for accuracy in run.members if accuracy is not None]
    if len(alone) < 2:
        return ""
    seed, fused = run.job["training"]["seed"], next(iter(run.test)).replace("_", " ")
    mean, least, most = map(text.percent, (_mean(alone), min(alone), max(alone)))
    return (
        f"The {len(alone)} members of seed {seed} alone: test accuracy {mean} on average, {least} "
        f"to {most}; fused by {fused}."
    )


def _an_epoch(runs: Sequence[Mapping]) -> str:
    """Return what an epoch of training took on each kind of processor, where that is kept."""
    took: dict[str, list[float]] = {}
    for run in runs:
        took.setdefault(_processor(from_json(RunResult, run)), []).extend(
            record["seconds"] for record in run.get("epochs", []) if not run.get("busy")
        )
    told = [f"{text.seconds(statistics.median(v))} s ({k})" for k, v in took.items() if v]
    return f"An epoch here, in the median: {', '.join(told)}." if told else ""


def _run_notes(job: Path, runs: Sequence[Mapping]) -> list[str]:
    """Return when, where and with what a job was trained, and its source's figure."""
    first = from_json(RunResult, runs[0])
    days = sorted({each["created"][:10] for each in runs})
    commits = ", ".join(sorted({each["commit"] for each in runs}))
    numbers = {each["job"]["training"]["seed"] for each in runs}
    seeds = ", ".join(map(str, sorted(numbers)))
    made = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    said = [
        f"- {job.stem}: {' to '.join(dict.fromkeys((days[0], days[-1])))}; seeds {seeds}; "
        f"commit {commits}; {made}."
    ]
    members = [_members(from_json(RunResult, each)) for each in runs]
    others = _exits(first), *members, source_of(job), _an_epoch(runs)
    said += [f"  {more}" for more in others if more]
    return [
        line
        for sentence in said
        for line in textwrap.wrap(
            sentence, 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    ]


def source_of(job: Path) -> str:
    """Return the sentence of a job's header that says what its source reached, "" without one."""
    header = []
    for line in job.read_text().splitlines():
        if not line.startswith("# ") or line.startswith("#   "):
            break
        header.append(line.removeprefix("# "))
    sentences = re.split(r"(?<=[a-z0-9%)])\. ?(?=[A-Z]|$)", " ".join(header))
    found = [one for one in sentences if re.search(r"The source\b|mean of [\d,]+ runs", one)]
    return f"{found[0]}." if found else ""
