"""The history of a run: one JSON record per line, appended while training, bounded in size, cut back on resume."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ensync.errors import EnsyncError
from ensync.report.files import finite, refuse_write, write_whole

LIMIT_BYTES = 16 * 2**20  # about 60,000 records of one member and epoch


def _lines(records: Iterable[Mapping]) -> str:
    return "".join(json.dumps(finite(record), allow_nan=False, separators=(",", ":")) + "\n" for record in records)


def read_history(path: Path | str) -> list[dict]:
    """Return the records of a history file, [] when there is none; a last line cut short is left out.

    EnsyncError when a line in the middle is no record.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    lines.pop()  # after the last line's end there is nothing, or the beginning of a line that was never finished
    return [_record(path, place, line) for place, line in enumerate(lines, 1) if line.strip()]


def _record(path: Path, place: int, line: bytes) -> dict:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise EnsyncError(f"line {place} of {path}: {line[:60]!r}", "one JSON record per line", "delete that line, or the file")
    return record


def truncate_after(path: Path | str, step: int) -> int:
    """Drop the records of steps after `step`, and a last line cut short; return how many records were dropped. Atomic.

    For resume: the steps after the checkpoint are run, and written, again.
    """
    path = Path(path)
    records = read_history(path)
    kept = [record for record in records if record.get("step", 0) <= step]
    if path.exists():
        write_whole(path, _lines(kept))
    return len(records) - len(kept)


def thin(records: list[dict]) -> list[dict]:
    """Return the records without every second epoch of the older half: the curves keep their shape."""
    epochs = sorted({record.get("epoch", 0) for record in records})
    dropped = set(epochs[1 : len(epochs) // 2 : 2])
    return [record for record in records if record.get("epoch", 0) not in dropped]


class History:
    """The history file of a running job, written by rank 0 only.

    Above `limit_bytes` the older epochs are thinned out, so that a run of any length stays small.
    """

    def __init__(self, path: Path | str, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path, self.limit_bytes = Path(path), limit_bytes
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refuse_write(self.path, error) from error
        if self.path.exists() and not self._ends_whole():
            write_whole(self.path, _lines(read_history(self.path)))

    def _ends_whole(self) -> bool:
        """Return whether the last line was finished."""
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def append(self, *records: Mapping) -> None:
        """Add records with one write, so that a crash cuts at most the last line. EnsyncError when the disk refuses."""
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(_lines(records).encode())
                size = file.tell()
        except OSError as error:
            raise refuse_write(self.path, error) from error
        if size > self.limit_bytes:
            write_whole(self.path, _lines(thin(read_history(self.path))))

    def read(self) -> list[dict]:
        """Return all records written so far."""
        return read_history(self.path)
