"""What a look at every picture finds, and the source that those without problems make.

Pictures are looked at once before anything is written, so that what is broken is counted and named
first. Where they lie (in folders, archives or tables) is their readers' affair.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.sources.decoding import Decoded, Recipe
from ensync.storage.sources.depth import UNDECLARED, Depth, check_depths
from ensync.storage.sources.names import short
from ensync.storage.sources.picture_rows import COMPOSED, FRAMES, note_picture
from ensync.storage.sources.source import LISTED, Images, Source, Streamed, first_few
from ensync.storage.sources.tally import Tally

SIZES = range(1, 1025)  # pixels on a side of the result
SIZE = 256  # pixels on a side of the result where --size is not given, and pictures are as large


@dataclass(frozen=True)
class Asked:
    """What the user asks of pictures: pixels on a side, the recipe, and what becomes of broken
    ones, "refuse" or "skip".

    size: None for SIZE, or the shorter side where all pictures have the same and a smaller one.
    Errors: EnsyncError for a size that cannot be.
    """

    size: int | None = None
    recipe: Recipe = Recipe()
    bad_rows: str = "refuse"

    def __post_init__(self) -> None:
        if self.size is not None and self.size not in SIZES:
            raise EnsyncError(
                f"--size {self.size}",
                f"{SIZES.start} to {SIZES.stop - 1} pixels",
                "choose another size",
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (height, width, channels) of an image, once the size is known."""
        side = self.size or SIZE
        return side, side, self.recipe.channels


USUAL = Asked()


class Checked:
    """What a look at all pictures of a split has found, in the order of its rows.

    names; labels; problems by place; depths of deep pictures by name; sides: the least and the
    greatest shorter side in pixels. What is worth a note goes to the tally.
    """

    def __init__(self, how: Recipe, tally: Tally) -> None:
        self._how, self._tally = how, tally
        self.names: list[str] = []
        self.labels = array("q")
        self.problems: dict[int, str] = {}
        self.depths: list[tuple[str, Depth]] = []
        self.sides: tuple[int, int] | None = None
        self._identities = array("Q")

    def add(self, name: str, label: int, one: Decoded, identity: int) -> None:
        """Add the next picture: what decoding it gave, and a number that its bytes determine."""
        if one.problem:
            self.problems[len(self.names)] = f"{name} {one.problem}"
        else:
            note_picture(one, name, self._how, self._tally)
            least, most = self.sides or (one.side, one.side)
            self.sides = min(least, one.side), max(most, one.side)
            if one.depth:
                self.depths.append((name, one.depth))
        self.names.append(name)
        self.labels.append(label)
        self._identities.append(identity)

    def kept(self) -> np.ndarray:
        """Return the places int64 of the pictures without problems."""
        return np.setdiff1d(np.arange(len(self.names)), np.array(list(self.problems), np.int64))

    def kept_labels(self) -> np.ndarray:
        """Return the classes int64 of the pictures without problems."""
        labels: np.ndarray = np.array(self.labels, np.int64)[self.kept()]
        return labels

    def identities(self) -> np.ndarray:
        """Return uint64 by place, the same for pictures of the same bytes."""
        return np.array(self._identities, np.uint64)


@dataclass(frozen=True)
class PictureSet:
    """Pictures of all splits that were looked at, before they are a source.

    kind: the source's name; place: what a refusal begins with; source: where they come from, for
    the dataset file; checksums of what was read; checked: by split; notes: of their reader.
    """

    kind: str
    place: str
    source: str
    checksums: Mapping[str, str]
    class_names: list[str]
    checked: Mapping[str, Checked]
    notes: Sequence[str] = ()


ImagesOf = Callable[[str, np.ndarray, Asked], Images | Streamed]


