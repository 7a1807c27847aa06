"""Pictures that come out of a stream as bytes: looked at, and later decoded each to its row."""

import hashlib
import io
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import prod
from typing import NamedTuple

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.sources.checking import Asked, Checked
from ensync.storage.sources.decoding import Decoded, Recipe, decode_stream
from ensync.storage.sources.looking import SHAPE, Look, look_at
from ensync.storage.sources.picture_rows import TOGETHER, in_order
from ensync.storage.work import Work

PIECE = 4 << 20  # bytes of images that are handed out together
NOT_READ = Decoded(problem="is larger than pictures may be")


class Encoded(NamedTuple):
    """A picture as it comes: its number in the stream, and its bytes, or what is wrong instead."""

    number: int
    data: bytes | None
    problem: Decoded = NOT_READ


class Found(NamedTuple):
    """The pictures of each split in the order of its rows, and their numbers in the stream, -1
    where there is none.

    notes: what was found out about where pictures and labels are.
    """

    class_names: list[str]
    checked: dict[str, Checked]
    numbers: dict[str, list[int]]
    notes: list[str]

    def row_of(self, split: str, places: np.ndarray, total: int) -> np.ndarray:
        """Return int64 (total,) by number: the row that a picture becomes when these places int64
        of a split are kept, -1 of the others.
        """
        row_of = np.full(total, -1, np.int64)
        row_of[np.array(self.numbers[split], np.int64)[places]] = np.arange(len(places))
        return row_of


class Looks:
    """What a look at the pictures of a stream has found, by number; few are worth remembering."""

    def __init__(self) -> None:
        self._noted: dict[int, Decoded] = {}
        self._identities = array("Q")
        self._sides = array("L")

    def __len__(self) -> int:
        return len(self._identities)

    def look(self, stream: Iterable[Encoded], how: Recipe, work: Work) -> Iterator[Encoded]:
        """Decode the pictures of a stream, numbered on from those before; yield each after it."""

        def look(one: Encoded) -> Look:
            found = decode_bytes(one, SHAPE, how)._replace(pixels=None)
            return Look(found, hashlib.sha256(one.data or b"").digest())

        def key(one: Encoded) -> int:
            if one.data is None:
                return 0
            digest = hashlib.blake2b(one.data, digest_size=8, salt=_salt(how))
            return int.from_bytes(digest.digest())

        for one, (found, sha) in look_at(stream, look, key, _size, work):
            if found != Decoded(side=found.side):
                self._noted[one.number] = found
            self._identities.append(int.from_bytes(sha[:8], "little"))
            self._sides.append(found.side)
            yield one

    def __getitem__(self, number: int) -> tuple[Decoded, int]:
        """Return what decoding a picture gave, without pixels, and what its bytes determine."""
        plain = Decoded(side=self._sides[number])
        return self._noted.get(number, plain), self._identities[number]


def _salt(how: Recipe) -> bytes:
    """Return what keeps looks with other values of black and white apart."""
    return hashlib.blake2b(str(how.values).encode(), digest_size=16).digest()


def decode_bytes(one: Encoded, shape: tuple[int, ...], how: Recipe) -> Decoded:
    """Return the picture in `shape` (height, width, 1 or 3), or what is wrong with it."""
    if one.data is None:
        return one.problem
    return decode_stream(io.BytesIO(one.data), shape, how)


class StreamedPictures:
    """The pictures of a split, decoded as they come out of `stream()`, which begins anew each time.

    row_of: int64 by number, the row of a picture, -1 of those left out; asked: what becomes of
    them, of a size that is known; jobs: threads, 0 for one on each usable CPU.
    """

    def __init__(
        self,
        stream: Callable[[], Iterable[Encoded]],
        row_of: np.ndarray,
        asked: Asked,
        jobs: int = 0,
    ) -> None:
        self.shape = (int((row_of >= 0).sum()), *asked.shape)
        self._stream, self._row_of, self._recipe = stream, row_of, asked.recipe
        self._jobs = jobs

    def pieces(self, skip: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows int64 (n,), images uint8 (n, height, width, channels)), without the first
        `skip` images.

        Errors: EnsyncError when a picture can no longer be decoded.
        """
        shape, rows, pixels = self.shape[1:], [], []
        size, together = prod(shape), max(1, min(TOGETHER, PIECE // prod(shape)))
        wanted = (one for one in self._stream() if self._row(one) >= 0)
        for one, found in in_order(
            lambda one: decode_bytes(one, shape, self._recipe),
            islice(wanted, skip, None),
            lambda one: _size(one) + size,
            self._jobs,
        ):
            if found.pixels is None:
                raise EnsyncError(
                    f"picture {one.number + 1} {found.problem}",
                    "files that do not change meanwhile",
                    "prepare again",
                )
            rows.append(self._row(one))
            pixels.append(found.pixels)
            if len(rows) == together:
                yield np.array(rows, np.int64), np.stack(pixels)
                rows, pixels = [], []
        if rows:
            yield np.array(rows, np.int64), np.stack(pixels)

    def _row(self, one: Encoded) -> int:
        return int(self._row_of[one.number]) if one.number < len(self._row_of) else -1


def _size(one: Encoded) -> int:
    return len(one.data or b"")
