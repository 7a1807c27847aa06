"""CIFAR-10, from its binary or its python batches, in a directory or in the archive as published.

    NAME.bin   10,000 times: 1 label byte, 3,072 pixel bytes (1,024 red, 1,024 green, 1,024 blue,
    rows first) NAME       a pickle of {"data": uint8 (10000, 3072) in the same order, "labels":
    [...], ...}
Source of the formats: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import gzip
import tarfile
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.published import CIFAR10_BATCHES, PUBLISHED
from ensync.storage.sources.plain_pickle import read_plain_pickle
from ensync.storage.sources.source import Source, checksum, named_errors, regular_file

ROWS, PIXELS, CLASSES = 10_000, 3072, 10
LARGEST_BATCH = 40 << 20  # bytes; the published python batches are 31 MB
LARGEST_ARCHIVE = 400 << 20  # bytes once decompressed; the published archives hold 186 MB
SUBDIRECTORIES = ("", "cifar-10-batches-bin", "cifar-10-batches-py")
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")


def read_cifar10(path: str | Path, rows: int = ROWS) -> Source:
    """Return CIFAR-10 from a directory of batches, its parent, or the published .tar.gz (or the
    directory that holds it).

    rows: images in each of the six batches. Errors: EnsyncError naming the batch that is missing or
    damaged.
    """
    batches, sums = _collect(Path(path))
    images, labels = [], []
    for name in CIFAR10_BATCHES:
        pixels, numbers = _decode(f"{path}: {name}", _bytes(batches[name]), rows)
        images.append(pixels)
        labels.append(numbers)
    published = PUBLISHED["cifar-10"]
    return Source(
        name="cifar-10",
        images={"train": np.concatenate(images[:-1]), "test": images[-1]},
        labels={"train": np.concatenate(labels[:-1]), "test": labels[-1]},
        class_names=list(published.class_names),
        source=published.source,
        licence=published.licence,
        checksums=sums,
        notes=_compare(sums),
    )


def _collect(path: Path) -> tuple[dict[str, Path | bytes], dict[str, str]]:
    """Return ({batch: its file or its bytes}, {file: checksum})."""
    with named_errors(path):
        is_directory = path.is_dir()
    if not is_directory:
        return _from_archive(regular_file(path))
    for place in SUBDIRECTORIES:
        for suffix in (".bin", ""):
            files = {name: path / place / (name + suffix) for name in CIFAR10_BATCHES}
            present = [name for name, file in files.items() if file.is_file()]
            if present:
                return _from_files(path, files, present)
    for archive in ARCHIVES:
        if (path / archive).is_file():
            return _from_archive(path / archive)
    raise EnsyncError(
        f"{path} has no data_batch_1 (or data_batch_1.bin) and no {' or '.join(ARCHIVES)}",
        "CIFAR-10 as published",
        "give the directory with --from, or fetch the archive with --download",
    )


def _from_files(
    path: Path, files: dict[str, Path], present: list[str]
) -> tuple[dict[str, Path | bytes], dict[str, str]]:
    missing = [file.name for name, file in files.items() if name not in present]
    if missing:
        raise EnsyncError(
            f"{path} lacks {', '.join(missing)}",
            "all six batches",
            "copy the missing files, or prepare with --download",
        )
    return dict(files), {file.name: checksum(file) for file in files.values()}


def _bytes(batch: Path | bytes) -> bytes:
    if isinstance(batch, bytes):
        return batch
    with named_errors(batch), batch.open("rb") as stream:
        return stream.read(LARGEST_BATCH + 1)


def _from_archive(path: Path) -> tuple[dict[str, Path | bytes], dict[str, str]]:
    """Read the six batches out of a .tar.gz, one pass, nothing written."""
    sums = {path.name: checksum(path)}
    found: dict[str, Path | bytes] = {}
    try:
        with (
            named_errors(path),
            gzip.open(path) as stream,
            # Reading in one pass, tarfile calls nothing but `read`.
            tarfile.open(fileobj=cast(IO[bytes], _Bounded(stream)), mode="r|") as archive,
        ):
            for member in archive:
                name = Path(member.name).name.removesuffix(".bin")
                if member.isreg() and not member.issparse() and name in CIFAR10_BATCHES:
                    file = archive.extractfile(member)
                    found[name] = file.read(LARGEST_BATCH + 1) if file else b""
    except (
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        tarfile.TarError,
        ValueError,
        OverflowError,
    ) as error:
        raise EnsyncError(
            f"{path} is cut short or damaged ({error})",
            "a .tar.gz as published",
            "fetch it again, or prepare with --download",
        ) from error
    missing = [name for name in CIFAR10_BATCHES if name not in found]
    if missing:
        raise EnsyncError(
            f"{path} lacks {', '.join(missing)}",
            "all six batches",
            "fetch it again, or prepare with --download",
        )
    return found, sums


class _Bounded:
    """A stream that refuses to give more than LARGEST_ARCHIVE bytes, so that an archive cannot
    grow without end.
    """

    def __init__(self, stream: gzip.GzipFile) -> None:
        self.stream, self.given = stream, 0

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes. Errors: ValueError beyond the bound."""
        self.given += count
        if count > LARGEST_ARCHIVE or self.given > LARGEST_ARCHIVE:
            raise ValueError(f"it holds more than {LARGEST_ARCHIVE} bytes")
        return self.stream.read(count)


