"""What is in a directory of pictures: nothing is passed over without a count and a name."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ensync.core.errors import EnsyncError, plural
from ensync.storage.sources.names import replicas, shown
from ensync.storage.sources.source import first_few, named_errors
from ensync.storage.sources.tally import Tally

SUFFIXES = frozenset(
    ".png .apng .jpg .jpeg .jpe .jfif .bmp .gif .tif .tiff .webp .ppm .pgm .pbm .pnm".split()
)
SYSTEM = frozenset(
    (
        "__macosx",
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "icon\r",
    )
)
HIDDEN, BY_SYSTEM, NO_PICTURE = (
    "left out, hidden",
    "left out, made by the system",
    "left out, no picture by its name",
)
NESTED = "left out, a folder within a folder of pictures"
TWINS = "names that differ only in capitals or Unicode form, both kept"


@dataclass
class Folder:
    """A directory: its entries by what they are, sorted; `name` for sentences ends in a slash."""

    path: Path
    name: str
    folders: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)  # by their names; links to nothing, too
    others: list[str] = field(default_factory=list)


class Files(Protocol):
    """Where class folders are looked for: a disk, or an archive that is read as if it were one."""

    def look(self, path: Path, name: str, tally: Tally) -> Folder:
        """Return what is in a directory, sorted; what is hidden or the system's is left out."""
        ...

    def pictures_below(self, path: Path) -> int:
        """Return how many files below a directory are pictures."""
        ...


class Disk:
    """The files of this machine."""

    def look(self, path: Path, name: str, tally: Tally) -> Folder:
        """Return what is in a directory."""
        return look(path, name, tally)

    def pictures_below(self, path: Path) -> int:
        """Return how many files below a directory are pictures; links are not followed."""
        return sum(is_picture(name) for _place, _folders, names in os.walk(path) for name in names)


DISK = Disk()


def is_picture(name: str) -> bool:
    """Tell whether a file is a picture by its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def look(path: Path, name: str, tally: Tally) -> Folder:
    """Return what is in a directory, sorted; what is hidden or the system's is left out."""
    with named_errors(path):
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    return sorted_out(Folder(path, name), ((entry.name, _kind(entry)) for entry in entries), tally)


def sorted_out(folder: Folder, entries: Iterable[tuple[str, str]], tally: Tally) -> Folder:
    """Return the folder with entries (name, field of Folder), in this order; what is hidden or the
    system's is left out.
    """
    for name, kind in entries:
        if name.startswith("."):
            tally.add(HIDDEN, folder.name + shown(name))
        elif name.lower() in SYSTEM:
            tally.add(BY_SYSTEM, folder.name + shown(name))
        else:
            getattr(folder, kind).append(name)
    return folder


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folders"
        leads_nowhere = entry.is_symlink() and not os.path.exists(entry.path)
    except OSError:  # a link to itself
        leads_nowhere = True
    return "pictures" if leads_nowhere or is_picture(entry.name) else "others"


def leads_nowhere(path: Path) -> bool:
    """Tell whether a path is a link to nothing."""
    return path.is_symlink() and not os.path.exists(path)


def note_rest(inside: Folder, tally: Tally, files: Files = DISK) -> None:
    """Note what else is there: folders, files that are no pictures, names that look alike."""
    for name in inside.folders:
        below = files.pictures_below(inside.path / name)
        tally.add(NESTED, f"{inside.name}{shown(name)}/ with {plural(below, 'picture')}")
    for name in inside.others:
        tally.add(NO_PICTURE, inside.name + shown(name))
    for one, other in replicas(inside.pictures):
        tally.add(TWINS, f"{inside.name}{one!a} and {other!a}")


def pictures_in(path: Path, tally: Tally) -> Iterator[Path]:
    """Yield the pictures of a directory to predict, sorted; what else is there is noted."""
    inside = look(path, f"{path}/", tally)
    if not inside.pictures:
        names = [shown(name) for name in inside.folders]
        raise EnsyncError(
            f"{path} has no pictures"
            + (f" but folders ({first_few(names, len(names))})" if names else ""),
            f"files ending in {', '.join(sorted(SUFFIXES))}",
            "name another directory, or the files themselves",
        )
    note_rest(inside, tally)
    yield from (path / name for name in inside.pictures)
