"""Pictures in one folder per class as a source.

Each is looked at once, and decoded when the dataset file is written, so that a dataset larger than
memory can be prepared. class_folders.py says which pictures there are,
decoding.py how each becomes an image.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.request import Progress
from ensync.storage.sources.class_folders import Split, find_splits
from ensync.storage.sources.decoding import Decoded, Recipe, decode
from ensync.storage.sources.depth import UNDECLARED, Depth, check_depths
from ensync.storage.sources.names import short, shown
from ensync.storage.sources.picture_rows import (
    COMPOSED,
    FRAMES,
    USUAL,
    Pictures,
    in_parallel,
    note_picture,
    parts,
)
from ensync.storage.sources.source import LISTED, Source, first_few
from ensync.storage.sources.tally import Tally

SIZES = range(1, 1025)  # pixels on a side of the result
SIZE = 32  # where --size is not given


class _Checked:
    """What a look at all pictures of a split has found.

    problems by place, identities uint64 by place, depths by name, one checksum.
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        self.problems: dict[int, str] = {}
        self.identities = np.zeros(len(split.files), np.uint64)
        self.depths: list[tuple[str, Depth]] = []
        self.digest = hashlib.sha256()

    def kept(self) -> np.ndarray:
        """Return the places int64 of the pictures without problems."""
        return np.setdiff1d(
            np.arange(len(self.split.files)), np.array(list(self.problems), np.int64)
        )

    def labels(self) -> np.ndarray:
        """Return the classes int64 of the pictures without problems."""
        labels: np.ndarray = np.array(self.split.labels, np.int64)[self.kept()]
        return labels


def read_images(
    directory: str | Path,
    size: int,
    recipe: Recipe = USUAL,
    bad_rows: str = "refuse",
    validation: str | Path | None = None,
    progress: Progress = lambda *_: None,
) -> Source:
    """Return the pictures under `directory` as size x size images, by the rules of `recipe`.

    Every picture is decoded once to see that it can be, and again when the rows are asked for.
    bad_rows: "refuse" raises EnsyncError naming the first few broken files; "skip" leaves them out
    and notes it. validation: a directory with the validation pictures.
    """
    if size not in SIZES:
        raise EnsyncError(
            f"--size {size}", f"{SIZES.start} to {SIZES.stop - 1} pixels", "choose another size"
        )
    directory, tally = Path(directory), Tally()
    class_names, splits = find_splits(
        directory, None if validation is None else Path(validation), tally
    )
    checked = {
        split: _check(found, recipe, tally, f"checking {split} pictures", progress)
        for split, found in splits.items()
    }
    skipped = _report(directory, list(checked.values()), bad_rows)
    _check_classes(directory, class_names, checked["train"].labels())
    recipe = _with_depths(recipe, [depth for one in checked.values() for depth in one.depths])
    colours = {"colour": "grey" if recipe.greyscale else "RGB", "size": size}
    preparation = {**colours, **recipe.recorded(), **_counts(tally, list(checked.values()))}
    notes = [*tally.notes(), *skipped, *_copies(list(checked.values()))]
    return _source(
        directory,
        class_names,
        checked,
        Pictures([], (size, size, 1 if recipe.greyscale else 3), recipe),
        preparation,
        notes,
    )


def _source(
    directory: Path,
    class_names: list[str],
    checked: Mapping[str, _Checked],
    like: Pictures,
    preparation: dict[str, float | int | str],
    notes: list[str],
) -> Source:
    """Return the pictures that can be decoded, in the shape and by the recipe of `like`."""
    kept = {split: one.kept() for split, one in checked.items()}
    return Source(
        name="images",
        images={
            split: Pictures(
                [one.split.files[row] for row in kept[split]], like.shape[1:], like.recipe
            )
            for split, one in checked.items()
        },
        labels={split: one.labels() for split, one in checked.items()},
        class_names=class_names,
        source=f"pictures in {shown(directory.resolve().name)}/",
        licence="as the pictures' owner says",
        checksums={
            _sum_name(split, one.split): f"sha256:{one.digest.hexdigest()}"
            for split, one in checked.items()
        },
        notes=notes,
        preparation=preparation,
        identities={split: one.identities[kept[split]] for split, one in checked.items()},
        names={
            split: [one.split.names[row] for row in kept[split]] for split, one in checked.items()
        },
    )


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


