"""WebDataset's samples: members of an archive with one name up to the first dot are one sample.

dir/0001.jpg  dir/0001.cls             the label as a text, a number or a word
dir/0001.png  dir/0001.json            the label by a key of the object
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ensync.core.errors import EnsyncError
from ensync.storage.sources.checking import Checked
from ensync.storage.sources.decoding import Decoded, Recipe
from ensync.storage.sources.folders import is_picture
from ensync.storage.sources.names import shown
from ensync.storage.sources.source import first_few
from ensync.storage.sources.streams.labels import (
    LABEL_NAMES,
    NO_LABEL,
    Label,
    classes_of,
    only_one,
    read_label,
)
from ensync.storage.sources.streams.pictures import Found, Looks
from ensync.storage.sources.tally import Tally

JSON = "json"
LARGEST_LABEL = 1 << 20  # bytes of a member that holds a label
DAMAGED = Decoded(problem="has a label file that cannot be read")


class Choice(NamedTuple):
    """The ending of pictures, and the ending or the key of labels, None where they are found out.
    Of tables: the columns.
    """

    image: str | None = None
    label: str | None = None


FOUND_OUT = Choice()


class Key(NamedTuple):
    """A member of a sample: its archive, its split ("" where files do not say), the name of the
    sample, and the ending.
    """

    archive: str
    split: str
    name: str
    ending: str

    @property
    def sample(self) -> "Key":
        """What all members of the sample have in common."""
        return self._replace(ending="")


class Samples:
    """The samples of all archives, as their members come."""

    def __init__(self, choice: Choice = FOUND_OUT) -> None:
        self._choice = choice
        self._pictures: dict[Key, dict[str, int]] = {}  # the number of each, by ending
        self._labels: dict[Key, dict[str, Label]] = {}  # by .ending, or by key of JSON
        self._damaged: set[Key] = set()
        self._endings = {"cls", "cls.txt"} | ({choice.label.lower()} if choice.label else set())

    @staticmethod
    def key(file: Path, split: str, path: str) -> Key:
        """Return what a member is called; the ending in small letters."""
        folder, slash, name = path.rpartition("/")
        name, _dot, ending = name.partition(".")
        return Key(str(file), split, folder + slash + name, ending.lower())

    def wanted(self, path: str) -> bool:
        """Tell whether the bytes of a member are needed: of pictures and labels."""
        return is_picture(path) or self._holds_label(self.key(Path(), "", path))

    def _holds_label(self, key: Key) -> bool:
        return key.ending in self._endings or key.ending == JSON

    def add_picture(self, key: Key, number: int) -> None:
        """Add a picture with its number in the stream."""
        self._pictures.setdefault(key.sample, {})[key.ending] = number

    def add_label(self, key: Key, data: bytes | None) -> bool:
        """Add a member that may hold a label; return whether it does."""
        if not self._holds_label(key):
            return False
        try:
            text = (data or b"")[:LARGEST_LABEL].decode()
            is_json = key.ending == JSON
            found = (
                _keys(text, self._choice.label) if is_json else {f".{key.ending}": read_label(text)}
            )
        except ValueError:  # no UTF-8, no JSON
            self._damaged.add(key.sample)
            found = {}
        self._labels.setdefault(key.sample, {}).update(found)
        return True

    def any(self) -> bool:
        """Tell whether labels lie beside pictures, or the user says so: else these are in folders
        of classes.
        """
        beside = (found and key in self._pictures for key, found in self._labels.items())
        return any(self._choice) or any(beside)

    def found(self, place: str, looks: Looks, how: Recipe, tally: Tally) -> Found:
        """Return the samples by split, in the order of the archives. Errors: EnsyncError where it
        is doubtful what pictures and labels are.
        """
        image, label = self._image(place), self._label(place)
        splits: dict[str, list[Key]] = {}
        for key in dict.fromkeys([*self._pictures, *self._labels]):
            splits.setdefault(key.split or "train", []).append(key)
        labels = {
            split: [self._labels.get(key, {}).get(label) for key in keys]
            for split, keys in splits.items()
        }
        names, classes = classes_of(place, labels)
        checked = {split: Checked(how, tally) for split in splits}
        numbers: dict[str, list[int]] = {split: [] for split in splits}
        for split, keys in splits.items():
            for key, given, number in zip(keys, labels[split], classes[split], strict=True):
                one, identity, picture = self._look(key, image, looks, tally)
                if not one.problem and given is None:
                    one = DAMAGED if key in self._damaged else Decoded(problem=NO_LABEL)
                checked[split].add(_name(key), number, one, identity)
                numbers[split].append(picture)
        return Found(names, checked, numbers, [_words(image, label)])

    def _look(
        self, key: Key, image: str | None, looks: Looks, tally: Tally
    ) -> tuple[Decoded, int, int]:
        """Return what is known of a sample's picture, and its number."""
        found: tuple[Decoded, int, int] = Decoded(problem="has no picture"), 0, -1
        for ending, number in self._pictures.get(key, {}).items():
            if image in (None, ending):
                found = *looks[number], number
            else:
                tally.add(f"left out, pictures ending in .{shown(ending)}", _name(key))
        return found

    def _image(self, place: str) -> str | None:
        """Return the ending of the pictures, None where each sample has but one."""
        endings = sorted({ending for of in self._pictures.values() for ending in of})
        chosen = self._choice.image
        if chosen is not None:
            chosen = chosen.lower().removeprefix(".")
            if chosen not in endings:
                known = first_few([f".{ending}" for ending in endings], len(endings))
                raise EnsyncError(
                    f"--image-column {chosen} with pictures ending in {known}",
                    "one of them",
                    "choose one of them",
                )
            return chosen
        if len(endings) > 1 and any(len(of) > 1 for of in self._pictures.values()):
            return only_one(place, "pictures in a sample", endings, "--image-column")
        return endings[0] if len(endings) == 1 else None

    def _label(self, place: str) -> str:
        """Return the ending, behind a dot, or the key of the labels."""
        found = {name for key, of in self._labels.items() if key in self._pictures for name in of}
        if (chosen := self._choice.label) is not None:
            ending = "." + chosen.lower().removeprefix(".")
            name = next((name for name in (chosen, ending) if name in found), None)
            if name is None:
                raise EnsyncError(
                    f"--label-column {chosen}, which no sample of {place} has",
                    "an ending of members, or a key in their .json",
                    "choose another",
                )
            return name
        endings = sorted(name for name in found if name.startswith("."))
        return only_one(place, "labels in a sample", endings or sorted(found), "--label-column")


def _name(key: Key) -> str:
    return f"{shown(Path(key.archive).name)}: {shown(key.name)}"


def _keys(text: str, chosen: str | None) -> dict[str, Label]:
    """Return the labels that an object of JSON may hold. Errors: ValueError when it is none."""
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested without end") from error
    if not isinstance(content, Mapping):
        raise ValueError("no object")
    known = LABEL_NAMES if chosen is None else (chosen,)
    return {
        name: value if isinstance(value, int) else read_label(value)
        for name in known
        if isinstance(value := content.get(name), int | str) and not isinstance(value, bool)
    }


def _words(image: str | None, label: str) -> str:
    pictures = f"members ending in .{image}" if image else "the one of each sample"
    labels = f"members ending in {label}" if label.startswith(".") else f"'{label}' in .json"
    return f"pictures: {pictures}; labels: {labels}"
