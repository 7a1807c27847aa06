"""Make RESULTS.md and the pictures beside it from what is kept in results/, or keep more there.

    mpirun -n 2 ensync compare jobs/quickstart.toml
    python jobs/results.py keep jobs/quickstart.toml runs/quickstart [busy]
    python jobs/results.py

    python tests/bench/scale_on_hosts.py --to jobs/results/scale/hosts.json
    python tests/bench/run.py --to jobs/results/speed

`keep` copies in short what the directory holds: study.json of a study (and filters.json, where
`ensync describe --filters` has written it), comparison.json of a comparison, or result.json of a
single training, of which there may be one for each seed; `busy`: other programs ran beside it, so
that its seconds are left out. Without `keep` RESULTS.md is written, and pictures for light and dark
pages; `make results` calls that.

What is kept names the commit that made it. No figure of RESULTS.md is typed.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from results_pictures import pictures
from results_runs import run_lines
from results_scale import scale_lines
from results_sources import source_lines
from results_speed import speed_lines
from results_studies import study_section, together_or_apart
from results_text import HERE, name_of, wrapped

from ensync.core.config.job import load_job
from ensync.report import tables, text
from ensync.report.history import read_history
from ensync.report.results import Comparison, from_json
from ensync.report.verdict import notes_of, verdict
from ensync.runs.study.origin import code_sha256

ROOT = HERE.parent
PLACE = HERE / "results"
HISTORY = ("member", "epoch", "elapsed", "train_accuracy", "validation_accuracy")
EPOCH = ("member", "epoch", "train_accuracy", "seconds")
FILTERS = "filters.json"
DROPPED = ("measured", "accuracy_by_members")
DROPPED_OF_CONTESTANTS = ("confusion", "reliability", "reliability_calibrated")
DROPPED_OF_FUSIONS = ("precision", "recall", "f1", "confusion")
OF_STUDIES = ("training.precision",)  # may differ from the job
ANY = {"ensemble.members": 0}  # values of a job for which a run has its own
OF_RUNS = ("training.seed", "training.threads", *OF_STUDIES)


@dataclass(frozen=True)
class Kept:
    """What is kept by the name of its job; single trainings of one job in a list. scale: what
    tests/bench/scale_on_hosts.py measured, by its name; speed: what the other benchmarks did;
    sources: what documents that jobs follow report for single epochs, as printed there.
    """

    comparisons: Mapping[str, Mapping] = field(default_factory=dict)
    studies: Mapping[str, Mapping] = field(default_factory=dict)
    runs: Mapping[str, Sequence[Mapping]] = field(default_factory=dict)
    scale: Mapping[str, Mapping] = field(default_factory=dict)
    speed: Mapping[str, Mapping] = field(default_factory=dict)
    sources: Mapping[str, Mapping] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The names of all jobs of which something is kept."""
        return {*self.comparisons, *self.studies, *self.runs}


def keep(job: Path, directory: Path, busy: bool = False) -> Path:
    """Copy what a directory holds into results/ without what RESULTS.md needs not; return where.

    Only of that job, and from a checkout whose source is the commit that is named. busy: whether
    other programs ran beside it.
    """
    for name, kind in (("study", _study), ("comparison", _comparison), ("result", _run)):
        if (directory / f"{name}.json").exists():
            found = json.loads((directory / f"{name}.json").read_text())
            path, kept = kind(job, directory, found)
            kept["commit"], kept["busy"] = _commit(directory, kept["created"]), busy
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
    records = read_history(directory / "history.jsonl")
    last = {record["member"]: record for record in records}
    kept = dict(found) | {
        "train_accuracy": [record.get("train_accuracy") for _, record in sorted(last.items())],
        "epochs": [_epoch(each) for each in records if each["event"] == "epoch"],
    }
    kept["test"] = {
        method: {key: value for key, value in each.items() if key not in DROPPED_OF_FUSIONS}
        for method, each in found["test"].items()
    }
    training = found["job"]["training"]
    precision = training.get("precision", "float32")
    ranks = text.plural((found["machine"] or {}).get("ranks", 1), "rank").replace(" ", "_")
    parts = [name_of(job), precision, ranks, f"seed_{training['seed']}", _processor(found)]
    return PLACE / "runs" / f"{'.'.join(parts)}.json", kept


