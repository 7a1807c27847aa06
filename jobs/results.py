"""Make RESULTS.md and the pictures beside it from what is kept in results/, or keep more there.

    mpirun -n 2 ensync compare jobs/quickstart.toml
    python jobs/results.py keep jobs/quickstart.toml runs/quickstart
    python jobs/results.py

    python tests/bench/scale_on_hosts.py --to jobs/results/scale/hosts.json
    python tests/bench/run.py --to jobs/results/speed

`keep` copies in short what the directory holds: study.json of a study (and filters.json, where
`ensync describe --filters` has written it), comparison.json of a comparison, or result.json of a
single training, of which there may be one for each seed. Without it RESULTS.md is written, and
pictures for light and dark pages; `make results` calls that.

What is kept names the commit that made it. No figure of RESULTS.md is typed.
"""

import json
import re
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

from results_speed import speed_lines
from results_text import narrow, wrapped

from ensync.core.config.job import load_job
from ensync.core.statistics import mean_interval
from ensync.report import style, tables, text
from ensync.report.filters.picture import draw_networks
from ensync.report.filters.results import FiltersResult
from ensync.report.filters.words import HEADS, MEASURE, SCALE, filter_rows, filter_verdict
from ensync.report.history import read_history
from ensync.report.results import Comparison, FusionFigures, RunResult, from_json
from ensync.report.study_along_figures import by_bytes, sends
from ensync.report.study_figures import headline
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
from ensync.report.verdict import notes_of, verdict
from ensync.runs.study.origin import code_sha256

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PLACE = HERE / "results"
# Of studies/; beside these each study over what ranks send has a picture.
PICTURED = ("fashion_mnist_mlp", "fashion_mnist_mlp_per_network")
SLOW_LINKS = "slow_links"  # the study whose bytes and seconds are beside those of synchronous
HISTORY = ("member", "epoch", "elapsed", "train_accuracy", "validation_accuracy")
WITHIN = 0.15  # error of a prediction that is to be reached
FONTS = "DejaVu Sans, Verdana, sans-serif"
FILTERS = "filters.json"
DROPPED = ("measured", "accuracy_by_members")
DROPPED_OF_CONTESTANTS = ("confusion", "reliability", "reliability_calibrated")
DROPPED_OF_FUSIONS = ("precision", "recall", "f1", "confusion")
OF_STUDIES = ("training.precision",)  # may differ from the job
OF_RUNS = ("training.seed", "training.threads", *OF_STUDIES)
LIGHT = {
    "ink": "#1a1a1b",
    "faint": "#d9d9d8",
    "blue": "#0072b2",
    "orange": "#d55e00",
    "grey": "#6f6f73",
    "green": "#009e73",
    "purple": "#b0578d",
    "sky": "#3e9fd6",
}
DARK = {
    "ink": "#e6edf3",
    "faint": "#3d444d",
    "blue": "#4aa9e6",
    "orange": "#f28a45",
    "grey": "#9d9fa6",
    "green": "#2fc295",
    "purple": "#d98bbb",
    "sky": "#8acbf2",
}


