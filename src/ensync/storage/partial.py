"""What a preparation that was stopped has left beside its target, for the same command to go on
from.

    data/.images.h5.partial/looked     a line of JSON for each picture that was looked at
                            images     the dataset file, as far as it is written
                            written    a line of JSON for each stretch of it that is on the disk
                            asked      what it is written from: options, pictures, rules

A line counts once it is whole, so that a process may be killed at any moment. Short preparations,
of less than EVERY pictures, leave nothing.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.atomic import LONGEST_NAME, naming_errors

EVERY = 1000  # pictures between two marks on the disk
KEY = 16  # hexadecimal digits of a picture's key, at the beginning of its line
LOOK = re.compile(rb'\["[0-9a-f]{%d}", .*\]\n' % KEY)
MARK = re.compile(rb'\{("[a-z ]+": [0-9]+(, )?)+\}\n')
LOOKED, IMAGES, WRITTEN, ASKED, LOCK = "looked", "images", "written", "asked", "lock"
PICTURES, PLAN, PROGRAM = "pictures", "plan", "program"  # in ASKED, beside options
NO_OPTIONS: Mapping[str, str] = {}


def directory_of(target: Path) -> Path:
    """Return where a stopped preparation of `target` leaves what it has done."""
    end = ".partial"
    room = LONGEST_NAME - 1 - len(end)
    name = os.fsencode(target.name)[:room].decode(errors="ignore")
    return target.with_name(f".{name}{end}")


class Partial:
    """What earlier calls have done for a target, and what this one adds to it.

    options: what decides what is written, in words. restart: forget what earlier calls have done.
    Without a target, where another process does the same, and where the file system has no locks,
    nothing is known and nothing kept. Used as a context: what is left at its end is kept.
    """

    def __init__(
        self,
        target: Path | None = None,
        options: Mapping[str, str] = NO_OPTIONS,
        restart: bool = False,
    ) -> None:
        self._target = target or Path()
        self._place = None if target is None else directory_of(target)
        self._lock, self._worth_keeping, self._begun = -1, False, False
        self._asked = dict(options)
        self._lines: list[bytes] = []  # of pictures looked at, not yet in the file
        self._counts: dict[str, int] = {}  # of images in the file
        self._keys, self._offsets = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        if self._place is not None and self._place.is_dir() and self._locked(self._place):
            if restart:
                self._empty(self._place)
            else:
                self._find(self._place)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Keep what is worth it."""
        if self._worth_keeping:
            with suppress(EnsyncError):  # another error is on its way
                self._append(LOOKED, self._lines)
        else:
            self.remove()
        self._unlock()

    def remove(self) -> None:
        """Forget all, on the disk, too."""
        held = self._lock >= 0
        self._unlock()  # first, since NFS keeps files that are open
        if self._place is not None and held:
            shutil.rmtree(self._place, ignore_errors=True)
        self._place = None

    @property
    def knows_pictures(self) -> bool:
        """Whether earlier calls have looked at some pictures."""
        return len(self._keys) > 0

    def known(self, key: int) -> list[Any] | None:
        """Return what was noted for the picture of this key, a number of 64 bits; None where
        nothing was.
        """
        at = int(np.searchsorted(self._keys, np.uint64(key), side="right")) - 1
        if at < 0 or int(self._keys[at]) != key or self._place is None:
            return None
        with (self._place / LOOKED).open("rb") as file:
            file.seek(int(self._offsets[at]))
            try:
                found: list[Any] = json.loads(file.readline())[1:]
            except ValueError:  # a disk that lost power
                return None
            return found

    def note(self, key: int, found: list[Any]) -> None:
        """Keep what a look at a picture has found, a list of what JSON knows; the last counts."""
        if self._place is None:
            return
        self._lines.append(json.dumps([f"{key:0{KEY}x}", *found]).encode() + b"\n")
        if len(self._lines) >= EVERY and self._made():
            self._worth_keeping = True
            self._append(LOOKED, self._lines)
            self._lines.clear()

    def claim(self, pictures: str) -> None:
        """Say from what is to be written, by a word that stands for the pictures.

        Errors: EnsyncError when images are half written from others, or by other options.
        """
        self._asked[PICTURES] = pictures
        if not self._counts or self._place is None:
            return
        there = _read_json(self._place / ASKED)
        for name in sorted({*there, *self._asked} - {PLAN}):
            if there.get(name) != self._asked.get(name):
                raise self._other(name, there.get(name, ""))

    def begin(self, plan: bytes, images: int) -> Path | None:
        """Return the file to write into, as far as it is written; None where nothing is kept.

        plan: what the file says of itself; images: how many it has. Errors: EnsyncError when it is
        half written from something else.
        """
        if PICTURES not in self._asked or images < EVERY or not self._made():
            return None
        assert self._place is not None, "made"
        asked = self._asked | {PLAN: hashlib.sha256(plan).hexdigest()}
        file = self._place / IMAGES
        if self._counts and _read_json(self._place / ASKED).get(PLAN) != asked[PLAN]:
            raise self._other(PLAN, "")
        if not self._counts:
            with naming_errors(self._target):
                (self._place / WRITTEN).unlink(missing_ok=True)
                file.write_bytes(b"")
                (self._place / ASKED).write_text(json.dumps(asked))
        self._begun = True
        return file

    def written(self, part: str) -> int:
        """Return how many images of a part of the file are in it."""
        return self._counts.get(part, 0)

    def wrote(self, part: str, count: int) -> None:
        """Note that the first `count` images of a part are in the file, now and then."""
        if self._place is None or not self._begun or count - self.written(part) < EVERY:
            return
        self._counts[part], self._worth_keeping = count, True
        with naming_errors(self._target):
            _sync(self._place / IMAGES)
        self._append(WRITTEN, [json.dumps(self._counts).encode() + b"\n"])

    def room(self) -> int:
        """Return the bytes that the images here already take of the disk."""
        try:
            found = os.stat(self._place / IMAGES) if self._place else None
        except OSError:
            return 0
        return found.st_blocks * 512 if found else 0

    def _other(self, name: str, there: str) -> EnsyncError:
        """Return the refusal of images that are half written from something else."""
        here = self._asked.get(name)
        what = f"with {name} {there}" if there else f"without {name}"
        what += f", and not with {here}" if here else ", which this command lacks"
        if name == PLAN:
            what = "from pictures that have changed since"
        elif name == PICTURES:
            what = "from other pictures"
        elif name == PROGRAM:
            what = f"by {there}, and this is {self._asked[name]}"
        return EnsyncError(
            f"{self._target} is half written ({sum(self._counts.values()):,} images) {what}",
            "the command that was stopped, to go on with it",
            "give its options and pictures, or begin anew with --restart",
        )

    def _made(self) -> bool:
        """Make the directory, and tell whether this process has it for itself."""
        if self._place is None or self._lock >= 0:
            return self._lock >= 0
        with naming_errors(self._target):
            self._place.mkdir(parents=True, exist_ok=True)
        return self._locked(self._place)

    def _locked(self, place: Path) -> bool:
        """Lock the directory; where that cannot be, keep nothing from here on."""
        try:
            # a file that can be written: NFS locks no directories
            self._lock = os.open(place / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._unlock()
            self._place = None
        return self._lock >= 0

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _empty(self, place: Path) -> None:
        with naming_errors(self._target):
            for name in (WRITTEN, IMAGES, ASKED, LOOKED):
                (place / name).unlink(missing_ok=True)

    def _find(self, place: Path) -> None:
        """Find what is there, and cut off what a killed process has not ended."""
        keys, offsets = array("Q"), array("q")
        for line, start in _whole_lines(place / LOOKED, LOOK):
            keys.append(int(line[2 : 2 + KEY], 16))
            offsets.append(start)
        order = np.argsort(np.array(keys, np.uint64), kind="stable")
        self._keys = np.array(keys, np.uint64)[order]
        self._offsets = np.array(offsets, np.int64)[order]
        for line, _start in _whole_lines(place / WRITTEN, MARK):
            self._counts = json.loads(line)
        self._worth_keeping = bool(keys) or bool(self._counts)

    def _append(self, name: str, lines: list[bytes]) -> None:
        if self._place is None or not lines:
            return
        with naming_errors(self._target), (self._place / name).open("ab") as file:
            file.write(b"".join(lines))
            file.flush()
            os.fdatasync(file.fileno())


def _whole_lines(path: Path, form: re.Pattern[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield (line, its offset) of a file up to the first that is not of this form, and cut off the
    rest.
    """
    start = 0
    try:
        with path.open("r+b") as file:
            for line in iter(file.readline, b""):
                if not form.fullmatch(line):
                    file.truncate(start)
                    return
                yield line, start
                start += len(line)
    except OSError:  # there is none
        return


def _read_json(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
