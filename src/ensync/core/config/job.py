"""The job file: load, override, refuse, dump."""

import re
import tomllib
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from ensync.core.config.effects import refuse_without_effect
from ensync.core.config.layers import KINDS
from ensync.core.config.optimizers import Group
from ensync.core.config.schema import Job
from ensync.core.config.study import Own
from ensync.core.config.values import toml_value
from ensync.core.errors import EnsyncError, leads_nowhere, nearest

DEEPEST = 40  # sections, lists and layers within each other
Tables = dict[str, object]  # sections as TOML and JSON give them, not checked yet
LONGEST = 120  # characters of a value or name that an error shows

__all__ = [
    "STUDY_IS_FOR_COMPARE",
    "Job",
    "dump_job",
    "flat_settings",
    "job_from_dict",
    "load_job",
    "override",
    "plain_settings",
    "section_of",
    "without_study",
]


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read a job file and apply overrides "section.key=value"; EnsyncError names the key, the
    value and what is allowed, or what has no effect.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = [str(p) for p in Path(path).parent.glob("*.toml")]
        raise EnsyncError(
            f"no file '{path}'{leads_nowhere(path) or nearest(str(path), beside)}",
            "a job file (TOML)",
            "give its path; jobs/ has examples",
        ) from None
    except UnicodeDecodeError:
        raise EnsyncError(
            f"'{path}' is not a text file", "a job file (TOML)", "check the path"
        ) from None
    except IsADirectoryError:
        raise EnsyncError(
            f"'{path}' is a directory",
            "a job file (TOML)",
            f"give its path; a run that stands there is continued with `ensync resume {path}`",
        ) from None
    except OSError as error:
        raise EnsyncError(
            f"'{path}' cannot be read ({error.strerror})",
            "a job file (TOML)",
            "check the path and its permissions",
        ) from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # a ValueError that is no TOMLDecodeError: a number of thousands of digits
        raise EnsyncError(
            f"'{path}' is not TOML: {_shown(error) or 'nested too deeply'}",
            "lines `key = value` under [section] headers",
            "mend that line",
        ) from None
    job = job_from_dict(override(tables, overrides), str(path))
    refuse_without_effect(job, overrides, str(path))
    return job


def override(tables: Tables, overrides: Sequence[str]) -> Tables:
    """Return the tables with "section.key=value" put in; a value that is not TOML is taken as a
    string.
    """
    for text in overrides:
        name, equals, value = text.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and section and key):
            raise EnsyncError(
                f"--set {_shown(text)}",
                "section.key=value",
                "write for example --set training.epochs=2",
            )
        table = tables.setdefault(section, {})
        if not isinstance(table, dict):
            raise EnsyncError(
                f"'{_shown(section)}' is a plain value in the job file",
                "a section",
                f"write it as [{section}]",
            )
        table[key] = toml_value(value.strip())
    return tables


def job_from_dict(tables: Tables, origin: str = "the job") -> Job:
    """Check plain tables against the declared settings; EnsyncError for the first mistake and
    the number of others.
    """
    _check_values(tables, origin)
    try:
        return Job.model_validate(tables)
    except ValidationError as error:
        raise _refusal(error.errors(), origin) from None


def _check_values(value: Any, origin: str, name: str = "", depth: int = 0) -> None:
    """Refuse what no setting can be: numbers beyond 64 bits, text that is no UTF-8 or has zero
    bytes, a nest of lists without end.
    """
    if depth > DEEPEST:
        raise EnsyncError(
            f"'{_shown(name)}' in {origin} is nested more than {DEEPEST} deep",
            "sections with settings, and layers within layers",
            "correct it",
        )
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value, 1):
            _check_values(item, origin, f"{name}.{key}" if name else str(key), depth + 1)
            if isinstance(key, str):
                _check_values(key, origin, name or "a section's name", depth + 1)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise EnsyncError(
            f"{_shown(name)} in {origin} is a number beyond 64 bits",
            "a smaller number",
            "correct it",
        )
    elif isinstance(value, str) and (
        "\0" in value or value.encode(errors="replace").decode() != value
    ):
        raise EnsyncError(
            f"{_shown(name)} = {_shown(repr(value))} in {origin}",
            "UTF-8 text without zero bytes",
            "correct it",
        )


