"""Pictures in one folder per class as a source.

Each is looked at once, and decoded when the dataset file is written, so that a dataset larger than
memory can be prepared. class_folders.py says which pictures there are,
decoding.py how each becomes an image, checking.py what becomes of broken ones.
"""

import hashlib
from pathlib import Path

import numpy as np

from ensync.core.errors import plural
from ensync.storage.request import Progress
from ensync.storage.sources.checking import Asked, Checked, PictureSet, source_of_pictures
from ensync.storage.sources.class_folders import Split, find_splits
from ensync.storage.sources.decoding import Decoded, Recipe, decode
from ensync.storage.sources.names import shown
from ensync.storage.sources.picture_rows import (
    USUAL,
    Pictures,
    in_parallel,
    parts,
)
from ensync.storage.sources.source import Source
from ensync.storage.sources.tally import Tally


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
    asked = Asked(size, recipe, bad_rows)
    directory, tally = Path(directory), Tally()
    class_names, splits = find_splits(
        directory, None if validation is None else Path(validation), tally
    )
    checked, sums = {}, {}
    for split, found in splits.items():
        checked[split] = Checked(recipe, tally)
        sum = _check(found, recipe, checked[split], f"checking {split} pictures", progress)
        sums[_sum_name(split, found)] = f"sha256:{sum}"

    def images_of(split: str, places: np.ndarray, how: Recipe) -> Pictures:
        files = splits[split].files
        return Pictures([files[place] for place in places], (size, size, how.channels), how)

    source = f"pictures in {shown(directory.resolve().name)}/"
    return source_of_pictures(
        PictureSet("images", str(directory), source, sums, class_names, checked),
        asked,
        tally,
        images_of,
    )


def _sum_name(split: str, found: Split) -> str:
    folder = shown(found.folder.path.resolve().name)
    return f"{split}: {folder}/ ({plural(len(found.files), 'picture')})"


def _check(found: Split, how: Recipe, checked: Checked, what: str, progress: Progress) -> str:
    """Decode every picture of a split once; return one SHA-256 of all names and bytes."""
    digest = hashlib.sha256()
    for start, part in parts(found.files):
        for place, (one, sha) in enumerate(
            in_parallel(lambda path: _check_one(path, how), part), start
        ):
            path = found.files[place]
            name = f"{path.parent.name}/{path.name} "
            digest.update(name.encode(errors="surrogateescape") + sha)
            identity = int.from_bytes(sha[:8], "little")
            checked.add(found.names[place], found.labels[place], one, identity)
        progress(what, start + len(part), len(found.files))
    return digest.hexdigest()


def _check_one(path: Path, how: Recipe) -> tuple[Decoded, bytes]:
    one = decode(path, (8, 8, 1), how)
    try:
        with path.open("rb") as file:
            return one, hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return one, b""
