"""Make RESULTS.md and the picture beside it from the comparisons in results/, or keep one there.

    mpirun -n 2 ensync compare jobs/quickstart.toml
    python jobs/results.py keep jobs/quickstart.toml runs/quickstart
    python jobs/results.py

The first copies the run's comparison.json in short. The second writes RESULTS.md, and the picture
for light and dark pages; `make results` calls it.

A kept comparison names the commit that made it. No figure of RESULTS.md is typed.
"""

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from ensync.core.config.job import load_job
from ensync.report import curves, style, tables, text
from ensync.report.results import Comparison, Contestant, from_json
from ensync.report.verdict import notes_of, rows_to_compare, verdict

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PICTURED = "fashion_mnist-mlp_ensemble"
HISTORY = ("member", "epoch", "elapsed", "train_accuracy", "validation_accuracy")
FONTS = "DejaVu Sans, Verdana, sans-serif"
DROPPED = ("measured", "accuracy_by_members")
LIGHT = {
    "ink": "#1a1a1b",
    "faint": "#d9d9d8",
    "blue": "#0072b2",
    "orange": "#d55e00",
    "grey": "#6f6f73",
}
DARK = {
    "ink": "#e6edf3",
    "faint": "#3d444d",
    "blue": "#4aa9e6",
    "orange": "#f28a45",
    "grey": "#9d9fa6",
}


def keep(job: Path, directory: Path) -> Path:
    """Copy the comparison of a run into results/ without what RESULTS.md needs not; return where.

    Only of that job, and from a checkout whose source is the commit that is named.
    """
    comparison = json.loads((directory / "comparison.json").read_text())
    if others := differences(job, comparison):
        sys.exit(f"{directory} is no comparison of {job}: {', '.join(others)}")
    if changed := _git("status", "--porcelain", "--", "src"):
        sys.exit(f"src has changes that no commit names:\n{changed}")
    made = datetime.fromisoformat(comparison["created"]).timestamp()
    if made < float(_git("log", "-1", "--format=%ct", "--", "src")):
        sys.exit(f"{directory} was made before the newest commit of src; run it again")
    kept = {key: value for key, value in comparison.items() if key not in DROPPED}
    kept["commit"] = _git("log", "-1", "--format=%h", "--", "src")
    kept["histories"] = {
        name: [{key: record[key] for key in HISTORY if key in record} for record in records]
        for name, records in comparison["histories"].items()
    }
    path = HERE / "results" / f"{name_of(job)}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(_compact(kept))
    return path


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def _compact(kept: Mapping) -> str:
    """Return JSON with one line for each entry, record and row."""
    dense = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
    lines = []
    for key, value in kept.items():
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
    return "-".join(job.resolve().relative_to(HERE).with_suffix("").parts)


def jobs() -> list[Path]:
    """Return all job files, the quickstart first."""
    return sorted(HERE.rglob("*.toml"), key=lambda path: (len(path.parts), path))


def kept_comparisons() -> dict[str, dict]:
    """Return the kept comparisons by name."""
    paths = sorted((HERE / "results").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in paths}


def results(kept: Mapping[str, Mapping]) -> str:
    """Return RESULTS.md."""
    lines = [
        "# Results",
        "",
        "Made by `make results` from the comparisons in `jobs/results/`; no figure is typed.",
        "Accuracy is that of the test split with its 95 % interval. Seconds are of one run.",
        "Every job says in its first lines how to run it.",
    ]
    found = {}
    for job in jobs():
        if name_of(job) in kept:
            found[name_of(job)] = job
            lines += ["", *_section(job, kept[name_of(job)])]
    left = [job for job in jobs() if job not in found.values()]
    if unknown := sorted(set(kept) - set(found)):
        sys.exit(f"no job file for {', '.join(unknown)} of results/")
    lines += ["", "## Not run with this version", ""]
    lines += [f"- `{job.relative_to(ROOT)}`" for job in left]
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
    lines += [*_wrapped(f"{data}, {size['test']:,} for testing; {epochs}."), ""]
    lines += _wrapped(f"{day}, {where}; commit {kept['commit']}; {made}.")
    lines += ["", "| | ranks | accuracy | 95 % interval | seconds | speed-up | sent |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in comparison.rows:
        cells = tables.comparison_cells(comparison, row)
        shown = [cells[place] for place in (0, 1, 2, 3, 6, 7, 9)]
        lines.append("| " + " | ".join(shown) + " |")
    lines += [""]
    for name, note in notes_of(comparison):
        lines += [*_wrapped(f"{name}: {note}."), ""]
    for sentence in verdict(comparison):
        lines += [*_wrapped(sentence), ""]
    return lines[:-1]


def _wrapped(sentence: str) -> list[str]:
    return textwrap.wrap(sentence, 100, break_long_words=False, break_on_hyphens=False)


def picture(kept: Mapping, colors: Mapping[str, str]) -> str:
    """Return accuracy against time as an SVG file for a light or a dark page."""
    comparison = from_json(Comparison, kept)
    ends = dict(zip(Contestant, rows_to_compare(comparison)))
    stars = {who.value: (row.seconds, row.test_accuracy) for who, row in ends.items() if row}
    figure = curves.accuracy_by_seconds(comparison.histories, stars)
    label = f"accuracy against time, {comparison.dataset.name}"
    svg = style.to_svg(figure, "comparison", label)
    box = re.search(r'viewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)"', svg)
    for name, color in colors.items():
        svg = svg.replace(f"var(--{name})", color)
    width, height = box.groups()
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    start = f'<svg {names} width="{width}pt" height="{height}pt" font-family="{FONTS}"'
    svg = re.sub(r"(</g>|/>|</text>)(?=<)", r"\1\n", svg.replace("<svg", start, 1))
    # an end of line is a blank in a tag, but nothing in a text
    svg = re.sub(r">[^<]+<", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), svg)
    return "\n".join("\n".join(_wrapped(line)) for line in svg.splitlines()) + "\n"


def main(arguments: list[str]) -> None:
    """Keep the comparison that is named, or write RESULTS.md and the picture."""
    if arguments[:1] == ["keep"]:
        print(keep(*map(Path, arguments[1:])))
        return
    kept = kept_comparisons()
    (HERE / "RESULTS.md").write_text(results(kept))
    for name, colors in (("light", LIGHT), ("dark", DARK)):
        (HERE / f"comparison-{name}.svg").write_text(picture(kept[PICTURED], colors))


if __name__ == "__main__":
    main(sys.argv[1:])
