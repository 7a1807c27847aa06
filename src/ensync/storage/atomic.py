"""A file appears whole or not at all: temporary beside it, write, fsync, rename, fsync of the
directory.

Plain system calls, because each of them reports a full disk, a quota or a vanished directory when
it happens, in one way (OSError).
"""

import errno
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ensync.core.errors import EnsyncError, reason

# seconds after which a temporary of another node counts as abandoned: its writer cannot be asked
FOREIGN_AGE = 900.0
LONGEST_NAME = 255  # bytes, of every usual file system
WRITE_PIECE = 1 << 24  # bytes per write call, so that a signal is never deferred for long

_TEMPORARY = re.compile(r"\.(?P<stem>.+)-(?P<pid>\d+)-(?P<start>\d+)\.[0-9a-f]{8}\.tmp")


def write_atomically(path: str | os.PathLike[str], parts: Iterable[bytes | memoryview]) -> None:
    """Write the parts as one file that replaces `path` at once, safe against a crash at any
    moment.

    Errors: EnsyncError when the operating system refuses any step; then `path` is as it was before
    and no temporary stays.
    """
    path = Path(path)
    try:
        _write_and_rename(path, _temporary_name(path), parts)
    except OSError as error:
        raise _cannot_write(path, error) from error


@contextmanager
def temporary_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the name of a new, empty file beside `path`; what is left of it after the block is
    removed.

    For files that are written here and there, as HDF5 does; `put_in_place` makes the file `path`
    before the block ends. Errors: EnsyncError in place of any OSError in the block; then `path` is
    as it was before and no temporary stays.
    """
    path = Path(path)
    temporary = _temporary_name(path)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        yield temporary
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        _unlink_quietly(temporary)


@contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Raise EnsyncError in place of any OSError in the block: `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


def put_in_place(temporary: Path, path: Path) -> None:
    """Flush `temporary` to the disk and let it replace `path` at once. Errors: OSError."""
    descriptor = os.open(temporary, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    _sync_directory(path.parent)


def clean_temporaries(directory: str | os.PathLike[str]) -> list[Path]:
    """Remove the temporaries that dead writers left in `directory`, and return their paths.

    A writer on this node is dead when its process is; one on another node when its file has not
    grown for FOREIGN_AGE seconds.
    """
    removed = []
    for path in sorted(Path(directory).glob(".*.tmp")):
        if _abandoned(path):
            path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _temporary_name(path: Path) -> Path:
    end = f".{_writer()}.{secrets.token_hex(4)}.tmp"
    room = LONGEST_NAME - 1 - len(end.encode())
    return path.with_name("." + os.fsencode(path.name)[:room].decode(errors="ignore") + end)


def _cannot_write(path: Path, error: OSError) -> EnsyncError:
    missing = error.errno in (errno.ENOENT, errno.ESTALE)
    return EnsyncError(
        f"{path} cannot be written because "
        f"{'the directory does not exist (any more)' if missing else reason(error)}",
        "a writable directory with room for the file",
        f"make room in {path.parent} or choose another directory; files written before are intact",
    )


def _write_and_rename(path: Path, temporary: Path, parts: Iterable[bytes | memoryview]) -> None:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            for part in parts:
                _write_all(descriptor, memoryview(part).cast("B"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)  # NFS reports a full disk only here
        os.replace(temporary, path)
    except BaseException:
        _unlink_quietly(temporary)
        raise
    _sync_directory(path.parent)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data[:WRITE_PIECE]) :]


def _unlink_quietly(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # the directory is gone or read-only: the first error is the one to tell


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
        ):  # some network file systems cannot, and order renames themselves
            raise
    finally:
        os.close(descriptor)


def _writer() -> str:
    """Name this process as host-pid-start: the start time tells a later process with the same
    number apart.
    """
    return f"{socket.gethostname()}-{os.getpid()}-{start_time(os.getpid())}"


def start_time(pid: int) -> str:
    """Return the start time of a living process in clock ticks since boot, "" when it is dead,
    "0" where there is no /proc.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() or not _alive(pid) else "0"
    return "" if state in "ZX" else fields[18]  # field 22 of proc_pid_stat(5)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _abandoned(path: Path) -> bool:
    match = _TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    if match["stem"].endswith("." + socket.gethostname()):
        return start_time(int(match["pid"])) != match["start"]
    try:
        return time.time() - path.stat().st_mtime > FOREIGN_AGE
    except OSError:
        return False  # gone meanwhile
