"""The lock of a run directory.

A file that names its holder. One process writes into a directory; another is refused, or follows a
dead one.

Only what network file systems promise is used: link(2), or an exclusive creation where there are no
hard links, lets one of several succeed; the clock is the file system's own. The holder renews the
file's time every BEAT seconds. It is dead when its process is, where that can be seen; when its
batch job was started again; or when it has not renewed the file for STALE seconds.
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from ensync.core.errors import EnsyncError, reason
from ensync.storage.holder import UNKNOWN, Holder, is_dead, parsed, this_process

NAME = "lock.json"
BEAT = 5.0  # seconds between two signs of life
STALE = 30.0  # seconds without one after which a holder that cannot be seen counts as dead
GONE = "no more"  # how what is said of a dead holder begins
_PAUSE = 0.2  # seconds between two looks at a holder that may be dead
_PATIENCE = 2.0  # seconds for which a lock may be missing while another process looks at it


@dataclass(frozen=True)
class _Found:
    """A lock file as it was read.

    Its holder, the time of its last renewal and what tells it from any other.
    """

    holder: Holder
    beat: float
    identity: str


def _read(path: Path) -> _Found | None:
    """Return a lock as it is, None when there is none.

    Opened anew, so that a network file system asks its server.
    """
    try:
        with path.open("rb") as file:
            content, beat = file.read(1 << 16), os.fstat(file.fileno()).st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _refusal(path, error) from error
    return _Found(parsed(content), beat, sha256(content).hexdigest()[:16])


class Lock:
    """A held lock. `lost` is why it is not held any more, "" as long as it is; `released`: it was
    given back.
    """

    def __init__(self, path: Path, own: Holder) -> None:
        self.path, self.own, self.lost, self.released = path, own, "", False

    def confirm(self) -> None:
        """Raise EnsyncError when another process has taken the lock over.

        Nothing may be written any more.
        """
        if not self.lost:
            self._look()
        if self.lost:
            raise EnsyncError(
                self.lost,
                "to hold it to the end",
                "nothing more is written there; look whether the other run is wanted, and end "
                "one of them",
            )

    def _look(self) -> None:
        """See who holds the lock now.

        A file that is missing for a moment is being looked at by a process that will put it back.
        """
        limit = time.monotonic() + _PATIENCE
        while (found := _read(self.path)) is None and time.monotonic() < limit:
            if self.released:
                return
            time.sleep(_PAUSE)
        if self.released:
            return  # by the other thread, meanwhile
        if found is None:
            self.lost = f"the lock {self.path} of this run has been removed"
        elif found.holder.token != self.own.token:
            self.lost = f"'{self.path.parent}' has been taken over by {found.holder}"

    def beat(self) -> None:
        """Give a sign of life, and see whether the lock is still held."""
        with suppress(EnsyncError, OSError):  # a file system may answer at the next beat
            self._look()
            if not (self.lost or self.released):
                os.utime(self.path)

    def release(self) -> None:
        """Remove the lock file, unless it is another's by now."""
        self.released = True
        with suppress(EnsyncError, OSError):
            found = _read(self.path)
            if found is not None and found.holder.token == self.own.token:
                _remove(self.path, found.identity)


