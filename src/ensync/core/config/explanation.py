"""What the settings of a job file mean, in words, from where they are declared."""

import types
import typing
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel

from ensync.core.config.job import GROUPS, OWN, section_of
from ensync.core.config.layers import KINDS
from ensync.core.config.optimizers import Group
from ensync.core.config.schema import Job
from ensync.core.config.study import Own
from ensync.core.errors import EnsyncError, nearest

LAYERS = "network.layers"


def explain_settings(name: str | None = None) -> str:
    """Return sections and settings with type, default and meaning: all, a section, such as
    "optimizer.groups" or "network.layers", or one setting, such as "training.epochs".

    Errors: EnsyncError for a name that is none of them.
    """
    parts = _parts()
    if name is None:
        return "\n".join(line for title, kind in parts.items() for line in _explain(title, kind))
    wanted = {title: kind for title, kind in parts.items() if _is_of(_named(title), name)}
    if wanted:
        return "\n".join(line for title, kind in wanted.items() for line in _explain(title, kind))
    section, _, key = name.rpartition(".")
    for title, kind in parts.items():
        if _named(title) == section and key in kind.model_fields:
            return "\n".join(_explain(title, kind, [key]))
    raise _unknown(name, parts)


def names() -> list[str]:
    """Return the names that have an explanation of their own: sections, and settings in them."""
    parts = {_named(title): section for title, section in _parts().items()}
    settings = [f"{name}.{key}" for name, section in parts.items() for key in section.model_fields]
    return [*parts, LAYERS, *settings]


def _parts() -> dict[str, type[BaseModel]]:
    """Return every section by its title, in the order of a job file; the kinds of layers last."""
    found: dict[str, type[BaseModel]] = {}
    for name in Job.model_fields:
        found[f"[{name}]"] = section_of(name)
        if name == "optimizer":
            found[f"[[{name}.{GROUPS}]]"] = Group
        if name == "study":
            found[f"[{name}.{OWN}.NAME]"] = Own
    return found | {f'[[{LAYERS}]] kind = "{kind}"': section for kind, section in KINDS.items()}


def _named(title: str) -> str:
    """Return the name that a title is asked by: "[[network.layers]] kind = "dense"" by
    "network.layers.dense".
    """
    name, _, kind = title.partition(" kind = ")
    return f"{name.strip('[]')}.{kind.strip(chr(34))}" if kind else name.strip("[]")


def _is_of(section: str, name: str) -> bool:
    """Whether a section is the one of that name, or all layers or contestants are asked for."""
    lists = (LAYERS, f"study.{OWN}")
    return section == name or (name in lists and section.startswith(f"{name}."))


def _unknown(name: str, parts: Mapping[str, type[BaseModel]]) -> EnsyncError:
    """Return the refusal of a name that is neither a section nor a setting."""
    sections = [_named(title) for title in parts if " kind = " not in title]
    near = nearest(name, names())
    return EnsyncError(
        f"no section '{name}'{near}",
        "one of " + ", ".join([*sections, LAYERS]) + ", or a setting such as training.epochs",
        "give one of them, or none to see all",
    )


def _explain(title: str, section: type[BaseModel], keys: Collection[str] = ()) -> list[str]:
    lines = [f"{title}  {' '.join(str(section.__doc__).split())}"]
    for key, setting in section.model_fields.items():
        if key != "kind" and (not keys or key in keys):
            default = "required" if setting.is_required() else repr(setting.default)
            lines.append(
                f"  {key} = {default}  ({_type_name(setting.annotation)})\n      "
                f"{setting.description}"
            )
    return [*lines, ""]


def _type_name(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return " | ".join(repr(value) for value in typing.get_args(annotation))
    if origin in (types.UnionType, typing.Union):
        return " | ".join(
            dict.fromkeys(
                _type_name(part) for part in typing.get_args(annotation) if part is not type(None)
            )
        )
    if origin in (list, tuple):
        return "list of " + _type_name(typing.get_args(annotation)[0])
    return (
        "layer"
        if annotation in KINDS.values()
        else "group"
        if annotation is Group
        else getattr(annotation, "__name__", str(annotation))
    )
