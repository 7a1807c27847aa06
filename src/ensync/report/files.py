"""Files that are written atomically, and values as JSON can hold them."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ensync.core.errors import EnsyncError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@overload
def finite(value: Mapping | DataclassInstance) -> dict[str, Any]: ...


@overload
def finite(value: object) -> object: ...


def finite(value: object) -> object:
    """Return the value with each float that is not finite as None, in any depth, numpy's numbers
    as Python's and dataclasses as mappings: JSON knows no others.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: finite(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if hasattr(value, "tolist"):
        return finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def refuse_write(path: Path, error: OSError) -> EnsyncError:
    """Return the error for a file that could not be written."""
    return EnsyncError(
        f"{path} could not be written ({error.strerror})",
        "a directory with room and the right to write",
        "free space, or set output.directory elsewhere",
    )


def write_whole(path: Path, data: bytes | str) -> None:
    """Write a file whole or not at all: to a temporary name beside it, flushed to disk, renamed.
    EnsyncError when the disk refuses.

    The temporary name is always the same, so that the next run overwrites what a killed one left.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # on a file system that became read-only
            temporary.unlink(missing_ok=True)
        raise refuse_write(path, error) from error
