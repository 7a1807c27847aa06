"""Pictures in one folder per class, decoded when the dataset file is written, so that a dataset larger than memory can be prepared.

folders.py says which pictures there are, decoding.py how each becomes an image; here they become a source, or the rows to predict.
"""

import hashlib
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ensync.errors import EnsyncError
from ensync.storage.sources.decoding import Decoded, Recipe, decode, recorded_recipe
from ensync.storage.sources.depth import UNDECLARED, Depth, check_depths
from ensync.storage.sources.folders import Split, find_splits, pictures_in
from ensync.storage.sources.names import short, shown
from ensync.storage.sources.source import LISTED, Source, first_few, told
from ensync.storage.sources.tally import Tally

SIZES = range(1, 1025)  # pixels on a side of the result
TOGETHER = 256          # pictures decoded between two reports of progress
MOST_THREADS = 16       # each may hold a picture of the largest size
USUAL = Recipe()

Progress = Callable[[str, int, int], None]


class _Checked:
    """What one look at all pictures of a split has found: problems by place, identities uint64 by place, depths by name, one checksum."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.problems: dict[int, str] = {}
        self.identities = np.zeros(len(split.files), np.uint64)
        self.depths: list[tuple[str, Depth]] = []
        self.digest = hashlib.sha256()

    def kept(self) -> np.ndarray:
        """Return the places int64 of the pictures without problems."""
        return np.setdiff1d(np.arange(len(self.split.files)), np.array(list(self.problems), np.int64))

    def labels(self) -> np.ndarray:
        """Return the classes int64 of the pictures without problems."""
        return np.array(self.split.labels, np.int64)[self.kept()]


def read_images(
    directory: str | Path,
    size: int,
    greyscale: bool = False,
    bad_rows: str = "refuse",
    validation: str | Path | None = None,
    recipe: Recipe = USUAL,
    progress: Progress = lambda *_: None,
) -> Source:
    """Return the pictures under `directory` as size x size images with 3 channels, or 1 when greyscale.

    Every picture is decoded once to see that it can be, and again when the rows are asked for. bad_rows: "refuse" raises EnsyncError
    naming the first few broken files; "skip" leaves them out and notes it. validation: a directory with the validation pictures.
    """
    if size not in SIZES:
        raise EnsyncError(f"--size {size}", f"{SIZES.start} to {SIZES.stop - 1} pixels", "choose another size")
    directory, tally = Path(directory), Tally()
    class_names, splits = find_splits(directory, None if validation is None else Path(validation), tally)
    checked = {split: _check(found, recipe, tally, f"checking {split} pictures", progress) for split, found in splits.items()}
    skipped = _report(directory, list(checked.values()), bad_rows)
    _check_classes(directory, class_names, checked["train"].labels())
    recipe = _with_depths(recipe, [depth for one in checked.values() for depth in one.depths])
    colours = {"colour": "grey" if greyscale else "RGB", "size": size}
    preparation = {**colours, **recipe.recorded(), **_counts(tally, list(checked.values()))}
    notes = [*tally.notes(), *skipped, *_copies(list(checked.values()))]
    return _source(directory, class_names, checked, Pictures([], (size, size, 1 if greyscale else 3), recipe), preparation, notes)


def _source(
    directory: Path, class_names: list[str], checked: Mapping[str, _Checked], like: "Pictures", preparation: dict[str, Any], notes: list[str]
) -> Source:
    """Return the pictures that can be decoded, in the shape and by the recipe of `like`."""
    kept = {split: one.kept() for split, one in checked.items()}
    return Source(
        name="images",
        images={split: Pictures([one.split.files[row] for row in kept[split]], like.shape[1:], like.recipe) for split, one in checked.items()},
        labels={split: one.labels() for split, one in checked.items()},
        class_names=class_names,
        source=f"pictures in {shown(directory.resolve().name)}/",
        licence="as the pictures' owner says",
        checksums={_sum_name(split, one.split): f"sha256:{one.digest.hexdigest()}" for split, one in checked.items()},
        notes=notes,
        preparation=preparation,
        identities={split: one.identities[kept[split]] for split, one in checked.items()},
        names={split: [one.split.names[row] for row in kept[split]] for split, one in checked.items()},
    )


def _with_depths(how: Recipe, depths: list[tuple[str, Depth]]) -> Recipe:
    """Return the recipe with what the deep pictures declare. Errors: EnsyncError when it is hardly meant, or there are none for a range."""
    if how.values and not depths:
        raise EnsyncError("--range with pictures of 8 bits only", "pictures of more than 8 bits", "leave --range out")
    tagged = check_depths(depths, None, False, "give the values of black and white with --range BLACK,WHITE")
    return how._replace(deep=bool(depths), tagged=tagged)


def _sum_name(split: str, found: Split) -> str:
    return f"{split}: {shown(found.folder.path.resolve().name)}/ ({len(found.files)} pictures)"


def _counts(tally: Tally, checked: list[_Checked]) -> dict[str, int]:
    """Return how many pictures were composed over the ground, have several frames, and were left out."""
    bad = sum(len(one.problems) for one in checked)
    return {"transparent": tally.count(COMPOSED), "frames": tally.count(FRAMES), "left out": tally.count("left out") + bad}


def _copies(checked: list[_Checked]) -> list[str]:
    """Return notes about pictures of the same bytes within a split, and apart those that are in two classes."""
    tally = Tally()
    for one in checked:
        kept = one.kept()
        _values, first, inverse = np.unique(one.identities[kept], return_index=True, return_inverse=True)
        for place, original in zip(kept, kept[first[inverse]], strict=True):
            if place != original:
                same = one.split.labels[place] == one.split.labels[original]
                what = "copies of another picture of their class, kept" if same else "copies of a picture of another class, kept"
                tally.add(what, f"{one.split.names[place]} of {one.split.names[original]}")
    return tally.notes()


class PicturesRead(NamedTuple):
    """Pictures for a network: images uint8 (n, height, width, channels), their n names, and notes on what a user must know of them."""

    pixels: np.ndarray
    names: list[str]
    notes: list[str]


def read_pictures(paths: Sequence[str | Path], shape: tuple[int, int, int], preparation: Mapping[str, Any]) -> PicturesRead:
    """Return pictures as images of a dataset's `shape`, made by the rules that its `preparation` records; a directory is all in it.

    Errors: EnsyncError naming the first few files that cannot be decoded; then none is predicted.
    """
    how, tally = recorded_recipe(preparation), Tally()
    files = _named(paths, tally)
    names = [str(path) for path in files]
    decoded = [one for _start, part in _parts(files) for one in _in_parallel(lambda path: decode(path, shape, how), part)]
    problems = [f"{shown(name)} {one.problem}" for name, one in zip(names, decoded, strict=True) if one.problem]
    if problems:
        what = f"{len(problems)} of {len(files)} pictures are bad: {first_few(problems[:LISTED], len(problems))}"
        raise EnsyncError(what, "pictures that can be decoded", "leave them out or replace them")
    for name, one in zip(names, decoded, strict=True):
        _note(one, shown(name), how, tally)
    depths = [(shown(name), one.depth) for name, one in zip(names, decoded, strict=True) if one.depth]
    check_depths(depths, how.tagged, how.deep, "convert them to 8 bits as the training pictures were")
    return PicturesRead(np.stack([one.pixels for one in decoded if one.pixels is not None]), names, tally.notes())


def _named(paths: Sequence[str | Path], tally: Tally) -> list[Path]:
    """Return the files that are named, and the pictures in the directories that are."""
    files: list[Path] = []
    for path in map(Path, paths):
        with told(path):
            is_directory = stat.S_ISDIR(path.stat().st_mode)
        files += pictures_in(path, tally) if is_directory else [path]
    if not files:
        raise EnsyncError("no pictures", "files or directories of pictures", "name at least one")
    return files


class Pictures:
    """Pictures that are decoded when their rows are asked for: `pictures[rows]` is uint8 (len(rows), height, width, channels)."""

    def __init__(self, files: list[Path], shape: tuple[int, int, int], recipe: Recipe = USUAL) -> None:
        self.files, self.recipe = files, recipe
        self.shape = (len(files), *shape)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        decoded = _in_parallel(lambda row: decode(self.files[row], self.shape[1:], self.recipe), rows.tolist())
        for row, one in zip(rows.tolist(), decoded, strict=True):
            if one.problem:
                raise EnsyncError(f"{self.files[row]} {one.problem}", "a picture that does not change meanwhile", "prepare again")
        return np.stack([one.pixels for one in decoded])


COMPOSED, FRAMES = "transparent pixels, composed over", "several frames, the first taken"


def _note(one: Decoded, name: str, how: Recipe, tally: Tally) -> None:
    """Note what a user should know of a picture."""
    if one.transparent:
        tally.add(f"{COMPOSED} {how.background}", name)
    if one.frames:
        tally.add(FRAMES, name)
    if one.depth:
        black, white = one.depth.values
        tally.add(f"more than 8 bits, scaled from {black:g} to {white:g}", name)
        if one.depth.outside:
            tally.add(f"values outside {black:g} to {white:g}, cut off", name)


def _check(found: Split, how: Recipe, tally: Tally, what: str, progress: Progress) -> _Checked:
    """Decode every picture of a split once."""
    checked = _Checked(found)
    for start, part in _parts(found.files):
        for place, (one, sha) in enumerate(_in_parallel(lambda path: _check_one(path, how), part), start):
            name = found.names[place]
            checked.digest.update(f"{found.files[place].parent.name}/{found.files[place].name} ".encode(errors="surrogateescape") + sha)
            checked.identities[place] = np.frombuffer(sha[:8], np.uint64)[0] if sha else 0
            if one.problem:
                checked.problems[place] = f"{name} {one.problem}"
                continue
            _note(one, name, how, tally)
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


def _in_parallel(function: Callable, items: list) -> list:
    """Apply `function` in threads: Pillow's decoders leave the interpreter lock."""
    with warnings.catch_warnings(), ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        warnings.simplefilter("ignore")  # about odd EXIF notes and sizes
        return list(pool.map(function, items))


def _parts(files: list[Path]) -> Iterator[tuple[int, list[Path]]]:
    for start in range(0, len(files), TOGETHER):
        yield start, files[start : start + TOGETHER]


def _report(directory: Path, checked: list[_Checked], bad_rows: str) -> list[str]:
    """Return the note about pictures that are skipped. Errors: EnsyncError when they are to be refused."""
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
    raise EnsyncError(f"{directory}: {what} are bad: {details}", "pictures that can be decoded", action)


def _check_classes(directory: Path, class_names: list[str], labels: np.ndarray) -> None:
    """Raise EnsyncError when no picture of a class is left to train with."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(class_names)) == 0)
    if len(empty):
        named = [f"'{class_names[label]}'" for label in empty]
        what = f"{directory}: no training picture can be read of {first_few(named, len(named))}"
        raise EnsyncError(what, "pictures of each class that can be decoded", "replace them, or move the folder away if it is no class")
