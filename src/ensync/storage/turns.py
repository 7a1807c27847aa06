"""One process at a time does a task that makes a file; those that waited for it take over how it
ended.

The ranks of one launch prepare a dataset once in this way, whatever started them: no variable of a
launcher has to be true. Where the file system has no locks, each does the task: a file appears
whole or not at all, so that it is the same in the end.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ensync.core.errors import EnsyncError
from ensync.storage.facts import existing

PAUSE = 0.02  # seconds between two looks


def in_turn(path: Path, task: str, work: Callable[[], str], patience: float = 0.0) -> str:
    """Return what `work()` says, or said in the process that did the same `task` for `path` while
    this one waited.

    patience: seconds to let others come first. Errors: EnsyncError of `work`, here or there.
    """
    try:
        lock = existing(path.parent) / f".{path.name}.turn"
        lock.exists()
    except OSError:  # a name that is too long, or worse: the work will say
        return work()
    limit = time.monotonic() + patience
    while time.monotonic() < limit and not lock.exists():
        time.sleep(PAUSE)
    while True:
        with _held(lock) as (descriptor, ended):
            if ended is None:
                return _told(descriptor, task, work)
            if ended.get("task") == task:
                return _said(ended)


def _told(descriptor: int, task: str, work: Callable[[], str]) -> str:
    """Do the work, and leave word for those that wait."""
    word: dict[str, object] = {"task": task}
    try:
        word["said"] = said = work()
        return said
    except EnsyncError as error:
        word["error"] = [error.given, error.expected, error.action]
        raise
    finally:
        if descriptor >= 0 and len(word) > 1:
            with suppress(OSError):
                os.pwrite(descriptor, json.dumps(word).encode(), 0)


def _said(ended: dict) -> str:
    if "error" in ended:
        raise EnsyncError(*ended["error"])
    return str(ended["said"])


@contextmanager
def _held(lock: Path) -> Iterator[tuple[int, dict | None]]:
    """Yield a descriptor of the held lock, -1 where there are no locks, and None; or how the
    holder before ended, {} when it died.
    """
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:  # the work will say what is wrong there
        yield -1, None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            _remove(lock)
            yield -1, None
            return
        if not _in_place(lock, descriptor):  # its holder has removed it, and ended
            yield descriptor, _word(descriptor)
            return
        try:
            yield descriptor, None
        finally:
            _remove(lock)
    finally:
        os.close(descriptor)


def _in_place(lock: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(lock), os.fstat(descriptor))
    except OSError:
        return False


def _word(descriptor: int) -> dict:
    try:
        word = json.loads(os.pread(descriptor, 1 << 20, 0))
    except (OSError, ValueError):
        return {}
    return word if isinstance(word, dict) else {}


def _remove(lock: Path) -> None:
    with suppress(OSError):
        lock.unlink()