def _decode(name: str, data: bytes, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 (rows, 32, 32, 3) and labels int64 (rows,) of one batch in either
    format.
    """
    if data[:1] == b"\x80" and data[1:2] == b"\x02":
        pixels, labels = _from_pickle(name, data)
    else:
        if len(data) != rows * (1 + PIXELS):
            raise _refusal(name, f"is {len(data)} bytes long, not {rows * (1 + PIXELS)}")
        table = np.frombuffer(data, np.uint8).reshape(rows, 1 + PIXELS)
        pixels, labels = table[:, 1:], table[:, 0].astype(np.int64)
    if pixels.shape != (rows, PIXELS) or labels.shape != (rows,):
        raise _refusal(name, f"holds {pixels.shape} pixels and {labels.shape} labels")
    if labels.min() < 0 or labels.max() >= CLASSES:
        row = int(np.argmax((labels < 0) | (labels >= CLASSES)))
        raise _refusal(
            name, f"gives image {row} the label {labels[row]}, and there are {CLASSES} classes"
        )
    return np.ascontiguousarray(pixels.reshape(rows, 3, 32, 32).transpose(0, 2, 3, 1)), labels


def _from_pickle(name: str, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    if len(data) > LARGEST_BATCH:
        raise _refusal(name, f"is larger than {LARGEST_BATCH} bytes")
    try:
        content = read_plain_pickle(data)
        pixels, labels = content["data"], np.array(content["labels"], np.int64)
        if not isinstance(pixels, np.ndarray):
            raise ValueError("data that is not an array")
        return pixels, labels
    # a pickle can be wrong in as many ways as there are programs; none of them has been run
    except Exception as error:
        raise _refusal(
            name, f"is not a pickle of CIFAR-10's kind ({type(error).__name__}: {str(error)[:200]})"
        ) from error


def _compare(sums: dict[str, str]) -> list[str]:
    """Return a note for each file that is not the published one; the .bin files have no
    published checksums of their own.
    """
    known = CIFAR10_BATCHES | PUBLISHED["cifar-10"].files
    return [
        f"{name} is not the published file: its MD5 is {sum.removeprefix('md5:')}"
        for name, sum in sums.items()
        if name in known and sum != f"md5:{known[name]}"
    ]


def _refusal(name: str, why: str) -> EnsyncError:
    return EnsyncError(
        f"{name} {why}", "a batch as published", "fetch it again, or prepare with --download"
    )
