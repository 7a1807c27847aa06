"""The history of a run: one JSON record per line, appended while training, bounded in size, cut
back on resume.
"""

import json
import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from ensync.core.errors import EnsyncError
from ensync.report.files import finite, refuse_write, write_whole

R = TypeVar("R", bound=Mapping[str, Any])
LIMIT_BYTES = 16 * 2**20  # about 60,000 records of one member and epoch


def _lines(records: Iterable[Mapping]) -> str:
    return "".join(
        json.dumps(finite(record), allow_nan=False, separators=(",", ":")) + "\n"
        for record in records
    )


def read_history(path: Path | str) -> list[dict]:
    """Return the records of a history file, [] when there is none; a last line cut short is left
    out.

    EnsyncError when a line in the middle is no record.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    # after the last line's end there is nothing, or the beginning of a line that was never finished
    lines.pop()
    return [_record(path, place, line) for place, line in enumerate(lines, 1) if line.strip()]


def _record(path: Path, place: int, line: bytes) -> dict:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise EnsyncError(
            f"line {place} of {path}: {line[:60]!r}",
            "one JSON record per line",
            "delete that line, or the file",
        )
    return record


def readable_records(path: Path | str) -> tuple[list[dict], int]:
    """Return the records of a history file that may be damaged, and how many lines are not records.

    A last line that was cut short is not counted: any killed run may leave one.
    """
    path = Path(path)
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise refuse_write(path, error) from error
    records = []
    for place, line in enumerate(lines, 1):
        with suppress(EnsyncError):
            records.append(_record(path, place, line))
    return records, len(lines) - len(records)


def rebuild(path: Path | str, records: Sequence[Mapping]) -> str:
    """Rewrite the file so that it holds a checkpoint's records; return a sentence on what was wrong
    with it, or "". Atomic.

    For resume: the steps after the checkpoint are run, and recorded, again. Where the records of a
    long run's checkpoint are thinned out, epochs that only the file has are kept.
    """
    path = Path(path)
    found, broken = readable_records(path)
    known = {
        (record["epoch"], record["member"]): cast(Mapping, finite(record)) for record in records
    }
    last = max((epoch for epoch, _ in known), default=0)
    whole = dict(sorted((known | _finer(found, known)).items()))
    inside = [(key, record) for record in found if (key := _key(record)) is None or key[0] <= last]
    kept = {key for key, record in inside if key is not None and whole.get(key) == record}
    if broken or found != list(whole.values()):
        write_whole(path, _lines(whole.values()))
    restored, left_out = len(whole) - len(kept), broken + len(inside) - len(kept)
    if not (restored or left_out):
        return ""
    return (
        f"{path} was rebuilt from the checkpoint: "
        f"records restored {restored:,}, lines left out {left_out:,}"
    )


def _key(record: Mapping) -> tuple[int, int] | None:
    """Return (epoch, member), None of what is no epoch's record."""
    epoch, member = record.get("epoch"), record.get("member")
    return (epoch, member) if type(epoch) is int and type(member) is int else None


def _finer(
    found: Iterable[Mapping], known: Mapping[tuple[int, int], Mapping]
) -> dict[tuple[int, int], Mapping]:
    """Return the records between known epochs of their member, whose steps lie between theirs."""
    steps: dict[int, list[tuple[int, int]]] = {}
    for epoch, member in sorted(known):
        steps.setdefault(member, []).append((epoch, known[epoch, member]["step"]))
    finer = {}
    for record in found:
        key, step = _key(record), record.get("step")
        if key is None or key in known or type(step) is not int:
            continue
        around = steps.get(key[1], [])
        place = bisect_left(around, (key[0], 0))
        if 0 < place < len(around) and around[place - 1][1] < step < around[place][1]:
            finer[key] = record
    return finer


def thin(records: Sequence[R]) -> list[R]:
    """Return the records without every second epoch of the older half: the curves keep their
    shape.
    """
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
            write_whole(self.path, _lines(readable_records(self.path)[0]))

    def _ends_whole(self) -> bool:
        """Return whether the last line was finished."""
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def append(self, *records: Mapping) -> None:
        """Add records with one write, so that a crash cuts at most the last line. EnsyncError
        when the disk refuses.
        """
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(_lines(records).encode())
                size = file.tell()
        except OSError as error:
            raise refuse_write(self.path, error) from error
        if size > self.limit_bytes:
            write_whole(self.path, _lines(thin(readable_records(self.path)[0])))

    def read(self) -> list[dict]:
        """Return all records written so far."""
        return read_history(self.path)
