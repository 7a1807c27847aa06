"""The bytes of a checkpoint: a readable header of 512 bytes, then an HDF5 file (any HDF5 tool opens the whole).

    Ensync checkpoint            the header stands in HDF5's user block; it is read before HDF5 sees the file, because the HDF5
    version 1                    library is not made for damaged files, and one flipped bit anywhere is caught by
    bytes 20010034               `tail -c +513 FILE | sha256sum`
    sha256 5f1d...

    /                            attributes: format, version, creator
    /attributes                  one UTF-8 string, JSON
    /arrays/NAME                 contiguous, uncompressed; "/" in NAME makes groups
"""

import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from ensync import __version__
from ensync.errors import EnsyncError
from ensync.storage.atomic import reason

FORMAT, VERSION, HEADER = "ensync-checkpoint", 1, 512
DTYPES = frozenset("int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split())
DEPTH = 16  # of groups within each other

_START = re.compile(rb"Ensync checkpoint\nversion (\d{1,9})\n")
_SIZE = re.compile(rb"bytes (\d{1,18})\n")


def encode(attributes: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> list[bytes | memoryview]:
    """Return the pieces of the file: header and HDF5 image, made in memory."""
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=HEADER) as file:
        for key, value in {"format": FORMAT, "version": str(VERSION), "creator": f"ensync {__version__}"}.items():
            file.attrs[key] = np.bytes_(value)  # fixed length: HDF5 may loop for ever in a forged heap of variable-length texts
        text = json.dumps(attributes, default=_plain).encode()
        file.create_dataset("attributes", data=np.bytes_(text), dtype=h5py.string_dtype("utf-8", len(text)))
        for name, array in arrays.items():
            if str(array.dtype) not in DTYPES:
                raise ValueError(f"array '{name}' of type {array.dtype} cannot be stored")
            file.create_dataset(f"arrays/{name}", data=array)
    body = image.getbuffer()[HEADER:]
    return [_header(VERSION, HEADER + len(body), hashlib.sha256(body).hexdigest()), body]


def verify_bytes(path: str | os.PathLike[str]) -> None:
    """Check that the file at `path` is, to the bit, one that `encode` made in a version known here. Errors: EnsyncError."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # a pipe must not stop us
            _verify_open(path, file)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        raise refusal(path, "does not exist" if absent else f"cannot be read because {reason(error)}") from error


def decode(path: str | os.PathLike[str], with_arrays: bool = True) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (attributes, arrays) of a file whose bytes are verified; it is still not trusted, its author may be hostile.

    Errors: EnsyncError for anything but the layout above, found before memory is taken for it.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            size = Path(path).stat().st_size
            _check_format(path, file)
            attributes = _read_attributes(path, file, size)
            datasets = dict(_walk(path, file, size))
            if sum(dataset.nbytes for dataset in datasets.values()) > size:
                raise refusal(path, "declares more data than the file holds")
            return attributes, {name: dataset[()] for name, dataset in datasets.items()} if with_arrays else {}
    except EnsyncError:
        raise
    except Exception as error:  # h5py lets many types through from the HDF5 library, and their texts are about its inside
        raise refusal(path, f"is not readable as HDF5 ({_brief(error)})") from error


def refusal(path: str | os.PathLike[str], why: str) -> EnsyncError:
    """Return the error that refuses the file at `path`."""
    return EnsyncError(f"{path} {why}", "a whole checkpoint written by Ensync", "use another checkpoint of the run, or train again")


def _header(version: int, size: int, digest: str) -> bytes:
    return f"Ensync checkpoint\nversion {version}\nbytes {size}\nsha256 {digest}\n".encode().ljust(HEADER, b"\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be stored in a checkpoint's attributes")


def _verify_open(path: str | os.PathLike[str], file: BinaryIO) -> None:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise refusal(path, "is not a file")
    header = file.read(HEADER)
    start = _START.match(header)
    if start is None:
        raise refusal(path, "is empty" if not header else "is not an Ensync checkpoint")
    if int(start[1]) > VERSION:
        raise refusal(path, f"has format version {int(start[1])}, newer than this Ensync ({__version__}, version {VERSION})")
    size = _SIZE.match(header, start.end())
    if size and int(size[1]) > status.st_size:
        raise refusal(path, f"is cut short: {status.st_size} of {int(size[1])} bytes")
    if header != _header(VERSION, status.st_size, hashlib.file_digest(file, "sha256").hexdigest()):
        raise refusal(path, "is damaged: its bytes do not match its checksum")


def _check_format(path: str | os.PathLike[str], file: h5py.File) -> None:
    types = [file.attrs.get_id(key).dtype.kind for key in ("format", "version") if key in file.attrs]
    found = [file.attrs[key] for key in ("format", "version")] if types == ["S", "S"] else []
    if found != [FORMAT.encode(), str(VERSION).encode()] or set(file) - {"attributes", "arrays"}:
        raise refusal(path, "is not laid out as a checkpoint")


def _read_attributes(path: str | os.PathLike[str], file: h5py.File, size: int) -> dict[str, Any]:
    dataset = _hard(path, file, "attributes")
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "S" or dataset.shape != ():
        raise refusal(path, "has attributes that are not one text")
    _check_storage(path, dataset, size)
    try:
        attributes = json.loads(bytes(dataset[()]))
    except (ValueError, RecursionError) as error:
        raise refusal(path, "has attributes that are not JSON") from error
    if not isinstance(attributes, dict):
        raise refusal(path, "has attributes that are not a table")
    return attributes


def _walk(path: str | os.PathLike[str], file: h5py.File, size: int) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield (name, dataset) of every array, following nothing but tree-like hard links."""
    seen: set[int] = set()
    waiting: list[tuple[str, h5py.Group]] = [("", _hard(path, file, "arrays"))] if "arrays" in file else []
    while waiting:
        prefix, group = waiting.pop()
        for key in group:
            entry, name = _hard(path, group, key), prefix + key
            address = h5py.h5o.get_info(entry.id).addr
            if address in seen:
                raise refusal(path, f"links to '{name[:80]}' more than once")
            seen.add(address)
            if isinstance(entry, h5py.Group) and name.count("/") < DEPTH:
                waiting.append((name + "/", entry))
            elif isinstance(entry, h5py.Dataset) and entry.shape is not None and str(entry.dtype) in DTYPES:
                _check_storage(path, entry, size)
                yield name, entry
            else:
                raise refusal(path, f"holds '{name[:80]}', which is not an array of numbers")


def _hard(path: str | os.PathLike[str], group: h5py.Group, key: str) -> Any:
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise refusal(path, f"lacks '{key[:80]}' or links it to another place or file")
    return group[key]


def _check_storage(path: str | os.PathLike[str], dataset: h5py.Dataset, size: int) -> None:
    """Refuse a dataset whose bytes do not all lie in this file, one after the other."""
    layout = dataset.id.get_create_plist()
    plain = layout.get_layout() == h5py.h5d.CONTIGUOUS and layout.get_external_count() == 0
    whole = dataset.id.get_storage_size() == dataset.nbytes and (dataset.id.get_offset() or 0) + dataset.nbytes <= size
    if not plain or (dataset.nbytes and not whole):
        raise refusal(path, f"declares '{dataset.name[:80]}' as {dataset.nbytes} bytes, which the file does not hold")


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
