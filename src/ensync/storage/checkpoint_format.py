"""The bytes of a checkpoint: an HDF5 file that any HDF5 tool opens, behind 512 bytes that say all
one must know to read it without.

    Ensync checkpoint            the header stands in HDF5's user block
    version 1
    bytes 20010034               of the file
    index 20009744 290           where the bytes of /index are, and how many
    sha256 5f1d...               { head -n 4 FILE; tail -c +513 FILE; } | sha256sum

    /index                       one JSON text: {"creator", "attributes": {...}, "arrays": [[name,
    type, shape, place], ...]} /arrays/NAME                 little-endian, contiguous; "/" in NAME
    makes groups

Writing goes through HDF5, reading does not: its library is not made for files of strangers, in
which it may loop for ever or take any amount of memory. Nothing is ever unpickled, no link
followed.
"""

import hashlib
import io
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ensync import __version__
from ensync.core.errors import EnsyncError, reason
from ensync.storage.writers import writer_of

VERSION, HEADER, PIECE = 1, 512, 1 << 20
DTYPES = frozenset(
    "int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
)

EXPECTED, ACTION = (
    "a whole checkpoint written by Ensync",
    "use another checkpoint of the run, or train again",
)

_START = re.compile(rb"Ensync checkpoint\nversion (\d{1,9})\n")
_REST = re.compile(rb"bytes (\d{1,18})\nindex (\d{1,18}) (\d{1,18})\nsha256 ([0-9a-f]{64})\n\n*")


class Absent(EnsyncError):
    """There is no file of that name (any more)."""


def encode(
    attributes: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> list[bytes | memoryview]:
    """Return the pieces of the file: header and HDF5 image, made in memory."""
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=HEADER) as file:
        entries = [
            [name, str(array.dtype), array.shape, _store(file, name, array)]
            for name, array in arrays.items()
        ]
        text = json.dumps(
            {"creator": f"ensync {__version__}", "attributes": attributes, "arrays": entries},
            default=_plain,
        ).encode()
        index = file.create_dataset(
            "index", data=np.bytes_(text), dtype=h5py.string_dtype("utf-8", len(text))
        )
        place = index.id.get_offset()
    body = image.getbuffer()[HEADER:]
    lines = (
        f"Ensync checkpoint\nversion {VERSION}\nbytes {HEADER + len(body)}\nindex {place} "
        f"{len(text)}\n"
    ).encode()
    return [seal(lines, body), body]


def seal(lines: bytes, body: bytes | memoryview) -> bytes:
    """Return the header of these four lines and the checksum over them and the body."""
    digest = hashlib.sha256(lines)
    digest.update(body)
    return (lines + f"sha256 {digest.hexdigest()}\n".encode()).ljust(HEADER, b"\n")


class Content(NamedTuple):
    """What a checkpoint holds: `attributes` as JSON gives them, and arrays by name."""

    attributes: Mapping[str, Any]
    arrays: dict[str, np.ndarray]


def decode(path: str | os.PathLike[str], with_arrays: bool = True) -> Content:
    """Return the content of the file at `path`, all of it verified; no arrays when they
    are not wanted. Errors: EnsyncError.
    """
    try:
        with open(
            os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb"
        ) as file:  # a pipe must not stop us
            return _decode(path, file, with_arrays)
    except FileNotFoundError as error:
        raise Absent(f"{Path(path)} does not exist", EXPECTED, ACTION) from error
    except OSError as error:
        raise _refusal(path, f"cannot be read because {reason(error)}") from error
    except EnsyncError as error:
        if writer := writer_of(path):
            raise EnsyncError(
                f"{Path(path)} is open for writing in {writer}",
                EXPECTED,
                "close it there, then try again",
            ) from error
        raise


def _decode(path: str | os.PathLike[str], file: io.BufferedReader, with_arrays: bool) -> Content:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise _refusal(path, "is not a file")
    place, length = _verify(path, file, status.st_size)
    if place + length > status.st_size:
        raise _refusal(path, "has its index beyond its end")
    file.seek(place)
    attributes, entries = _index(path, file.read(length), status.st_size)
    wanted = entries if with_arrays else {}
    return Content(attributes, {name: _read(file, *entry) for name, entry in wanted.items()})


