"""Which pictures lie in which class folder, and what else is there: nothing is passed over without a count and a name.

    DIR/CLASS/*.png                                                    one split
    DIR/train/CLASS/*.png, perhaps DIR/val/CLASS/..., DIR/test/CLASS/...   in any capitalisation; SPLIT_NAMES has the others
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ensync.errors import EnsyncError
from ensync.storage.sources.names import alike, shown, twins
from ensync.storage.sources.source import first_few, told
from ensync.storage.sources.tally import Tally

SUFFIXES = frozenset(".png .apng .jpg .jpeg .jpe .jfif .bmp .gif .tif .tiff .webp .ppm .pgm .pbm .pnm".split())
SPLIT_NAMES = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
SYSTEM = frozenset(
    ("__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__pycache__",
     "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
)
HIDDEN, BY_SYSTEM, NO_PICTURE = "left out, hidden", "left out, made by the system", "left out, no picture by its name"
LOOSE, NESTED = "left out, beside the class folders", "left out, a folder within a folder of pictures"
EMPTY, LINKED = "left out, a class folder without pictures", "class folders that are links, followed"
TWINS = "names that differ only in capitals or Unicode form, both kept"
EXPECTED = "one folder of pictures for each class, perhaps within train/, val/ and test/"


@dataclass
class Folder:
    """A directory: its entries by what they are, sorted by name; `name` is how it is called in sentences, ending in a slash."""

    path: Path
    name: str
    folders: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)  # by their names; links to nothing, too
    others: list[str] = field(default_factory=list)


@dataclass
class Split:
    """The pictures of a split, sorted by class and name: files, how they are called in sentences, and the numbers of their classes."""

    folder: Folder
    files: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


def look(path: Path, name: str, tally: Tally) -> Folder:
    """Return what is in a directory, whatever order its file system gives; what is hidden or the system's is left out."""
    folder = Folder(path, name)
    with told(path):
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            tally.add(HIDDEN, name + shown(entry.name))
        elif entry.name.lower() in SYSTEM:
            tally.add(BY_SYSTEM, name + shown(entry.name))
        else:
            getattr(folder, _kind(entry)).append(entry.name)
    return folder


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folders"
        leads_nowhere = entry.is_symlink() and not os.path.exists(entry.path)
    except OSError:  # a link to itself
        leads_nowhere = True
    return "pictures" if leads_nowhere or Path(entry.name).suffix.lower() in SUFFIXES else "others"


def find_splits(directory: Path, validation: Path | None, tally: Tally) -> tuple[list[str], dict[str, Split]]:
    """Return the names of the classes, and the pictures of each split; `validation` is a directory of class folders of its own.

    Errors: EnsyncError for whatever is likely a mistake, and for a class without training pictures.
    """
    folders = _split_folders(directory, validation, tally)
    class_names = _class_names(folders)
    splits = {split: _split(folder, split, class_names, tally) for split, folder in folders.items()}
    if len(class_names) == 1:
        given = f"{folders['train'].path} has one class folder only, '{class_names[0]}'"
        raise EnsyncError(given, "two classes or more", "add another class, or check --from")
    return class_names, splits


def _split_folders(directory: Path, validation: Path | None, tally: Tally) -> dict[str, Folder]:
    top = look(directory, "", tally)
    own = [name for name in top.folders if validation is not None and _same(directory / name, validation)]
    found = {split: [name for name in top.folders if name.lower() in names and name not in own] for split, names in SPLIT_NAMES.items()}
    folders = {}
    if any(found.values()):
        _check_splits(directory, top, found, own)
        _beside(top, tally)
        folders = {split: look(directory / names[0], shown(names[0]) + "/", tally) for split, names in found.items() if names}
    else:
        top.folders = [name for name in top.folders if name not in own]
        folders["train"] = top
    if validation is not None:
        if "validation" in folders:
            raise EnsyncError(f"--validation-from {validation} with {directory / found['validation'][0]}", "one of them", "leave --validation-from out")
        folders["validation"] = look(validation, shown(validation.name) + "/", tally)
    for folder in folders.values():
        _beside(folder, tally)
    return {split: folders[split] for split in SPLIT_NAMES if split in folders}


def _same(one: Path, other: Path) -> bool:
    with told(other):
        return one.samefile(other)


def _check_splits(directory: Path, top: Folder, found: dict[str, list[str]], own: list[str]) -> None:
    """Raise EnsyncError unless there is one folder for each split, train among them, and no other."""
    for split, names in found.items():
        if len(names) > 1:
            raise EnsyncError(f"{directory} has {names[0]}/ and {names[1]}/, both for {split}", "one folder for each split", "put them together")
    known = [names[0] for names in found.values() if names]
    others = [shown(name) for name in top.folders if name not in known and name not in own]
    if not found["train"]:
        beside = f" beside {first_few(others, len(others))}" if others else ""
        raise EnsyncError(f"{directory} has {known[0]}/{beside} and no train/", EXPECTED, f"add train/, or rename {known[0]}/ if it is a class")
    if others:
        what = f"{directory} has {first_few([repr(name) for name in others], len(others))} beside {found['train'][0]}"
        raise EnsyncError(what, "train/, val/ and test/ only, or class folders only", "move or rename them; a class cannot be called like a split")


