"""The part of RESULTS.md where epochs of trainings stand beside those of the jobs' sources."""

import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from results_text import HERE, name_of, narrow, wrapped

from ensync.report import text
from ensync.report.study_tables import Table


def source_lines(
    found: Mapping[Path, Sequence[Mapping]], sources: Mapping[str, Mapping]
) -> list[str]:
    """Return a table for each job that has a source of whose epochs figures are known: training
    accuracy and seconds of the source's epochs, and of ours.

    Args:
        found: What is kept of single trainings, by job.
        sources: Each a column: its `name`, the `images` of an epoch, the names of `jobs`, and
            its `epochs`, a training accuracy (0 to 1) and seconds by the epoch's number.
    """
    lines = []
    for job, runs in found.items():
        columns = [each for each in sources.values() if name_of(job) in each["jobs"]]
        ours = [run for run in runs if run.get("epochs")]
        if columns and ours:
            lines += ["", f"#### {job.relative_to(HERE)}", "", *_table(columns, ours)]
            told = [f"{name}: {_made(run)}." for name, run in _named(ours).items()]
            lines += ["", *wrapped(" ".join([_comparable(columns, ours), *told]))]
    if not lines:
        return []
    said = (
        "Training accuracy, the mean over an epoch's batches as they are trained on, in %, and "
        "seconds of the epoch, where nothing else ran; of several members the mean accuracy and "
        "the longest time."
    )
    return ["", "### Beside the sources, epoch by epoch", "", *wrapped(said), *lines]


def _table(columns: Sequence[Mapping], runs: Sequence[Mapping]) -> list[str]:
    numbers = {int(number) for column in columns for number in column["epochs"]}
    numbers |= {max(record["epoch"] for record in run["epochs"]) for run in runs}
    rows = []
    for number in sorted(numbers):
        cells = [_cell(*column["epochs"].get(str(number), (None, None))) for column in columns]
        rows.append([str(number), *cells, *[_cell(*_epoch(run, number)) for run in runs]])
    heads = ["epoch", *[column["name"] for column in columns], *_named(runs)]
    return narrow(Table("sources", "", heads, rows))


def _cell(accuracy: float | None, seconds: float | None) -> str:
    if accuracy is None:
        return text.DASH
    return f"{100 * accuracy:.2f}" + (f" in {text.seconds(seconds)}" if seconds else "")


def _epoch(run: Mapping, number: int) -> tuple[float | None, float | None]:
    """Return the mean training accuracy of all members in an epoch, and the longest time, None
    where other programs ran.
    """
    records = [record for record in run["epochs"] if record["epoch"] == number]
    if not records:
        return None, None
    accuracy = sum(record["train_accuracy"] for record in records) / len(records)
    return accuracy, None if run.get("busy") else max(record["seconds"] for record in records)


def _named(runs: Sequence[Mapping]) -> dict[str, Mapping]:
    """Return runs by the heads of their columns."""
    if len(runs) == 1:
        return {"Ensync": runs[0]}
    return {f"Ensync {string.ascii_uppercase[place]}": run for place, run in enumerate(runs)}


def _made(run: Mapping) -> str:
    training, machine = run["job"]["training"], run["machine"]
    members = len(run["members"])
    return (
        (f"{members} members, " if members > 1 else "")
        + f"{training.get('precision', 'float32')}, seed {training['seed']}, "
        + f"{machine['ranks']} x {machine['threads_per_rank']} on {machine['cpu']}"
    )


def _comparable(columns: Sequence[Mapping], runs: Sequence[Mapping]) -> str:
    """Return what an epoch of each column trains on, and whether that is the same everywhere."""
    seen = {column["name"]: column["images"] for column in columns}
    seen |= {
        name: sum(record["images"] for record in run["epochs"] if record["epoch"] == 1)
        for name, run in _named(runs).items()
    }
    if len(set(seen.values())) == 1:
        return f"All train on {next(iter(seen.values())):,} images in an epoch."
    told = "; ".join(f"{name}: {images:,}" for name, images in seen.items())
    return f"Columns with other numbers of images in an epoch are not comparable: {told}."
