"""The files of a study: study.json, .csv, study_pairs.csv, .md, .tex and .html, all with the same
figures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ensync.core.errors import printable
from ensync.report.export import csv_text
from ensync.report.files import finite, refuse_write, write_whole
from ensync.report.results import to_json
from ensync.report.study_results import ContestantResult, PairResult, Range, Spread, StudyResult
from ensync.report.study_tables import Table, study_tables
from ensync.report.study_text import PLUS_MINUS
from ensync.report.study_verdict import study_verdict

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    PLUS_MINUS: r"$\pm$",
}
FITTED = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"  # a wide table shrinks
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~])")


def write_study(study: StudyResult, directory: Path | str) -> dict[str, Path]:
    """Write all files of a study, each whole or not at all; return what is where. Errors:
    EnsyncError where the directory cannot be written.
    """
    from ensync.report.study_page import study_page

    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refuse_write(directory, error) from error
    contents = {
        "figures": ("study.json", to_json(study)),
        "table": ("study.csv", _csv([contestant_row(each) for each in study.contestants])),
        "pairs": ("study_pairs.csv", _csv([pair_row(each) for each in study.pairs])),
        "markdown": ("study.md", markdown(study)),
        "latex": ("study.tex", latex(study)),
        "page": ("study.html", study_page(study)),
    }
    for name, content in contents.values():
        write_whole(directory / name, content)
    return {kind: directory / name for kind, (name, _) in contents.items()}


def _csv(rows: Sequence[dict[str, object]]) -> str:
    """Return rows as CSV with the columns of the first."""
    return csv_text(list(rows[0]) if rows else [], [finite(row) for row in rows])


def contestant_row(each: ContestantResult) -> dict[str, object]:
    """Return the figures of a contestant without those that are lists."""
    row: dict[str, object] = {
        "contestant": each.name,
        "label": each.label,
        "ranks": each.ranks,
        "threads": each.threads,
        "networks": each.members,
        "parameters": each.parameters,
        "fusion": each.fusion,
        "seeds": " ".join(map(str, each.seeds)),
        "learning_rate_factor": each.learning_rate_factor,
        "test_accuracy": each.accuracy.mean,
        "test_accuracy_sd": each.accuracy.sd,
        **_ends("on_these_images", each.accuracy.on_these_images),
        **_ends("on_new_images", each.accuracy.on_new_images),
        **_spread("validation_accuracy", each.validation_accuracy),
    }
    for prefix, scores in (("", each.scores), ("calibrated_", each.calibrated)):
        for name in ("log_likelihood", "brier", "ece"):
            row |= _spread(prefix + name, getattr(scores, name) if scores else None)
    members = each.member_figures
    row |= {
        **_spread("temperature", each.temperature),
        **_spread("macro_f1", each.macro_f1),
        "worst_class": each.worst_class.name if each.worst_class else None,
        **_spread("worst_recall", each.worst_class.recall if each.worst_class else None),
        "top_k": each.top_k.k if each.top_k else None,
        **_spread("top_k_accuracy", each.top_k.accuracy if each.top_k else None),
        **_spread("seconds", each.cost.seconds),
        **_spread("core_seconds", each.cost.core_seconds),
        "packed": each.cost.packed,
        "oversubscribed": each.cost.oversubscribed,
        "samples": each.cost.samples,
        "steps": each.cost.steps,
        "bytes_sent": each.cost.bytes_sent,
        **_spread("bytes_per_sample", each.cost.bytes_per_sample),
    }
    for name in ("disagreement", "double_fault", "oracle", "member_loss", "fused_loss"):
        row |= _spread(name, getattr(members, name) if members else None)
    row |= _spread("ambiguity", members.ambiguity if members else None)
    return row | {"equivalent": members.equivalent if members else None}


def pair_row(pair: PairResult) -> dict[str, object]:
    """Return the figures of a pair; McNemar's p-values by seed with blanks between."""
    return {
        "first": pair.first,
        "second": pair.second,
        "ranks": pair.ranks,
        "seeds": len(pair.seeds),
        "difference": pair.difference,
        "sd": pair.sd,
        "sd_image": pair.deviations.image if pair.deviations else None,
        "sd_seed": pair.deviations.seed if pair.deviations else None,
        "sd_interaction": pair.deviations.interaction if pair.deviations else None,
        **_ends("on_these_images", pair.on_these_images),
        **_ends("on_new_images", pair.on_new_images),
        "better": pair.better,
        **_ends("better", pair.better_interval),
        "p_these": pair.p_these,
        "p_value": pair.p_value,
        "p_holm": pair.p_holm,
        **_ends("corrected", pair.corrected),
        "mcnemar": " ".join(f"{each.p_value:.6g}" for each in pair.mcnemar),
        "verdict": pair.verdict,
        "seeds_needed": pair.seeds_needed,
    }