def _beside(folder: Folder, tally: Tally) -> None:
    """Note what lies beside the folders that count. Links to nothing stay: they may have been class folders."""
    for name in folder.pictures:
        if not _leads_nowhere(folder.path / name):
            tally.add(LOOSE, folder.name + shown(name))
    for name in folder.others:
        tally.add(NO_PICTURE, folder.name + shown(name))


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not os.path.exists(path)


def _class_names(folders: dict[str, Folder]) -> list[str]:
    """Return the sorted names of the classes, which are those of train. Errors: EnsyncError when they cannot be meant."""
    train = folders["train"]
    for folder in folders.values():
        _check_folder(folder)
    for folder in folders.values():
        alien = [name for name in folder.folders if name not in train.folders]
        if alien:
            named = [f"'{shown(name)}'{_resembling(name, train.folders)}" for name in alien]
            expected = f"the classes of {train.path}"
            raise EnsyncError(f"{folder.path} has {first_few(named, len(named))}, which the training pictures lack", expected, "move or rename it")
    return train.folders


def _resembling(name: str, known: list[str]) -> str:
    """Return " (that is ..., and ... looks alike)" for the known name that looks like this one, if any."""
    return next((f" (that is {name!a}, and train has {other!a})" for other in known if alike(other) == alike(name)), "")


def _check_folder(folder: Folder) -> None:
    """Raise EnsyncError when a folder of class folders has none, or some whose names no reader could tell apart."""
    path = folder.path
    dangling = [shown(name) for name in folder.pictures if _leads_nowhere(path / name)]
    if dangling:
        raise EnsyncError(f"{path} has links to nothing: {first_few(dangling, len(dangling))}", "folders and pictures", "fetch their data, or remove the links")
    if not folder.folders:
        loose = f" but {len(folder.pictures)} pictures (such as {shown(folder.pictures[0])})" if folder.pictures else ""
        raise EnsyncError(f"{path} has no folders{loose}", EXPECTED, "sort the pictures into folders" if loose else "check --from")
    for one, other in twins(folder.folders):
        raise EnsyncError(f"{path} has the folders {one!a} and {other!a}, which look alike", "names that can be told apart", "rename or merge them")
    for name in folder.folders:
        if not name.isprintable():
            raise EnsyncError(f"the folder name {name!a}", "a name that can be printed", "rename that folder")


def _split(folder: Folder, split: str, class_names: list[str], tally: Tally) -> Split:
    """Return the pictures of a split. Errors: EnsyncError when a class has no training pictures, or the split none at all."""
    result = Split(folder)
    numbers = {name: number for number, name in enumerate(class_names)}
    for name in folder.folders:
        inside = look(folder.path / name, f"{folder.name}{shown(name)}/", tally)
        if (folder.path / name).is_symlink():
            tally.add(LINKED, f"{inside.name[:-1]} to {shown(os.path.realpath(inside.path))}")
        if not inside.pictures:
            if split == "train":
                raise _without_pictures(inside)
            tally.add(EMPTY, inside.name)
        _note_rest(inside, tally)
        result.files += [inside.path / picture for picture in inside.pictures]
        result.names += [inside.name + shown(picture) for picture in inside.pictures]
        result.labels += [numbers[name]] * len(inside.pictures)
    if not result.files:
        raise EnsyncError(f"{folder.path} has no pictures", f"files ending in {', '.join(sorted(SUFFIXES))}", "check --from")
    return result


def _note_rest(inside: Folder, tally: Tally) -> None:
    """Note what else is in a class folder: folders, files that are no pictures, names that look alike."""
    for name in inside.folders:
        tally.add(NESTED, f"{inside.name}{shown(name)}/ with {_below(inside.path / name)} pictures")
    for name in inside.others:
        tally.add(NO_PICTURE, inside.name + shown(name))
    for one, other in twins(inside.pictures):
        tally.add(TWINS, f"{inside.name}{one!a} and {other!a}")


def _below(path: Path) -> int:
    """Return how many files below a directory are pictures by their names; links are not followed."""
    return sum(Path(name).suffix.lower() in SUFFIXES for _place, _folders, names in os.walk(path) for name in names)


def _without_pictures(inside: Folder) -> EnsyncError:
    what = f"the class folder {inside.path} has no pictures"
    if inside.folders:
        names = [shown(name) for name in inside.folders]
        return EnsyncError(f"{what} but folders ({first_few(names, len(names))})", EXPECTED, f"give --from {inside.path}, or move the pictures up")
    if inside.others:
        names = [shown(name) for name in inside.others]
        what += f" but {len(names)} other files ({first_few(names, len(names))})"
    return EnsyncError(what, f"files ending in {', '.join(sorted(SUFFIXES))}", "add pictures, or move the folder away if it is no class")


def pictures_in(path: Path, tally: Tally) -> Iterator[Path]:
    """Yield the pictures of a directory that is no class folder, sorted; what else is there is noted."""
    inside = look(path, f"{path}/", tally)
    if not inside.pictures:
        raise EnsyncError(f"{path} has no pictures", f"files ending in {', '.join(sorted(SUFFIXES))}", "name another directory, or the files themselves")
    _note_rest(inside, tally)
    yield from (path / name for name in inside.pictures)