@dataclass(frozen=True)
class Kept:
    """What is kept by the name of its job; single trainings of one job in a list. scale: what
    tests/bench/scale_on_hosts.py measured, by its name; speed: what the other benchmarks did.
    """

    comparisons: Mapping[str, Mapping] = field(default_factory=dict)
    studies: Mapping[str, Mapping] = field(default_factory=dict)
    runs: Mapping[str, Sequence[Mapping]] = field(default_factory=dict)
    scale: Mapping[str, Mapping] = field(default_factory=dict)
    speed: Mapping[str, Mapping] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The names of all jobs of which something is kept."""
        return {*self.comparisons, *self.studies, *self.runs}


def keep(job: Path, directory: Path) -> Path:
    """Copy what a directory holds into results/ without what RESULTS.md needs not; return where.

    Only of that job, and from a checkout whose source is the commit that is named.
    """
    for name, kind in (("study", _study), ("comparison", _comparison), ("result", _run)):
        if (directory / f"{name}.json").exists():
            found = json.loads((directory / f"{name}.json").read_text())
            path, kept = kind(job, directory, found)
            kept["commit"] = _commit(directory, kept["created"])
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(_compact(kept))
            return path
    sys.exit(f"{directory} holds no study.json, comparison.json or result.json")


def _commit(directory: Path, created: str) -> str:
    """Return the newest commit of src, which must be that of what was made then."""
    if changed := _git("status", "--porcelain", "--", "src"):
        sys.exit(f"src has changes that no commit names:\n{changed}")
    if not created:
        sys.exit(f"{directory} does not say when it was made; run it again")
    made = datetime.fromisoformat(created).timestamp()
    if made < float(_git("log", "-1", "--format=%ct", "--", "src")):
        sys.exit(f"{directory} was made before the newest commit of src; run it again")
    return _git("log", "-1", "--format=%h", "--", "src")


def _refuse_other(job: Path, directory: Path, what: str, found: Mapping, free: tuple = ()) -> None:
    if others := [name for name in differences(job, found) if name not in free]:
        sys.exit(f"{directory} is no {what} of {job}: {', '.join(others)}")


def _comparison(job: Path, directory: Path, found: Mapping) -> tuple[Path, dict]:
    """Return where a comparison is kept, and what of it."""
    _refuse_other(job, directory, "comparison", found)
    kept = {key: value for key, value in found.items() if key not in DROPPED}
    kept["histories"] = {
        name: [{key: record[key] for key in HISTORY if key in record} for record in records]
        for name, records in found["histories"].items()
    }
    return PLACE / f"{name_of(job)}.json", kept


def _study(job: Path, directory: Path, found: Mapping) -> tuple[Path, dict]:
    """Return where a study is kept, and what of it."""
    _refuse_other(job, directory, "study", found, OF_STUDIES)
    if found["cells_left"]:
        sys.exit(f"{directory} is not finished: {found['cells_left']} cells are missing")
    if found["code"] != code_sha256():
        sys.exit(f"{directory} was made by other sources than these; run it again")
    kept = dict(found)
    kept["contestants"] = [
        {key: value for key, value in each.items() if key not in DROPPED_OF_CONTESTANTS}
        for each in found["contestants"]
    ]
    if (directory / FILTERS).exists():
        kept["filters"] = _filters(directory, found)
    return PLACE / "studies" / f"{name_of(job)}.json", kept


def _filters(directory: Path, study: Mapping) -> dict:
    """Return what is kept of filters.json beside a study.json: of pixels those of each network's
    first run.
    """
    found = json.loads((directory / FILTERS).read_text())
    ours, theirs = (
        {(each["label"], *sorted(each["seeds"])) for each in part}
        for part in (found["found"], study["contestants"])
    )
    if ours != theirs:
        sys.exit(f"{directory / FILTERS} is of other runs than study.json; write it anew")
    shown: set[str] = set()
    for run in found["runs"]:
        for tower in run["towers"] if run["label"] in shown else ():
            tower["pixels"] = ""
        shown.add(run["label"])
    return found | {"job": {}}


def _run(job: Path, directory: Path, found: Mapping) -> tuple[Path, dict]:
    """Return where a single training is kept, and what of it, with its last training accuracy."""
    _refuse_other(job, directory, "training", found, OF_RUNS)
    last = {record["member"]: record for record in read_history(directory / "history.jsonl")}
    kept = dict(found) | {
        "train_accuracy": [record.get("train_accuracy") for _, record in sorted(last.items())]
    }
    kept["test"] = {
        method: {key: value for key, value in each.items() if key not in DROPPED_OF_FUSIONS}
        for method, each in found["test"].items()
    }
    training = found["job"]["training"]
    name = f"{name_of(job)}.{training.get('precision', 'float32')}.seed_{training['seed']}.json"
    return PLACE / "runs" / name, kept


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def _compact(kept: Mapping) -> str:
    """Return JSON with one line for each entry, record and row."""
    dense = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
    lines = []
    for key, value in kept.items():
        if isinstance(value, list) and key in ("contestants", "pairs"):
            inner = ",\n".join(map(dense.encode, value))
            lines.append(f"{dense.encode(key)}:[\n{inner}]")
            continue
        parts = value.items() if isinstance(value, dict) and key == "histories" else None
        if parts is None:
            lines.append(f"{dense.encode(key)}:{dense.encode(value)}")
            continue
        inner = ",\n".join(
            f"{dense.encode(name)}:[\n" + ",\n".join(map(dense.encode, records)) + "]"
            for name, records in parts
        )
        lines.append(f"{dense.encode(key)}:{{\n{inner}}}")
    return "{" + ",\n".join(lines) + "}\n"


def differences(job: Path, comparison: Mapping) -> list[str]:
    """Return the settings in which a job file differs from the job of a comparison.

    Settings that one of both does not know are of another version, and left out.
    """
    ours, theirs = load_job(str(job)).model_dump(mode="json", exclude_none=True), comparison["job"]
    return [
        f"{section}.{key}"
        for section in ours.keys() & theirs.keys() - {"output"}
        for key in ours[section].keys() & theirs[section].keys()
        if ours[section][key] != theirs[section][key]
    ]


def name_of(job: Path) -> str:
    """Return the name of a job's kept comparison: its folders and its own, joined by "-"."""
    here = job.parent.resolve() / job.name  # which may be a link itself
    return "-".join(here.relative_to(HERE).with_suffix("").parts)


