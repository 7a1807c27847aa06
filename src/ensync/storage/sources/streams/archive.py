"""What is in a tar archive, member by member, in one pass. Nothing is written to the disk.

    .tar, .tar.gz, .tgz       told apart by their first bytes, not by their names
    NAME.tar within a .tar    is read as a folder NAME (ImageNet's classes)
A member's path is made of the parts of its name without "", "." and "..", so that neither absolute
names nor ../.. lead anywhere. tarfile takes a damaged header for the end of the archive; here it
is refused, and so is an archive without the mark of its end (a block of zeros).
Source of the format: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html
"""

import gzip
import tarfile
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import IO, NamedTuple, Protocol, Self, cast

from ensync.core.errors import EnsyncError
from ensync.storage.sources.names import shown
from ensync.storage.sources.source import named_errors, regular_file

GZIP = b"\x1f\x8b"
BUFFER = 1 << 20  # bytes read at a time
LARGEST_FILE = 256 << 20  # bytes of a member that is read
LARGEST_NOTE = 1 << 20  # bytes of the headers that hold long names
NOTES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class Kind(Enum):
    """What a member is."""

    FILE, FOLDER, LINK, OTHER = range(4)


class Entry(NamedTuple):
    """A member: its path, what it is, and its bytes where they were wanted and are not too many."""

    path: str
    kind: Kind
    data: bytes | None = None


class Readable(Protocol):
    """All that tarfile and gzip ask of a stream that they read in one pass."""

    def read(self, size: int = -1, /) -> bytes: ...


class Digest(Protocol):
    """What takes all bytes of an archive, such as a sum of hashlib."""

    def update(self, data: bytes, /) -> None: ...


class Damage(Exception):
    """What is wrong with an archive."""


class _Header(tarfile.TarInfo):
    """A header that does not take damage for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block of bytes. Errors: Damage."""
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the mark of the end
            if not buf:
                raise Damage("it stops without the mark of its end") from error
            raise Damage(str(error)) from error
        if header.type in NOTES and header.size > LARGEST_NOTE:
            raise Damage(f"a name of {header.size:,} bytes")
        return header


class _Counted:
    """A file whose bytes are counted, and handed to a sum, as they are read."""

    def __init__(self, file: Readable, digest: Digest | None, tell: Callable[[int], None]) -> None:
        self._file, self._digest, self._tell = file, digest, tell
        self._done = 0

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes."""
        data = self._file.read(size)
        self._done += len(data)
        if self._digest is not None:
            self._digest.update(data)
        self._tell(self._done)
        return data


class _Place:
    """How far the reading has come, for the sentence about damage."""

    def __init__(self) -> None:
        self.names: list[str] = []  # of the member at hand, behind those of archives around it
        self.offset = 0

    def words(self) -> str:
        """Return "behind byte 1,024 of its content, in a.tar: b.jpg"."""
        where = f"behind byte {self.offset:,} of its content"
        return f"{where}, in {': '.join(map(shown, self.names))}" if self.names else where


def entries(
    path: Path,
    wanted: Callable[[str], bool],
    digest: Digest | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Iterator[Entry]:
    """Yield the members of an archive, with the bytes of the files whose paths are wanted.

    digest: takes all bytes of the archive; tell(bytes read). Errors: EnsyncError naming the member
    and the offset where the archive is damaged or cut off.
    """
    place = _Place()
    try:
        with named_errors(path), regular_file(path).open("rb") as file:
            compressed = file.read(2) == GZIP
            file.seek(0)
            counted = _Counted(file, digest, tell)
            unpacked = gzip.GzipFile(fileobj=cast(IO[bytes], counted), mode="rb")
            yield from _walk(unpacked if compressed else counted, "", place, wanted)
    except EnsyncError:
        raise
    # tarfile, gzip and zlib raise what they stumble on
    except Exception as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise EnsyncError(
            f"{path} is damaged or cut off {place.words()} ({why})",
            "a whole .tar or .tar.gz",
            "fetch it again, or pack it again",
        ) from error


def _walk(
    stream: Readable, prefix: str, place: _Place, wanted: Callable[[str], bool]
) -> Iterator[Entry]:
    """Yield the members of an archive in a stream, their paths behind a prefix."""
    outside = list(place.names)
    with tarfile.open(
        fileobj=cast(IO[bytes], stream),
        mode="r|",
        bufsize=BUFFER,
        tarinfo=_Header,
        encoding="utf-8",
    ) as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # where tarfile keeps them all
            place.names, place.offset = [*outside, member.name], member.offset
            yield from _member(archive, member, prefix, place, wanted)
        _check_end(cast(Readable, archive.fileobj))
    place.names = outside


def _member(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    prefix: str,
    place: _Place,
    wanted: Callable[[str], bool],
) -> Iterator[Entry]:
    path = prefix + "/".join(p for p in member.name.split("/") if p not in ("", ".", ".."))
    if not member.isreg() or member.issparse():
        link = member.issym() or member.islnk()
        kind = Kind.FOLDER if member.isdir() else Kind.LINK if link else Kind.OTHER
        yield Entry(path, kind)
    elif path.lower().endswith(".tar") and not prefix:
        folder = path[: -len(".tar")]
        yield Entry(folder, Kind.FOLDER)
        yield from _walk(_content(archive, member), folder + "/", place, wanted)
    elif wanted(path) and member.size <= LARGEST_FILE:
        yield Entry(path, Kind.FILE, _content(archive, member).read())
    else:
        yield Entry(path, Kind.FILE)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Readable:
    file = archive.extractfile(member)
    if file is None:
        raise Damage("a member without content")
    return file


def _check_end(rest: Readable) -> None:
    """Read to the end of an archive behind the mark of its end. Errors: Damage for more than zeros,
    which other programs would pass over.
    """
    while block := rest.read(BUFFER):
        if any(block):
            raise Damage("more stands behind the mark of its end: are these archives in a row?")
