"""`ensync report`."""

import click

from ensync.cli.options import PLACE
from ensync.cli.ranks import say, speaks


@click.command(short_help="Draw the page of a study anew.")
@click.argument("study", type=PLACE, metavar="STUDY", required=False)
@click.option("--schema", is_flag=True, help="Print the JSON schema of study.json instead.")
def report(study: str | None, schema: bool) -> None:
    """Write the tables and the page of a study anew from its files, and tell what it found. One
    process; nothing is trained.

    \b
      ensync report runs/studies/quickstart

    STUDY is the output.directory of `ensync compare`. A study that is not finished is shown as far
    as it is, with what is missing. Where its cells are no longer there, study.json is enough.
    """
    from pathlib import Path

    from ensync.report.console import make_console
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
    found = found_in(directory)
    files = write_study(found, directory)
    console.study(found)
    console.files(dict(files))


def study_schema() -> str:
    """Return the JSON schema of study.json, made from the types that write it."""
    import json

    from pydantic import TypeAdapter

    from ensync.report.study_results import StudyResult

    return json.dumps(TypeAdapter(StudyResult).json_schema(), indent=1)