def _sum_name(split: str, found: Split) -> str:
    return f"{split}: {shown(found.folder.path.resolve().name)}/ ({len(found.files)} pictures)"


def _counts(tally: Tally, checked: list[_Checked]) -> dict[str, int]:
    """Return how many pictures are transparent, have several frames, and are left out."""
    bad = sum(len(one.problems) for one in checked)
    return {
        "transparent": tally.count(COMPOSED),
        "frames": tally.count(FRAMES),
        "left out": tally.count("left out") + bad,
    }


def _copies(checked: list[_Checked]) -> list[str]:
    """Return notes about pictures of the same bytes within a split, in one class or two."""
    tally = Tally()
    for one in checked:
        kept = one.kept()
        _values, first, inverse = np.unique(
            one.identities[kept], return_index=True, return_inverse=True
        )
        for place, original in zip(kept, kept[first[inverse]], strict=True):
            if place != original:
                same = one.split.labels[place] == one.split.labels[original]
                what = (
                    "copies of another picture of their class, kept"
                    if same
                    else "copies of a picture of another class, kept"
                )
                tally.add(what, f"{one.split.names[place]} of {one.split.names[original]}")
    return tally.notes()


def _check(found: Split, how: Recipe, tally: Tally, what: str, progress: Progress) -> _Checked:
    """Decode every picture of a split once."""
    checked = _Checked(found)
    for start, part in parts(found.files):
        for place, (one, sha) in enumerate(
            in_parallel(lambda path: _check_one(path, how), part), start
        ):
            name = found.names[place]
            checked.digest.update(
                f"{found.files[place].parent.name}/{found.files[place].name} ".encode(
                    errors="surrogateescape"
                )
                + sha
            )
            checked.identities[place] = np.frombuffer(sha[:8], np.uint64)[0] if sha else 0
            if one.problem:
                checked.problems[place] = f"{name} {one.problem}"
                continue
            note_picture(one, name, how, tally)
            if one.depth:
                checked.depths.append((name, one.depth))
        progress(what, start + len(part), len(found.files))
    return checked


def _check_one(path: Path, how: Recipe) -> tuple[Decoded, bytes]:
    one = decode(path, (8, 8, 1), how)
    try:
        with path.open("rb") as file:
            return one, hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return one, b""


def _report(directory: Path, checked: list[_Checked], bad_rows: str) -> list[str]:
    """Return the note about skipped pictures. Errors: EnsyncError when they are refused."""
    problems = [problem for one in checked for problem in one.problems.values()]
    if not problems:
        return []
    what = f"{len(problems)} of {sum(len(one.split.files) for one in checked)} pictures"
    details = first_few(problems[:LISTED], len(problems))
    if bad_rows == "skip":
        return [f"{what} left out: {short(details)}"]
    action = "replace them, or leave them out with --bad-rows skip"
    if any(UNDECLARED in problem for problem in problems):
        action = f"say which with --range BLACK,WHITE, or {action}"
    raise EnsyncError(
        f"{directory}: {what} are bad: {details}", "pictures that can be decoded", action
    )


def _check_classes(directory: Path, class_names: list[str], labels: np.ndarray) -> None:
    """Raise EnsyncError when no picture of a class is left to train with."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(class_names)) == 0)
    if len(empty):
        named = [f"'{class_names[label]}'" for label in empty]
        what = f"{directory}: no training picture can be read of {first_few(named, len(named))}"
        raise EnsyncError(
            what,
            "pictures of each class that can be decoded",
            "replace them, or move the folder away if it is no class",
        )
