"""Sentences and tables of RESULTS.md, in lines of at most 100 characters."""

import textwrap
from pathlib import Path

from ensync.report.study_files import markdown_table
from ensync.report.study_tables import Table

HERE = Path(__file__).resolve().parent  # where jobs lie


def wrapped(sentence: str) -> list[str]:
    """Return a sentence in lines."""
    return textwrap.wrap(sentence, 100, break_long_words=False, break_on_hyphens=False)


def narrow(table: Table) -> list[str]:
    """Return a table as Markdown without blanks, since lines are of 100 characters at most."""
    return [line.replace(" | ", "|").replace("| ", "|", 1) for line in markdown_table(table)]


def name_of(job: Path) -> str:
    """Return the name of a job's kept results: its folders and its own, joined by "-"."""
    here = job.parent.resolve() / job.name  # which may be a link itself
    return "-".join(here.relative_to(HERE).with_suffix("").parts)
