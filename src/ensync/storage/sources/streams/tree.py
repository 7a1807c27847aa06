"""The files of archives as a tree of folders, looked at as if they lay on a disk."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ensync.core.errors import EnsyncError
from ensync.storage.sources.folders import Folder, is_picture, sorted_out
from ensync.storage.sources.tally import Tally


@dataclass
class _Node:
    """A folder: those in it, and its files by name, each with its number."""

    folders: dict[str, "_Node"] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)

    def seen(self) -> list[str]:
        """Return the folders that are not hidden."""
        return [name for name in self.folders if not name.startswith(".")]


class Tree:
    """Folders and files below `root`, a path that need not exist."""

    def __init__(self, root: Path) -> None:
        self.root, self._top = root, _Node()

    def add_folder(self, path: str) -> _Node:
        """Add a folder, and those it lies in."""
        node = self._top
        for part in filter(None, path.split("/")):
            node = node.folders.setdefault(part, _Node())
        return node

    def add_file(self, path: str, number: int) -> int | None:
        """Add a file; return the number of the one of the same path that it replaces."""
        folder, _slash, name = path.rpartition("/")
        files = self.add_folder(folder).files
        before = files.get(name)
        files[name] = number
        return before

    def number(self, path: Path) -> int:
        """Return the number of a file."""
        return self._node(path.parent).files[path.name]

    def unwrap(self, folder: str = "") -> None:
        """Leave out folders that only hold one other folder with folders in it, below `folder`:
        whole datasets are often packed within one.
        """
        node = self.add_folder(folder)
        while len(seen := node.seen()) == 1 and not any(map(is_picture, node.files)):
            inner = node.folders[seen[0]]
            if not inner.seen() or any(map(is_picture, inner.files)):
                return
            node.folders = {**_without(node.folders, seen[0]), **inner.folders}
            node.files = {**node.files, **inner.files}

    def look(self, path: Path, name: str, tally: Tally) -> Folder:
        """Return what is in a folder, as on a disk. Errors: EnsyncError where there is none."""
        node = self._node(path)
        kinds = dict.fromkeys(node.folders, "folders") | {
            name: "pictures" if is_picture(name) else "others" for name in node.files
        }
        return sorted_out(Folder(path, name), sorted(kinds.items()), tally)

    def pictures_below(self, path: Path) -> int:
        """Return how many files below a folder are pictures."""
        return _pictures(self._node(path))

    def _node(self, path: Path) -> _Node:
        node = self._top
        for part in path.relative_to(self.root).parts:
            if part not in node.folders:
                raise EnsyncError(f"{path} is not there", "a folder", "check --from")
            node = node.folders[part]
        return node


def _without(folders: Mapping[str, _Node], name: str) -> dict[str, _Node]:
    return {key: value for key, value in folders.items() if key != name}


def _pictures(node: _Node) -> int:
    return sum(map(is_picture, node.files)) + sum(map(_pictures, node.folders.values()))