def source_of_pictures(
    found: PictureSet, asked: Asked, tally: Tally, images_of: ImagesOf
) -> Source:
    """Return the pictures without problems as a source.

    images_of(split, places, asked): the images of these places int64 of a split's pictures, made as
    `asked`, of a size that is known.
    Errors: EnsyncError for broken pictures that are not to be skipped, and for what does not fit.
    """
    checked = list(found.checked.values())
    skipped = _report(found.place, checked, asked.bad_rows)
    _check_classes(found.place, found.class_names, found.checked["train"].kept_labels())
    how = _with_depths(asked.recipe, [depth for one in checked for depth in one.depths])
    sized, note = _sized(replace(asked, recipe=how), checked)
    colours = {"colour": "grey" if how.greyscale else "RGB", "size": sized.shape[0]}
    kept = {split: one.kept() for split, one in found.checked.items()}
    return Source(
        name=found.kind,
        images={split: images_of(split, places, sized) for split, places in kept.items()},
        labels={split: one.kept_labels() for split, one in found.checked.items()},
        class_names=found.class_names,
        source=found.source,
        licence="as the pictures' owner says",
        checksums=dict(found.checksums),
        notes=[*found.notes, *tally.notes(), *skipped, *_copies(checked), *note],
        left_out=_problems(checked),
        preparation={**colours, **how.recorded(), **_counts(tally, checked)},
        identities={split: one.identities()[kept[split]] for split, one in found.checked.items()},
        names={
            split: [one.names[row] for row in kept[split]] for split, one in found.checked.items()
        },
    )


def _sized(asked: Asked, checked: list[Checked]) -> tuple[Asked, list[str]]:
    """Return what is asked with a size, and a note where it is found out."""
    if asked.size is not None:
        return asked, []
    sides = [side for one in checked for side in one.sides or ()]
    least, most = min(sides), max(sides)
    size = least if least == most < SIZE else SIZE
    found = f"{least}" if least == most else f"{least} to {most}"
    note = f"stored as {size} x {size} pixels, without --size: the shorter sides have {found}"
    return replace(asked, size=size), [note]


def _with_depths(how: Recipe, depths: list[tuple[str, Depth]]) -> Recipe:
    """Return the recipe with what deep pictures declare. Errors: EnsyncError, also without any."""
    if how.values and not depths:
        raise EnsyncError(
            "--range with pictures of 8 bits only",
            "pictures of more than 8 bits",
            "leave --range out",
        )
    tagged = check_depths(
        depths, None, False, "give the values of black and white with --range BLACK,WHITE"
    )
    return how._replace(deep=bool(depths), tagged=tagged)


def _counts(tally: Tally, checked: list[Checked]) -> dict[str, int]:
    """Return how many pictures are transparent, have several frames, and are left out."""
    bad = sum(len(one.problems) for one in checked)
    return {
        "transparent": tally.count(COMPOSED),
        "frames": tally.count(FRAMES),
        "left out": tally.count("left out") + bad,
    }


def _copies(checked: list[Checked]) -> list[str]:
    """Return notes about pictures of the same bytes within a split, in one class or two."""
    tally = Tally()
    for one in checked:
        kept = one.kept()
        _values, first, inverse = np.unique(
            one.identities()[kept], return_index=True, return_inverse=True
        )
        originals = kept[first[inverse]]
        moved = np.flatnonzero(kept != originals)
        for place, original in zip(kept[moved].tolist(), originals[moved].tolist(), strict=True):
            same = one.labels[place] == one.labels[original]
            what = (
                "copies of another picture of their class, kept"
                if same
                else "copies of a picture of another class, kept"
            )
            tally.add(what, f"{one.names[place]} of {one.names[original]}")
    return tally.notes()


def _report(place: str, checked: list[Checked], bad_rows: str) -> list[str]:
    """Return the note about skipped pictures. Errors: EnsyncError when they are refused."""
    problems = _problems(checked)
    if not problems:
        return []
    what = f"{len(problems)} of {sum(len(one.names) for one in checked)} pictures"
    details = first_few(problems[:LISTED], len(problems))
    if bad_rows == "skip":
        return [f"{what} left out: {short(details)}"]
    action = "replace them, or leave them out with --bad-rows skip"
    if any(UNDECLARED in problem for problem in problems):
        action = f"say which with --range BLACK,WHITE, or {action}"
    raise EnsyncError(f"{place}: {what} are bad: {details}", "pictures that can be decoded", action)


def _problems(checked: list[Checked]) -> list[str]:
    return [problem for one in checked for problem in one.problems.values()]


def _check_classes(place: str, class_names: list[str], labels: np.ndarray) -> None:
    """Raise EnsyncError when no picture of a class is left to train with."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(class_names)) == 0)
    if len(empty):
        named = [f"'{class_names[label]}'" for label in empty]
        what = f"{place}: no training picture can be read of {first_few(named, len(named))}"
        raise EnsyncError(
            what,
            "pictures of each class that can be decoded",
            "replace them, or move the folder away if it is no class",
        )
