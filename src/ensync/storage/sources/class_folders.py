"""Which pictures lie in which class folder; no class comes from nothing.

DIR/CLASS/*.png                                                one split
DIR/train/CLASS/*.png, perhaps DIR/val/..., DIR/test/...       in any capitalisation
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from ensync.core.errors import EnsyncError, plural
from ensync.storage.sources.folders import (
    DISK,
    NO_PICTURE,
    SUFFIXES,
    Files,
    Folder,
    leads_nowhere,
    note_rest,
)
from ensync.storage.sources.names import alike, replicas, shown
from ensync.storage.sources.source import first_few, named_errors
from ensync.storage.sources.tally import Tally

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
LOOSE, EMPTY = "left out, beside the class folders", "left out, a class folder without pictures"
ABSENT = "classes of train without a folder in another split"
LINKED = "class folders that are links, followed"
EXPECTED = "one folder of pictures for each class, perhaps within train/, val/ and test/"


@dataclass
class Split:
    """The pictures of a split, sorted by class and name; `names` are for sentences."""

    folder: Folder
    files: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


def find_splits(
    directory: Path, validation: Path | None, tally: Tally, files: Files = DISK
) -> tuple[list[str], dict[str, Split]]:
    """Return the names of the classes, and the pictures of each split.

    validation: another directory of class folders. files: where the directories lie.
    Errors: EnsyncError for whatever is likely a mistake, and for a class without training pictures.
    """
    folders = _split_folders(directory, validation, tally, files)
    class_names = _class_names(folders)
    splits = {
        split: _fill(Split(folder), split == "train", class_names, tally, files)
        for split, folder in folders.items()
    }
    if len(class_names) == 1:
        given = f"{folders['train'].path} has one class folder only, '{class_names[0]}'"
        raise EnsyncError(given, "two classes or more", "add another class, or check --from")
    return class_names, splits


def _split_folders(
    directory: Path, validation: Path | None, tally: Tally, files: Files
) -> dict[str, Folder]:
    top = files.look(directory, "", tally)
    own = [
        name
        for name in top.folders
        if validation is not None and _same(directory / name, validation)
    ]
    found = {
        split: [name for name in top.folders if name.lower() in names and name not in own]
        for split, names in SPLIT_NAMES.items()
    }
    folders = {}
    if any(found.values()):
        _check_splits(directory, top, found, own)
        _beside(top, tally)
        folders = {
            split: files.look(directory / names[0], shown(names[0]) + "/", tally)
            for split, names in found.items()
            if names
        }
    else:
        top.folders = [name for name in top.folders if name not in own]
        folders["train"] = top
    if validation is not None:
        if "validation" in folders:
            raise EnsyncError(
                f"--validation-from {validation} with {directory / found['validation'][0]}",
                "one of them",
                "leave --validation-from out",
            )
        folders["validation"] = files.look(validation, shown(validation.name) + "/", tally)
    for folder in folders.values():
        _beside(folder, tally)
    return {split: folders[split] for split in SPLIT_NAMES if split in folders}


def _same(one: Path, other: Path) -> bool:
    with named_errors(other):
        return one.samefile(other)


def _check_splits(
    directory: Path, top: Folder, found: dict[str, list[str]], own: list[str]
) -> None:
    """Raise EnsyncError unless there is one folder for each split, train among them."""
    for split, names in found.items():
        if len(names) > 1:
            raise EnsyncError(
                f"{directory} has {names[0]}/ and {names[1]}/, both for {split}",
                "one folder for each split",
                "put them together",
            )
    known = [names[0] for names in found.values() if names]
    others = [shown(name) for name in top.folders if name not in known and name not in own]
    if not found["train"]:
        beside = f" beside {first_few(others, len(others))}" if others else ""
        raise EnsyncError(
            f"{directory} has {known[0]}/{beside} and no train/",
            EXPECTED,
            f"add train/, or rename {known[0]}/ if it is a class",
        )
    if others:
        named = first_few([repr(name) for name in others], len(others))
        what = f"{directory} has {named} beside {found['train'][0]}"
        raise EnsyncError(
            what,
            "train/, val/ and test/ only, or class folders only",
            "move or rename them; a class cannot be called like a split",
        )


def _beside(folder: Folder, tally: Tally) -> None:
    """Note what lies beside class folders; links to nothing stay, they may have been some."""
    for name in folder.pictures:
        if not leads_nowhere(folder.path / name):
            tally.add(LOOSE, folder.name + shown(name))
    for name in folder.others:
        tally.add(NO_PICTURE, folder.name + shown(name))


def _class_names(folders: dict[str, Folder]) -> list[str]:
    """Return the sorted names of the classes of train. Errors: EnsyncError for a wrong tree."""
    train = folders["train"]
    for folder in folders.values():
        _check_folder(folder)
    for folder in folders.values():
        alien = [name for name in folder.folders if name not in train.folders]
        if alien:
            named = [f"'{shown(name)}'{_resembling(name, train.folders)}" for name in alien]
            expected = f"the classes of {train.path}"
            raise EnsyncError(
                f"{folder.path} has {first_few(named, len(named))},"
                " which the training pictures lack",
                expected,
                "move or rename it",
            )
    return train.folders


def _resembling(name: str, known: list[str]) -> str:
    """Return " (that is ..., and train has ...)" for the known name that looks like this one."""
    return next(
        (
            f" (that is {name!a}, and train has {other!a})"
            for other in known
            if alike(other) == alike(name)
        ),
        "",
    )


def _check_folder(folder: Folder) -> None:
    """Raise EnsyncError when there are no class folders, or some that look alike."""
    path = folder.path
    dangling = [shown(name) for name in folder.pictures if leads_nowhere(path / name)]
    if dangling:
        raise EnsyncError(
            f"{path} has links to nothing: {first_few(dangling, len(dangling))}",
            "folders and pictures",
            "fetch their data, or remove the links",
        )
    if not folder.folders:
        loose = (
            f" but {plural(len(folder.pictures), 'picture')} (such as {shown(folder.pictures[0])})"
            if folder.pictures
            else ""
        )
        raise EnsyncError(
            f"{path} has no folders{loose}",
            EXPECTED,
            "sort the pictures into folders" if loose else "check --from",
        )
    for one, other in replicas(folder.folders):
        raise EnsyncError(
            f"{path} has the folders {one!a} and {other!a}, which look alike",
            "names that can be told apart",
            "rename or merge them",
        )
    for name in folder.folders:
        if not name.isprintable():
            raise EnsyncError(
                f"the folder name {name!a}", "a name that can be printed", "rename that folder"
            )


def _fill(
    result: Split, is_train: bool, class_names: list[str], tally: Tally, files: Files
) -> Split:
    """Return a split with its pictures. Errors: EnsyncError when some class of train has none."""
    folder = result.folder
    numbers = {name: number for number, name in enumerate(class_names)}
    for name in folder.folders:
        inside = files.look(folder.path / name, f"{folder.name}{shown(name)}/", tally)
        if (folder.path / name).is_symlink():
            tally.add(LINKED, f"{inside.name[:-1]} to {shown(os.path.realpath(inside.path))}")
        if not inside.pictures:
            if is_train:
                raise _without_pictures(inside)
            tally.add(EMPTY, inside.name)
        note_rest(inside, tally, files)
        result.files += [inside.path / picture for picture in inside.pictures]
        result.names += [inside.name + shown(picture) for picture in inside.pictures]
        result.labels += [numbers[name]] * len(inside.pictures)
    for name in sorted(numbers.keys() - set(folder.folders)):
        tally.add(ABSENT, f"{folder.name}{shown(name)}/")
    if not result.files:
        raise EnsyncError(
            f"{folder.path} has no pictures",
            f"files ending in {', '.join(sorted(SUFFIXES))}",
            "check --from",
        )
    return result


def _without_pictures(inside: Folder) -> EnsyncError:
    what = f"the class folder {inside.path} has no pictures"
    if inside.folders:
        names = [shown(name) for name in inside.folders]
        return EnsyncError(
            f"{what} but folders ({first_few(names, len(names))})",
            EXPECTED,
            f"give --from {inside.path}, or move the pictures up",
        )
    if inside.others:
        names = [shown(name) for name in inside.others]
        what += f" but {len(names)} other files ({first_few(names, len(names))})"
    return EnsyncError(
        what,
        f"files ending in {', '.join(sorted(SUFFIXES))}",
        "add pictures, or move the folder away if it is no class",
    )
