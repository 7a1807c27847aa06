"""What every reader of published files returns, and how it reads files it does not trust."""

import gzip
import hashlib
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from ensync.core.errors import EnsyncError, reason
from ensync.storage.sources.names import resembling

LISTED = 5  # how many bad rows or files a sentence names before it only counts


class Images(Protocol):
    """Images uint8 `(rows, height, width, channels)`: an array, or pictures decoded when asked
    for.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


@runtime_checkable
class Ahead(Protocol):
    """Images that take their time to come: the next are made while the last are used."""

    def ahead(self, rows: np.ndarray, step: int) -> Iterator[np.ndarray]:
        """Yield the images of rows int64, `step` at a time."""
        ...


@runtime_checkable
class Streamed(Protocol):
    """Images uint8 `(rows, height, width, channels)` that come one after the other, in an order of
    their own: from archives and tables, where to look one up would be slow.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def pieces(self, skip: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows int64 (n,), images uint8 (n, height, width, channels)): each row once, but
        any in any piece. Each call reads from the beginning, always in the same order; the first
        `skip` images are passed over.
        """
        ...


@dataclass(frozen=True)
class Source:
    """A dataset before it is split and stored.

    images: {split: uint8 (rows, height, width, channels)} with "train", perhaps "validation" and
    "test", looked up or streamed; labels: {split: int64 (rows,)}, numbers of class_names;
    checksums: {file: "md5:..." or "sha256:..."}; notes: what a reader of the prepared file must
    know (rows left out); left_out: all rows left out, with what is wrong with each; preparation:
    {rule: value}, by which the images became what they are;
    identities: {split: uint64 (rows,)}, the same for rows that are the same, where the source
    knows; names: {split: name of each row} of them.
    """

    name: str
    images: Mapping[str, Images | Streamed]
    labels: dict[str, np.ndarray]
    class_names: list[str]
    source: str
    licence: str
    checksums: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    preparation: dict[str, float | int | str] = field(default_factory=dict)
    identities: dict[str, np.ndarray] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)


def regular_file(path: Path) -> Path:
    """Return `path` when it is a file (a pipe or a device could stop or flood us). Errors:
    EnsyncError.
    """
    with named_errors(path):
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        raise EnsyncError(
            f"{path} is {'a directory' if stat.S_ISDIR(mode) else 'not a file'}",
            "a file",
            "give another path",
        )
    return path


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about `path` into the sentence that says so."""
    try:
        yield
    except gzip.BadGzipFile:
        raise  # an OSError by type, but about the content
    except FileNotFoundError as error:
        what = (
            "links to nothing (was its data fetched?)"
            if path.is_symlink()
            else f"does not exist{resembling(path)}"
        )
        raise EnsyncError(
            f"{path} {what}", "a readable file or directory", "check the path"
        ) from error
    except NotADirectoryError as error:
        file = next((part for part in (path, *path.parents) if part.is_file()), path)
        given = (
            f"{path} is a file"
            if file == path
            else f"{path} cannot be read because {file} is a file"
        )
        raise EnsyncError(given, "a directory", "check the path") from error
    except OSError as error:
        raise EnsyncError(
            f"{path} cannot be read because {reason(error)}",
            "a readable file or directory",
            "check the path and its permissions",
        ) from error


def identities(rows: np.ndarray) -> np.ndarray:
    """Return uint64 (rows,), the same for rows of the same bytes."""
    flat = np.ascontiguousarray(rows.reshape(len(rows), -1))
    return np.array(
        [int.from_bytes(hashlib.blake2b(row, digest_size=8).digest()) for row in flat], np.uint64
    )


def checksum(path: Path, algorithm: str = "md5") -> str:
    """Return "md5:..." of a file; MD5 because that is what the publishers of these datasets
    give.
    """
    with named_errors(path), path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def first_few(problems: list[str], count: int) -> str:
    """Return "a; b; c and 7 more" for `problems`, the first of `count` there are."""
    text = "; ".join(problems[:LISTED])
    return text + (f" and {count - LISTED} more" if count > LISTED else "")