def _epoch(record: Mapping) -> dict:
    """Return what an epoch of a member reached, in which time, and how many images it trained."""
    images = round(record["samples_per_second"] * record["seconds"])
    return {key: record[key] for key in EPOCH} | {"images": images}


def _processor(found: Mapping) -> str:
    """Return the processor that a run was made on as a part of a file's name."""
    cpu = (found["machine"] or {}).get("cpu") or "unknown"
    generation = re.search(r"\((\S+)\)$", cpu)
    return generation[1] if generation else re.sub(r"\W+", "-", cpu.lower()).strip("-")


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def _compact(kept: Mapping) -> str:
    """Return JSON with one line for each entry, record and row."""
    dense = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
    lines = []
    for key, value in kept.items():
        if isinstance(value, list) and key in ("contestants", "pairs", "epochs"):
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

    Settings that one of both does not know are of another version, and left out. No members in a
    job are as many as ranks, whose number a run has in its place.
    """
    ours, theirs = load_job(str(job)).model_dump(mode="json", exclude_none=True), comparison["job"]
    return [
        f"{section}.{key}"
        for section in ours.keys() & theirs.keys() - {"output"}
        for key in ours[section].keys() & theirs[section].keys()
        if ours[section][key] not in (theirs[section][key], ANY.get(f"{section}.{key}"))
    ]


def jobs() -> list[Path]:
    """Return all job files, the quickstart first."""
    return sorted(HERE.rglob("*.toml"), key=lambda path: (len(path.parts), path))


def kept(directory: Path = PLACE) -> Kept:
    """Return what is kept."""
    runs: dict[str, list[dict]] = {}
    for path in sorted((directory / "runs").glob("*.json")):
        runs.setdefault(path.name.partition(".")[0], []).append(json.loads(path.read_text()))
    others = (_read(directory / name) for name in ("studies", "scale", "speed", "sources"))
    studies, scale, speed, sources = others
    return Kept(_read(directory), studies, runs, scale, speed, sources)


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
        runs = {here[name]: kept for name, kept in found.runs.items()}
        lines += ["", *run_lines(runs), *source_lines(runs, found.sources)]
    if found.studies:
        lines += [
            "",
            *together_or_apart({here[name]: kept for name, kept in found.studies.items()}),
        ]
    for name, job in here.items():
        if name in found.studies:
            lines += ["", *study_section(job, found.studies[name])]
        if name in found.comparisons:
            lines += ["", *_section(job, found.comparisons[name])]
    for each in found.scale.values():
        lines += ["", *scale_lines(each)]
    if found.speed:
        lines += ["", *speed_lines(found.speed)]
    lines += ["", "## Not run with this version", ""]
    lines += [
        f"- `{job.relative_to(ROOT)}`" for name, job in here.items() if name not in found.names
    ]
    return "\n".join(lines) + "\n"


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


def main(arguments: list[str]) -> None:
    """Keep what is in the directory that is named, or write RESULTS.md and the picture."""
    if arguments[:1] == ["keep"]:
        if len(arguments) < 3 or arguments[3:] not in ([], ["busy"]):
            sys.exit(f"keep {' '.join(arguments[1:])}: expected keep JOB.toml RUN [busy]")
        print(keep(*map(Path, arguments[1:3]), busy=arguments[3:] == ["busy"]))
        return
    found = kept()
    (HERE / "RESULTS.md").write_text(results(found))
    for name, content in pictures(found.studies).items():
        (HERE / name).write_text(content)


if __name__ == "__main__":
    main(sys.argv[1:])
