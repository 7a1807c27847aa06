"""The files of a study, and how those of JSON are read: whole and of this version, or refused by
name.
"""

import json
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple, TypeVar

from ensync.core.errors import EnsyncError, reason
from ensync.report.results import CellResult, from_json

CELLS, RESULT, OUTPUTS = "cells", "cell.json", "outputs.h5"
T = TypeVar("T")


class Refusal(NamedTuple):
    """What a file that cannot be used should have been, and what to do."""

    expected: str
    action: str

    def error(self, path: Path, why: str) -> EnsyncError:
        """Return the error for a file, and why it cannot be used."""
        return EnsyncError(f"{path} cannot be used ({why})", self.expected, self.action)


OF_CELL = Refusal(
    "the result of a cell of this version", "remove it and continue the study with --resume"
)


def read(kind: type[T], path: Path, refusal: Refusal) -> T | None:
    """Return the dataclass of this kind that a file holds, None where there is no file.

    Errors: EnsyncError where it cannot be read, is damaged, or is of another format or version.
    """
    try:
        found = from_json(kind, json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal.error(path, reason(error)) from error
    except ValueError as error:
        raise refusal.error(path, "it is damaged") from error
    for field in fields(kind):  # type: ignore[arg-type]
        value = getattr(found, field.name)
        if field.name in ("format", "version") and value != field.default:
            raise refusal.error(path, f"its {field.name} is {value!r:.40}")
    return found


def read_cell(directory: Path) -> CellResult | None:
    """Return the result of the cell in a directory, None where it is not done.

    Errors: as `read`.
    """
    return read(CellResult, directory / RESULT, OF_CELL)