def take(
    directory: Path, own: Holder, waiting: Callable[[str], None] = lambda sentence: None
) -> Lock:
    """Return the lock of an existing directory.

    waiting: is told, once, when a holder that may be dead is watched.

    Errors: EnsyncError when a living process holds it, or when the file system refuses.
    """
    path = directory / NAME
    mine = path.with_name(f".{NAME}.{own.token}")
    try:
        with mine.open("x") as file:
            json.dump(asdict(own), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        limit = time.monotonic() + 4 * STALE  # for what only bears the name, as a link to nowhere
        while not _create(mine, path):
            found = _read(path)
            if found is not None:
                if not _outlived(found, own, mine, path, waiting):
                    raise _held(directory, found)
                _remove(path, found.identity)
            elif time.monotonic() > limit:
                raise _held(directory, _Found(UNKNOWN, 0.0, ""))
            else:
                time.sleep(_PAUSE / 10)
        _remove_leftovers(path, own)
        return Lock(path, own)
    except OSError as error:
        raise _refusal(path, error) from error
    finally:
        with suppress(OSError):
            mine.unlink()


def _remove_leftovers(path: Path, own: Holder) -> None:
    """Remove what processes that were killed while they took the lock have left beside it: of dead
    ones, and of unknown ones what is STALE seconds older than the lock.
    """
    for left in path.parent.glob(f".{NAME}.*"):
        with suppress(OSError):
            now = path.stat().st_mtime
            dead = is_dead(parsed(left.read_bytes()), own)
            if dead or (dead is None and now - left.stat().st_mtime > STALE):
                left.unlink()


def _create(mine: Path, path: Path) -> bool:
    """Give the file `mine` the name of the lock where nobody has it.

    Return whether that was done.
    """
    try:
        os.link(mine, path)
    except FileExistsError:
        return mine.stat().st_nlink == 2  # NFS: done, and its answer was lost
    except OSError:
        return _create_without_links(mine.read_bytes(), path)
    found = _read(path)
    return found is not None and found.identity == sha256(mine.read_bytes()).hexdigest()[:16]


def _create_without_links(content: bytes, path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    found = _read(path)
    return found is not None and found.identity == sha256(content).hexdigest()[:16]


def _outlived(
    found: _Found, own: Holder, mine: Path, path: Path, waiting: Callable[[str], None]
) -> bool:
    """Return whether a holder is dead.

    One that only time can tell of is watched until it renews its lock or has not for STALE seconds.
    """
    dead, limit = is_dead(found.holder, own), time.monotonic() + STALE
    if dead is not None:
        return dead
    waiting(
        f"'{path.parent}' is held by {found.holder}; waiting up to {STALE:g} s for a sign of life"
    )
    while (now := _read(path)) is not None and now.identity == found.identity:
        if now.beat != found.beat:
            return False
        os.utime(mine)
        if mine.stat().st_mtime - now.beat > STALE or time.monotonic() > limit:
            return True
        time.sleep(_PAUSE)
    return True  # it was released, or another has taken it over: look again


def _remove(path: Path, identity: str) -> None:
    """Remove the lock of this identity and no other, whoever else is about to do the same.

    Of several only the one that makes the claim, a file named by the identity, may remove that
    lock. It then looks again, since the lock may be a new one by now. A claim whose maker was
    killed is removed after STALE seconds.
    """
    claim = path.with_name(f".{NAME}.{identity}.claim")
    try:
        os.close(os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        _remove_abandoned(claim)
        return
    found = _read(path)
    if found is None or found.identity != identity:
        claim.unlink(missing_ok=True)
        return
    os.rename(path, claim)  # what is there now can be looked at before it is gone
    moved = _read(claim)
    if moved is not None and moved.identity != identity:
        with suppress(FileExistsError):
            os.link(claim, path)
    claim.unlink(missing_ok=True)


def _remove_abandoned(claim: Path) -> None:
    """Wait a moment for the maker of a claim, and remove one that is older than anybody takes."""
    time.sleep(_PAUSE)
    probe = claim.with_name(f"{claim.name}.{secrets.token_hex(4)}")
    try:
        probe.touch()
        if probe.stat().st_mtime - claim.stat().st_mtime > STALE:
            claim.unlink(missing_ok=True)
    except FileNotFoundError:
        pass  # it is gone already
    finally:
        probe.unlink(missing_ok=True)


def _held(directory: Path, found: _Found) -> EnsyncError:
    return EnsyncError(
        f"'{directory}' is in use by {found.holder}",
        "a directory that no other process writes into",
        "wait for its end, stop it, or give --set output.directory=DIR; if that process is "
        f"certainly gone, remove {directory / NAME}",
    )


def _refusal(path: Path, error: OSError) -> EnsyncError:
    return EnsyncError(
        f"the lock {path} cannot be made or read because {reason(error)}",
        "a writable directory",
        "check its path and permissions or give --set output.directory=DIR",
    )


_locks: dict[Path, Lock] = {}  # that this process holds, by their directories
_made: list[Path] = []  # directories that were made for them
_done = threading.Event()  # when none is held any more
_beating: list[threading.Thread] = []


def hold(
    directories: Iterable[Path],
    verb: str,
    waiting: Callable[[str], None],
    on_loss: Callable[[], None],
) -> None:
    """Hold directories, made where missing, until `let_go`.

    on_loss is called, by another thread, when one is taken over.

    A directory that this process holds already is left out. Errors: as of `take`.
    """
    for directory in directories:
        place = directory.resolve()
        if place not in _locks:
            _made.extend(_make(directory))
            _locks[place] = take(directory, this_process(verb), waiting)
    if _locks and not _beating:
        _done.clear()
        _beating.append(threading.Thread(target=_beat, args=(on_loss,), daemon=True, name="lock"))
        _beating[0].start()


def let_go_of(directory: Path) -> None:
    """Release one directory, if this process holds it; what was made for it stays."""
    if lock := _locks.pop(directory.resolve(), None):
        lock.release()


def let_go() -> None:
    """Release all that this process holds; remove the directories made for it that are empty."""
    _done.set()
    while _beating:
        _beating.pop().join()
    while _locks:
        _locks.popitem()[1].release()
    while _made:
        with suppress(OSError):  # something is in it now
            _made.pop().rmdir()


def confirm(directory: Path) -> None:
    """Raise EnsyncError when this process held the lock of a directory and does not any more.

    Of no effect without a lock.
    """
    lock = _locks.get(directory.resolve())
    if lock is not None:
        lock.confirm()


def describe_holder(directory: Path) -> str:
    """Return in words who holds a directory, "" when nobody does."""
    found = _read(directory / NAME)
    if found is None:
        return ""
    dead = is_dead(found.holder, this_process("describe"))
    age = max(0.0, time.time() - found.beat)  # by this machine's clock
    if dead or (dead is None and age > 10 * STALE):
        return f"{GONE}: {found.holder} ended without leaving; the next start takes its lock over"
    return f"{found.holder}, last sign of life {age:.0f} s ago"


def _make(directory: Path) -> list[Path]:
    """Make a directory and those above it; return those that were made, the highest first."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnsyncError(
            f"the output.directory '{directory}' cannot be made "
            f"({(error.strerror or str(error)).lower()})",
            "a directory that can be written",
            "check its path and permissions or give --set output.directory=DIR",
        ) from None
    return missing[::-1]


def _beat(on_loss: Callable[[], None]) -> None:
    while not _done.wait(BEAT):
        for lock in list(_locks.values()):
            lock.beat()
            if lock.lost:
                on_loss()
                return