def jobs() -> list[Path]:
    """Return all job files, the quickstart first."""
    return sorted(HERE.rglob("*.toml"), key=lambda path: (len(path.parts), path))


def kept(directory: Path = PLACE) -> Kept:
    """Return what is kept."""
    runs: dict[str, list[dict]] = {}
    for path in sorted((directory / "runs").glob("*.json")):
        runs.setdefault(path.name.partition(".")[0], []).append(json.loads(path.read_text()))
    studies, scale, speed = (_read(directory / name) for name in ("studies", "scale", "speed"))
    return Kept(_read(directory), studies, runs, scale, speed)


def _read(directory: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}


def results(found: Kept) -> str:
    """Return RESULTS.md."""
    lines = [
        "# Results",
        "",
        "Made by `make results` from what is kept in `jobs/results/`; no figure is typed.",
        "Accuracy is that of the test split with its 95 % interval. Seconds are of one run.",
        "Every job says in its first lines how to run it.",
    ]
    here = {name_of(job): job for job in jobs()}
    if unknown := sorted(found.names - set(here)):
        sys.exit(f"no job file for {', '.join(unknown)} of results/")
    if found.runs:
        lines += ["", *_runs({here[name]: runs for name, runs in found.runs.items()})]
    if found.studies:
        lines += [
            "",
            *_together_or_apart({here[name]: kept for name, kept in found.studies.items()}),
        ]
    for name, job in here.items():
        if name in found.studies:
            lines += ["", *_study_section(job, found.studies[name])]
        if name in found.comparisons:
            lines += ["", *_section(job, found.comparisons[name])]
    for each in found.scale.values():
        lines += ["", *_scale_section(each)]
    if found.speed:
        lines += ["", *speed_lines(found.speed)]
    lines += ["", "## Not run with this version", ""]
    lines += [
        f"- `{job.relative_to(ROOT)}`" for name, job in here.items() if name not in found.names
    ]
    return "\n".join(lines) + "\n"


def _runs(found: Mapping[Path, Sequence[Mapping]]) -> list[str]:
    """Return the table of single trainings, a row for each job, precision and place, and below it
    where each was made and what its source says.
    """
    lines = ["## Single trainings", ""]
    lines += wrapped(
        "Means over seeds. Accuracy in %, the test's with its standard deviation over seeds; "
        "training and validation: after the last epoch, of several members the mean of theirs."
    )
    for folder in dict.fromkeys(job.parent for job in found):
        here = {job: runs for job, runs in found.items() if job.parent == folder}
        rows, notes = [], []
        for job, runs in here.items():
            for group in _alike(runs):
                rows.append(_run_row(job, group))
            notes += _run_notes(job, runs)
        heads = ["job", "ranks x threads", "epochs", "seeds", "seconds", "train", "val.", "test"]
        table = Table("runs", str(folder.relative_to(HERE)), heads, rows)
        lines += ["", f"### {table.title}", "", *narrow(table), "", *notes]
    return lines


def _scale_section(kept: Mapping) -> list[str]:
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


def _alike(runs: Sequence[Mapping]) -> list[list[tuple[RunResult, Sequence]]]:
    """Return the runs of one job in groups that differ in their seed alone, each with the training
    accuracies of its members.
    """
    groups: dict[tuple, list[tuple[RunResult, Sequence]]] = {}
    for each in runs:
        run, extra = from_json(RunResult, each), each["train_accuracy"]
        key = (_place(run), run.job["training"].get("precision", "float32"))
        groups.setdefault(key, []).append((run, extra))
    return list(groups.values())


def _place(run: RunResult) -> str:
    machine = run.machine
    return f"{machine.ranks} x {machine.threads_per_rank}" if machine else text.DASH