def _verify(path: str | os.PathLike[str], file: io.BufferedReader, size: int) -> tuple[int, int]:
    """Check that every bit is as it was written; return where the index is."""
    header = file.read(HEADER)
    start = _START.match(header)
    if start is None:
        raise _refusal(path, "is empty" if not header else "is not an Ensync checkpoint")
    if int(start[1]) > VERSION:
        raise _refusal(
            path,
            f"has format version {int(start[1])}, newer than this Ensync ({__version__}, version "
            f"{VERSION})",
        )
    rest = _REST.fullmatch(header, start.end())
    if rest and int(rest[1]) > size:
        raise _refusal(path, f"is cut short: {size} of {int(rest[1])} bytes")
    digest = hashlib.sha256(header[: rest.start(4) - len("sha256 ")] if rest else b"")
    while piece := file.read(PIECE):
        digest.update(piece)
    if (
        rest is None
        or int(rest[1]) != size
        or int(start[1]) != VERSION
        or digest.hexdigest().encode() != rest[4]
    ):
        raise _refusal(path, "is damaged: its bytes do not match its checksum")
    return int(rest[2]), int(rest[3])


Entry = tuple[np.dtype, tuple[int, ...], int]


def _index(
    path: str | os.PathLike[str], text: bytes, size: int
) -> tuple[dict[str, Any], dict[str, Entry]]:
    """Return the attributes, and type, shape and place of each array; they are as written, but
    by whom is not known.
    """
    try:
        content = json.loads(text)
        attributes = content["attributes"]
        entries = {
            name: (np.dtype(kind), tuple(shape), place)
            for name, kind, shape, place in content["arrays"]
            if kind in DTYPES
        }
        sound = (
            isinstance(attributes, dict)
            and len(entries) == len(content["arrays"])
            and all(map(_sound, entries, entries.values()))
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _refusal(path, "has an index that is not one of Ensync's") from error
    if not sound:
        raise _refusal(path, "has an index that is not one of Ensync's")
    for name, (kind, shape, place) in entries.items():
        if not HEADER <= place <= size - _bytes(kind, shape):
            raise _refusal(
                path,
                f"declares {name[:80]!r} as {_bytes(kind, shape)} bytes, which the file does not "
                "hold",
            )
    if sum(_bytes(kind, shape) for kind, shape, _ in entries.values()) > size:
        raise _refusal(path, "declares more data than the file holds")
    return attributes, entries


def _sound(name: Any, entry: tuple[np.dtype, tuple[Any, ...], Any]) -> bool:
    _, shape, place = entry
    numbers = all(type(n) is int and 0 <= n < 1 << 40 for n in (*shape, place))
    return (
        isinstance(name, str)
        and numbers
        and len(shape) <= 32
        and math.prod(n or 1 for n in shape) < 1 << 60
    )  # numpy's limits


def _bytes(kind: np.dtype, shape: tuple[int, ...]) -> int:
    return kind.itemsize * math.prod(shape)


def _read(
    file: io.BufferedReader, kind: np.dtype, shape: tuple[int, ...], place: int
) -> np.ndarray:
    values = np.empty(math.prod(shape), kind.newbyteorder("<"))
    file.seek(place)
    if file.readinto(values.view(np.uint8)) != values.nbytes:
        raise OSError(None, "it became shorter while it was read")
    return values.astype(kind, copy=False).reshape(shape)


def _store(file: h5py.File, name: str, array: np.ndarray) -> int:
    """Store one array and return where its bytes are."""
    if str(array.dtype) not in DTYPES:
        raise ValueError(f"array '{name}' of type {array.dtype} cannot be stored")
    dataset = file.create_dataset(f"arrays/{name}", data=array, dtype=array.dtype.newbyteorder("<"))
    return dataset.id.get_offset() if array.size else HEADER


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored in a checkpoint's attributes")


def _refusal(path: str | os.PathLike[str], why: str) -> EnsyncError:
    return EnsyncError(f"{Path(path)} {why}", EXPECTED, ACTION)
