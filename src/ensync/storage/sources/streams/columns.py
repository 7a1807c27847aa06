"""Which columns of a Parquet file are pictures and labels, and what the classes are called.

    struct<bytes: binary, path: string>, or binary      pictures, as the Hugging Face hub publishes
    whole numbers, or texts                             labels
The hub's schema metadata `huggingface` names features of type Image and ClassLabel.
Source: https://huggingface.co/docs/datasets/about_dataset_features
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ensync.core.errors import EnsyncError
from ensync.storage.sources.names import shown
from ensync.storage.sources.source import first_few
from ensync.storage.sources.streams.labels import LABEL_NAMES, only_one
from ensync.storage.sources.streams.samples import Choice

METADATA = b"huggingface"


@dataclass(frozen=True)
class Columns:
    """The columns of pictures and labels; `in_struct`: a picture is the field "bytes" of a
    structure. names: of the classes 0, 1, ..., None where the file does not say.
    """

    image: str
    label: str
    in_struct: bool
    names: tuple[str, ...] | None
    guessed: bool = False

    def note(self) -> str:
        """Return what a user should know."""
        how = ", found out by types and names" if self.guessed else ""
        names = "as the file's metadata says" if self.names else "the labels found"
        return (
            f"pictures: column '{shown(self.image)}'; labels: column '{shown(self.label)}'{how}; "
            f"class names: {names}"
        )


def columns_of(place: str, schema: Any, choice: Choice) -> Columns:
    """Return the columns that are chosen, or found out. schema: pyarrow.Schema.

    Errors: EnsyncError, naming the columns, where it is doubtful.
    """
    import pyarrow

    types = pyarrow.types
    features = _features(schema)
    structs = [f.name for f in schema if types.is_struct(f.type) and _has_bytes(f.type)]
    images = structs + [f.name for f in schema if _is_binary(f.type)]
    labels = [
        f.name
        for f in schema
        if types.is_integer(f.type) or types.is_string(f.type) or types.is_large_string(f.type)
    ]
    image = _chosen(place, schema, images, ("pictures", "--image-column", choice.image))
    label = _chosen(place, schema, labels, ("labels", "--label-column", choice.label))
    image = image or only_one(
        place,
        "columns of pictures",
        _of_type(features, "Image", images) or images,
        "--image-column",
    )
    label = label or only_one(
        place, "columns of labels", _likely(features, labels), "--label-column"
    )
    guessed = choice.image is None or choice.label is None
    return Columns(image, label, image in structs, _names(features, label), guessed)


def _likely(features: dict[str, Any], labels: list[str]) -> list[str]:
    """Return the columns that are most likely labels: the hub's, those so named, or all."""
    classes = _of_type(features, "ClassLabel", labels)
    return classes or [name for name in labels if name.lower() in LABEL_NAMES] or labels


def _chosen(
    place: str, schema: Any, fitting: list[str], asked: tuple[str, str, str | None]
) -> str | None:
    """Return the column that was asked for, None where none was. Errors: EnsyncError unless it
    fits.
    """
    what, option, name = asked
    if name is None or name in fitting:
        return name
    known = schema.names
    given = (
        f"{option} {shown(name)}, a column of type {str(schema.field(name).type)[:80]},"
        if known.count(name) == 1
        else f"{option} {shown(name)}, which is no column"
    )
    columns = first_few([shown(column) for column in fitting or known], len(fitting or known))
    raise EnsyncError(
        f"{given} of {place}", f"a column of {what}, such as {columns}", "choose another"
    )


def _of_type(features: dict[str, Any], kind: str, among: Iterable[str]) -> list[str]:
    return [n for n in among if isinstance(f := features.get(n), dict) and f.get("_type") == kind]


def _has_bytes(struct: Any) -> bool:
    return struct.get_field_index("bytes") >= 0 and _is_binary(struct.field("bytes").type)


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _features(schema: Any) -> dict[str, Any]:
    """Return the hub's features by column, {} where there are none or they cannot be read."""
    try:
        found = json.loads((schema.metadata or {})[METADATA])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _names(features: dict[str, Any], label: str) -> tuple[str, ...] | None:
    """Return the names of the classes of a ClassLabel."""
    feature = features.get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if len(set(names)) == len(names) > 0 else None
