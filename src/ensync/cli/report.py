"""`ensync report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ensync.cli.options import PLACE
from ensync.cli.ranks import say, speaks

if TYPE_CHECKING:
    from pathlib import Path

    from ensync.report.console import Console


@click.command(short_help="Draw the page of a study, or of a run's profile, anew.")
@click.argument("study", type=PLACE, metavar="STUDY", required=False)
@click.option("--schema", is_flag=True, help="Print the JSON schema of study.json instead.")
def report(study: str | None, schema: bool) -> None:
    """Write the tables and the page of a study anew from its files, and tell what it found. One
    process; nothing is trained.

    \b
      ensync report runs/studies/quickstart

    STUDY is the output.directory of `ensync compare`. A study that is not finished is shown as far
    as it is, with what is missing. Where its cells are no longer there, study.json is enough. Of a
    run that was trained with output.profile it writes profile.html: where the time of a step goes,
    and what the ranks do in a few of them.
    """
    from pathlib import Path

    from ensync.report.console import make_console
    from ensync.report.profile.trace import FILE
    from ensync.report.study_files import write_study
    from ensync.runs.below import directory_of
    from ensync.runs.study.analysis import found_in

    if schema:
        say(study_schema)
        return
    if study is None:
        raise click.UsageError("Missing argument 'STUDY'.")
    if not speaks():
        return
    directory, console = directory_of(Path(study)), make_console(0)
    if (directory / FILE).is_file():
        _report_profile(directory, console)
        return
    found = found_in(directory)
    files = write_study(found, directory)
    console.study(found)
    console.files(dict(files))


def _report_profile(directory: Path, console: Console) -> None:
    from ensync.report.profile.page import write_page
    from ensync.report.profile.summary import profile_lines

    table, files = write_page(directory)
    console.lines(profile_lines(table))
    console.files(files)


def study_schema() -> str:
    """Return the JSON schema of study.json, made from the types that write it."""
    import json

    from pydantic import TypeAdapter

    from ensync.report.study_results import StudyResult

    return json.dumps(TypeAdapter(StudyResult).json_schema(), indent=1)