def _run_row(job: Path, group: Sequence[tuple[RunResult, Sequence]]) -> list[str]:
    """Return the cells of runs that differ in their seed alone."""
    runs = [run for run, _ in group]
    training = runs[0].job["training"]
    precision = training.get("precision", "float32")
    name = job.stem + (f" ({precision})" if precision != "float32" else "")
    steps = training.get("max_steps")
    train = _mean([_mean(accuracies) for _, accuracies in group])
    validation = _mean([_mean(run.validation_accuracy) for run in runs])
    seconds = sum(run.seconds for run in runs) / len(runs)
    return [
        name,
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


def _run_notes(job: Path, runs: Sequence[Mapping]) -> list[str]:
    """Return when, where and with what a job was trained, and its source's figure."""
    first = from_json(RunResult, runs[0])
    days = sorted({each["created"][:10] for each in runs})
    commits = ", ".join(sorted({each["commit"] for each in runs}))
    seeds = ", ".join(str(each["job"]["training"]["seed"]) for each in runs)
    made = ", ".join(f"{name} {version}" for name, version in first.versions.items())
    where = first.machine.cpu if first.machine else text.DASH
    said = [
        f"- {job.stem}: {' to '.join(dict.fromkeys((days[0], days[-1])))}, {where}; "
        f"seeds {seeds}; commit {commits}; {made}."
    ]
    said += [f"  {more}" for more in (_exits(first), source_of(job)) if more]
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


def _together_or_apart(found: Mapping[Path, Mapping]) -> list[str]:
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


def _study_section(job: Path, kept: Mapping) -> list[str]:
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


def _section(job: Path, kept: Mapping) -> list[str]:
    """Return what a comparison showed: where it was made, its table, its verdict."""
    comparison = from_json(Comparison, kept)
    day = datetime.fromisoformat(comparison.created).strftime("%Y-%m-%d")
    where = f"{comparison.machine.cpu}, {text.plural(comparison.machine.nodes, 'node')}"
    made = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    lines = [f"## {job.relative_to(HERE)}", ""]
    size = comparison.dataset.sizes
    data = f"{comparison.dataset.name}: {size['train']:,} images for training"
    epochs = text.plural(comparison.job["training"]["epochs"], "epoch")
    lines += [*wrapped(f"{data}, {size['test']:,} for testing; {epochs}."), ""]
    lines += wrapped(f"{day}, {where}; commit {kept['commit']}; {made}.")
    lines += ["", "| | ranks | accuracy | 95 % interval | seconds | speed-up | sent |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for cells in tables.comparison_rows(comparison):
        shown = [cells[place] for place in (0, 1, 2, 3, 6, 7, 9)]
        lines.append("| " + " | ".join(shown) + " |")
    lines += [""]
    for name, note in notes_of(comparison):
        lines += [*wrapped(f"{name}: {note}."), ""]
    for sentence in verdict(comparison):
        lines += [*wrapped(sentence), ""]
    return lines[:-1]


def picture(kept: Mapping, colors: Mapping[str, str]) -> str:
    """Return a study's accuracy against cost, or against bytes, as an SVG file for a light or a
    dark page.
    """
    study = from_json(StudyResult, kept)
    draw, what = (by_bytes, "what is sent") if sends(study) else (headline, "cost")
    label = f"accuracy against {what}, {study.dataset.name}"
    return _svg(style.to_svg(draw(study), "study", label), colors)


def filter_picture(kept: Mapping, colors: Mapping[str, str]) -> str:
    """Return the filters of a study's networks as an SVG file for a light or a dark page."""
    result = from_json(FiltersResult, kept)
    figure = draw_networks([result.of(each.label) for each in result.found])
    return _svg(style.to_svg(figure, "filters", "filters of the first layer"), colors)


def _svg(svg: str, colors: Mapping[str, str]) -> str:
    """Return a page's SVG element as a file of its own with these colours, in short lines."""
    box = re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)"', svg)
    for name, color in colors.items():
        svg = svg.replace(f"var(--{name})", color)
    width, height = box.groups()
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    start = f'<svg {names} width="{width}pt" height="{height}pt" font-family="{FONTS}"'
    svg = re.sub(r"(</g>|/>|</text>)(?=<)", r"\1\n", svg.replace("<svg", start, 1))
    # an end of line is a blank in a tag, but nothing in a text
    svg = re.sub(r">[^<]+<", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), svg)
    in_parts = partial(re.sub, "(.{90})", r"\1 ")  # of base64 blanks are no part
    svg = re.sub(r'(?<=base64, )[^"]+', lambda found: in_parts(found[0]), svg)
    return "\n".join("\n".join(wrapped(line)) for line in svg.splitlines()) + "\n"


def pictures(found: Kept) -> dict[str, str]:
    """Return the picture files, by name."""
    over = [name for name, kept in found.studies.items() if sends(from_json(StudyResult, kept))]
    names = [*PICTURED, *(name.removeprefix("studies-") for name in over)]
    made = {}
    for shade, colors in (("light", LIGHT), ("dark", DARK)):
        for name in names:
            made[f"{name}-{shade}.svg"] = picture(found.studies[f"studies-{name}"], colors)
        for name, kept in found.studies.items():
            if "filters" in kept:
                stem = f"{name.removeprefix('studies-')}_filters"
                made[f"{stem}-{shade}.svg"] = filter_picture(kept["filters"], colors)
    return made


def main(arguments: list[str]) -> None:
    """Keep what is in the directory that is named, or write RESULTS.md and the picture."""
    if arguments[:1] == ["keep"]:
        print(keep(*map(Path, arguments[1:])))
        return
    found = kept()
    (HERE / "RESULTS.md").write_text(results(found))
    for name, content in pictures(found).items():
        (HERE / name).write_text(content)


if __name__ == "__main__":
    main(sys.argv[1:])