def _spread(name: str, spread: Spread | None) -> dict[str, object]:
    return {
        name: spread.mean if spread else None,
        f"{name}_sd": spread.sd if spread else None,
    }


def _ends(name: str, found: Range | None) -> dict[str, object]:
    return {
        f"{name}_low": found.low if found else None,
        f"{name}_high": found.high if found else None,
    }


def subject(study: StudyResult) -> str:
    """Return "fashion-mnist with mlp"."""
    network = study.job.get("network", {}).get("name")
    data = study.dataset.name or Path(study.dataset.path).stem
    return " with ".join(str(each) for each in (data, network) if each)


def question(study: StudyResult) -> str:
    """Return what a study asks, and of what: the heading of its page."""
    asked = f"What {study.over.setting} does:" if study.over else "Together or apart?"
    return f"{asked} {subject(study)}"


def made_on(study: StudyResult) -> str:
    """Return when and where it was made, in a line."""
    parts = [study.machine.cpu or ""]
    if study.created:
        parts.insert(0, datetime.fromisoformat(study.created).strftime("%Y-%m-%d"))
    return ", ".join(filter(None, parts))


def markdown(study: StudyResult) -> str:
    """Return the verdict, the budget and all tables as Markdown."""
    lines = [f"# {_plain(question(study))}", ""]
    for sentence in study_verdict(study):
        lines += [_plain(sentence), ""]
    lines += [f"Budget, {_plain(study.budget.name)}: {_plain(study.budget.sentence)}", ""]
    lines += [_plain(made_on(study)), ""]
    for table in study_tables(study):
        lines += [f"## {_plain(table.title)}", "", *markdown_table(table), ""]
        for note in table.notes:
            lines += [f"- {_plain(note)}"]
        lines += [""] * bool(table.notes)
    return "\n".join(lines)


def markdown_table(table: Table) -> list[str]:
    """Return the lines of a table as Markdown."""
    rules = [":--" if place < table.left else "--:" for place in range(len(table.heads))]
    rows = [[_plain(cell) for cell in row] for row in (table.heads, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "|".join(rules) + "|", *lines[1:]]


def _plain(words: str) -> str:
    return MARKDOWN.sub(r"\\\1", printable(words))


def latex(study: StudyResult) -> str:
    """Return all tables as LaTeX, to be read by \\input into a document that loads booktabs and
    graphicx.
    """
    lines = [
        f"% {printable(subject(study))}; needs \\usepackage{{booktabs,graphicx}}",
        *[f"% {printable(sentence)}" for sentence in study_verdict(study)],
        f"% Budget: {printable(study.budget.sentence)}",
    ]
    for table in study_tables(study):
        lines += ["", *latex_table(table)]
    return "\n".join(lines) + "\n"


def latex_table(table: Table) -> list[str]:
    """Return the lines of a table as LaTeX (booktabs)."""
    columns = "l" * table.left + "r" * (len(table.heads) - table.left)
    rows = [" & ".join(map(escaped, row)) + r" \\" for row in (table.heads, *table.rows)]
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(table.title)}}}",
        rf"\label{{tab:{table.name}}}",
        FITTED,
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        rows[0],
        r"\midrule",
        *rows[1:],
        r"\bottomrule",
        r"\end{tabular}}",
        *[rf"\par\footnotesize\raggedright {escaped(note)}" for note in table.notes],
        r"\end{table}",
    ]


def escaped(words: str) -> str:
    """Return a text with LaTeX's special characters written out."""
    return "".join(LATEX.get(letter, letter) for letter in printable(words))