def _shown(text: object) -> str:
    """Return text on one line, shortened where a person would not read it all."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 25]}...{line[-20:]}"


def _refusal(errors: list[Any], origin: str) -> EnsyncError:
    first, value = errors[0], _shown(repr(errors[0]["input"]))
    others = (
        len({_locate(error["loc"]).name for error in errors}) - 1
    )  # a union refuses a value once for each of its types
    more = f" (and {others} more)" if others else ""
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" and message.count("|") == 2:
        given, expected, action = message.split("|")
        return EnsyncError(f"{given} in {origin}{more}", expected, action)
    location = _locate(first["loc"])
    location.name = _shown(location.name)
    if first["type"] == "extra_forbidden":
        kind = "section" if location.section is Job else "setting"
        allowed = [name for name in location.section.model_fields if name != "kind"]
        return EnsyncError(
            f"unknown {kind} '{location.name}' in {origin}{nearest(location.key, allowed)}{more}",
            "one of " + ", ".join(allowed),
            "correct or remove it",
        )
    if first["type"] == "missing":
        return EnsyncError(
            f"no '{location.name}' in {origin}{more}",
            location.meaning,
            f"add it{location.remedy(', or give ')}",
        )
    if first["type"].startswith("union_tag"):
        given = _shown(first["input"].get("kind", "")) if isinstance(first["input"], dict) else ""
        return EnsyncError(
            f"{location.name} of {origin} has "
            f"{f'kind = {given!r}' if given else 'no kind'}{nearest(str(given), KINDS)}{more}",
            "one of " + ", ".join(KINDS),
            "correct it",
        )
    what = (message[0].lower() + message[1:]).removeprefix("input should be ")
    near = (
        nearest(str(first["input"]), re.findall(r"'([^']*)'", what))
        if first["type"] == "literal_error"
        else ""
    )
    return EnsyncError(
        f"{location.name} = {value} in {origin}{near}{more}",
        f"{what} ({location.meaning})",
        f"change it there{location.remedy(' or with ')}",
    )


@dataclass
class Location:
    """Where a mistake is: its full name, the section, and the key in that section ("" for the
    section itself).
    """

    name: str
    section: type[BaseModel]
    key: str = ""
    nested: bool = False

    @property
    def meaning(self) -> str:
        """What the setting or section is for."""
        if self.key in self.section.model_fields:
            return self.section.model_fields[self.key].description or self.key
        return (
            "a section of the job file"
            if self.section is Job
            else f"a section [{self.name}]: {str(self.section.__doc__).rstrip('.')}"
        )

    def remedy(self, before: str) -> str:
        """How to set it on the command line, where that is possible."""
        if self.nested or self.section is Job:
            return ""
        first = next(iter(self.section.model_fields))
        return f"{before}--set {self.name if self.key else f'{self.name}.{first}'}=VALUE"


def _locate(path: tuple[Any, ...]) -> Location:
    """Follow an error's location down the sections; layers in a list count from 1 and are named
    with their kind.
    """
    location = Location("", Job)
    for part in path:
        if location.section is not Job and location.key == OWN:
            location = Location(f"{location.name}.{part}", Own, "", True)
        elif isinstance(part, int) and location.key == GROUPS:
            location = Location(f"{location.name} {part + 1}", Group, "", True)
        elif isinstance(part, int) and location.key in LISTS:
            location = Location(f"{location.name} {part + 1}", location.section, location.key, True)
        elif location.key in LISTS and part in KINDS:
            location = Location(f"{location.name} ({part})", KINDS[part], "", True)
        elif not location.key and isinstance(part, str):
            name = (
                part
                if location.section is Job
                else f"{location.name}{', ' if location.nested else '.'}{part}"
            )
            is_section = location.section is Job and part in Job.model_fields
            location = (
                Location(name, section_of(part))
                if is_section
                else Location(name, location.section, part, location.nested)
            )
    return location


GROUPS = "groups"  # the setting that holds optimizer.groups
OWN = "own"  # the setting that holds study.own
LISTS = ("layers", "shortcut", "branches", "coarse", "fine")  # settings that hold layers


def section_of(name: str) -> type[BaseModel]:
    """Return the settings of a section, which a job may be without."""
    annotation = Job.model_fields[name].annotation
    kinds = [kind for kind in (annotation, *typing.get_args(annotation)) if isinstance(kind, type)]
    return next(kind for kind in kinds if issubclass(kind, BaseModel))


def dump_job(job: Job) -> str:
    """Return the whole job, defaults included, as TOML that load_job reads back to the same job."""
    return tomli_w.dumps(plain_settings(job))


def plain_settings(job: Job) -> dict[str, dict[str, object]]:
    """Return the whole job as plain values by section and key, which job_from_dict reads back to
    the same job.
    """
    return job.model_dump(mode="json", exclude_none=True)


# What a verb says that trains runs by themselves.
STUDY_IS_FOR_COMPARE = "the section [study] has no effect here; `ensync compare` goes by it"


def without_study(job: Job) -> Job:
    """Return the job of one run, which no section [study] belongs to."""
    return job.model_copy(update={"study": None})


def flat_settings(job: Job) -> dict[str, object]:
    """Return all settings of a run as plain values by their whole names, "section.key"."""
    return {
        f"{section}.{key}": value
        for section, values in job.model_dump(mode="json", exclude={"study"}).items()
        for key, value in values.items()
    }
