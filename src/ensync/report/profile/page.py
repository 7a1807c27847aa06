"""The page of a profile, from its file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ensync.core.errors import EnsyncError
from ensync.report import plots, text
from ensync.report.files import write_whole
from ensync.report.page import render, section
from ensync.report.profile.picture import MOST_RANKS, draw_steps, shown_steps
from ensync.report.profile.summary import HEADS, basis, profile_cells, remarks
from ensync.report.profile.trace import FILE
from ensync.report.results import StepProfile, from_json


class Profile(NamedTuple):
    """What a profile's file holds: the table, and the events of Chrome's trace format."""

    table: StepProfile
    events: list[Mapping[str, Any]]


def read_profile(path: Path) -> Profile:
    """Return a profile. Errors: EnsyncError where the file is no profile of this version."""
    try:
        content = json.loads(path.read_bytes())
        table = from_json(StepProfile, content["otherData"])
        if (table.format, table.version) == ("ensync-step-profile", 1):
            return Profile(table, content["traceEvents"])
        why = f"it has version {table.version} of {table.format:.40}"
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = type(error).__name__
    raise EnsyncError(
        f"{path} cannot be used ({why})",
        "the profile of a run of this version of Ensync",
        "train again with --set output.profile=true",
    )


def write_page(directory: Path) -> tuple[StepProfile, dict[str, Path]]:
    """Write profile.html from the profile of a run; return its table, and what is where."""
    found, page = read_profile(directory / FILE), directory / "profile.html"
    job = directory / "job.toml"
    try:
        write_whole(page, profile_page(found, job.read_text() if job.exists() else ""))
    except (LookupError, TypeError) as error:
        raise EnsyncError(
            f"the events of {directory / FILE} cannot be drawn ({type(error).__name__})",
            "those that Ensync wrote",
            "train again with --set output.profile=true",
        ) from error
    return found.table, {"page": page, "timeline": directory / FILE}


def profile_page(profile: Profile, job: str) -> str:
    """Return the page. job: the text of its job file."""
    table, steps = profile
    last = len(table.phases)
    shown = shown_steps(steps)
    many = f" The first {MOST_RANKS} of {table.ranks} ranks." * (table.ranks > MOST_RANKS)
    caption = f"Layers and names are in {FILE}, for chrome://tracing and ui.perfetto.dev.{many}"
    figures = [
        plots.draw(draw_steps(shown), "steps", "what each rank does in a few steps", caption)
    ]
    return render(
        "page.html",
        title="Ensync: where the time of a step goes",
        heading="Where the time of a step goes",
        under=basis(table),
        verdict=[verdict(table)],
        cards=[],
        heads=HEADS,
        rows=[
            [
                {"text": cell, "best": place == last and column > 0}
                for column, cell in enumerate(row)
            ]
            for place, row in enumerate(profile_cells(table))
        ],
        notes=[],
        sections=[section("A few steps", figures if shown else [])],
        method=[f"{line[:1].upper()}{line[1:]}." for line in remarks(table)],
        facts=[],
        job=job,
        version="",
        beside=FILE,
    )


def verdict(table: StepProfile) -> str:
    """Return which phases take most, in a sentence."""
    first, second = sorted(table.phases, key=lambda phase: phase.seconds, reverse=True)[:2]
    shares = [text.percent(each.seconds / table.seconds, 1) for each in (first, second)]
    return (
        f"A step takes {1e3 * table.seconds:.3f} ms: {shares[0]} of it is {first.name}, "
        f"{shares[1]} {second.name}."
    )
