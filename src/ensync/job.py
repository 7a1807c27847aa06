"""The job file: load, override, refuse, dump."""

import re
import tomllib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from ensync.errors import EnsyncError, nearest
from ensync.settings import Job

__all__ = ["Job", "dump_job", "explain_settings", "job_from_dict", "load_job", "override"]


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read a job file and apply overrides "section.key=value"; EnsyncError names the key, the value and what is allowed."""
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = [str(p) for p in Path(path).parent.glob("*.toml")]
        raise EnsyncError(f"no file '{path}'{nearest(str(path), beside)}", "a job file (TOML)", "give its path; jobs/ has examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EnsyncError(f"'{path}' cannot be read ({error})", "a job file (TOML)", "check the path and its permissions") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise EnsyncError(f"'{path}' is not TOML: {error or 'nested too deeply'}", "lines `key = value` under [section] headers", "mend that line") from None
    return job_from_dict(override(tables, overrides), str(path))


def override(tables: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the tables with "section.key=value" put in; a value that is not TOML is taken as a string."""
    for text in overrides:
        name, equals, value = text.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and section and key):
            raise EnsyncError(f"--set {text}", "section.key=value", "write for example --set training.epochs=2")
        table = tables.setdefault(section, {})
        if not isinstance(table, dict):
            raise EnsyncError(f"'{section}' is a plain value in the job file", "a section", f"write it as [{section}]")
        table[key] = _toml_value(value.strip())
    return tables


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def job_from_dict(tables: dict[str, Any], origin: str = "the job") -> Job:
    """Check plain tables against the declared settings; EnsyncError for the first mistake and the number of others."""
    try:
        return Job.model_validate(tables)
    except ValidationError as error:
        raise _refusal(error.errors(), origin) from None


def _refusal(errors: list[Any], origin: str) -> EnsyncError:
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    location = [str(part) for part in first["loc"]]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" and message.count("|") == 2:
        given, expected, action = message.split("|")
        return EnsyncError(f"{given} in {origin}{more}", expected, action)
    names = location[:2]
    key = ".".join(names)
    if first["type"] == "extra_forbidden":
        allowed = _allowed(names[:-1])
        kind = "setting" if len(names) == 2 else "section"
        return EnsyncError(f"unknown {kind} '{key}' in {origin}{nearest(names[-1], allowed)}{more}", "one of " + ", ".join(allowed), "correct or remove it")
    if first["type"] == "missing":
        return EnsyncError(f"no '{key}' in {origin}{more}", _meaning(names), f"add it, or give --set {_example(names)}")
    what = (message[0].lower() + message[1:]).removeprefix("input should be ")
    near = nearest(str(first["input"]), re.findall(r"'([^']*)'", what)) if first["type"] == "literal_error" else ""
    return EnsyncError(f"{key} = {first['input']!r} in {origin}{near}{more}", f"{what} ({_meaning(names)})", f"change it there or with --set {_example(names)}")


def _example(names: list[str]) -> str:
    return f"{names[0]}.{names[1] if len(names) > 1 else next(iter(_section(names[0]).model_fields))}=VALUE"


def _section(name: str) -> type[BaseModel]:
    return Job.model_fields[name].annotation  # type: ignore[return-value]


def _allowed(parents: list[str]) -> list[str]:
    return list((_section(parents[0]) if parents else Job).model_fields)


def _meaning(names: list[str]) -> str:
    if names[0] not in Job.model_fields:
        return "a section of the job file"
    section = _section(names[0])
    if len(names) == 1:
        return f"a section [{names[0]}]: {str(section.__doc__).rstrip('.')}"
    return section.model_fields[names[1]].description or names[1]


def dump_job(job: Job) -> str:
    """Return the whole job, defaults included, as TOML that load_job reads back to the same job."""
    return tomli_w.dumps(job.model_dump(mode="json", exclude_none=True))


def explain_settings() -> str:
    """Return every section and setting with type, default and meaning, for --help."""
    lines = []
    for name, field in Job.model_fields.items():
        lines.append(f"[{name}]  {_section(name).__doc__}")
        for key, setting in field.annotation.model_fields.items():  # type: ignore[union-attr]
            default = "required" if setting.is_required() else repr(setting.default)
            lines.append(f"  {key} = {default}  ({_type_name(setting.annotation)})\n      {setting.description}")
        lines.append("")
    return "\n".join(lines)


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return " | ".join(repr(value) for value in typing.get_args(annotation))
    if origin in (types.UnionType, typing.Union):
        return " | ".join(_type_name(part) for part in typing.get_args(annotation) if part is not type(None))
    if origin in (list, tuple):
        return "list of " + _type_name(typing.get_args(annotation)[0])
    return getattr(annotation, "__name__", str(annotation))
