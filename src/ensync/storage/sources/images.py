"""Pictures in one folder per class as a source.

Each is looked at once, and decoded when the dataset file is written, so that a dataset larger than
memory can be prepared. class_folders.py says which pictures there are, decoding.py how each becomes
an image, looking.py what is remembered of a look, checking.py what becomes of broken ones.
"""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np

from ensync.core.errors import plural
from ensync.storage.sources import picture_rows
from ensync.storage.sources.checking import Asked, Checked, PictureSet, source_of_pictures
from ensync.storage.sources.class_folders import Split, find_splits
from ensync.storage.sources.decoding import Recipe, decode
from ensync.storage.sources.looking import SHAPE, Look, look_at
from ensync.storage.sources.names import shown
from ensync.storage.sources.picture_rows import USUAL, Pictures
from ensync.storage.sources.source import Source
from ensync.storage.sources.tally import Tally
from ensync.storage.work import ALONE, Work


def read_images(
    directory: str | Path,
    size: int | None = None,
    recipe: Recipe = USUAL,
    bad_rows: str = "refuse",
    validation: str | Path | None = None,
    work: Work = ALONE,
) -> Source:
    """Return the pictures under `directory` as size x size images, by the rules of `recipe`.

    Every picture is decoded once to see that it can be, and again when the rows are asked for.
    size: None for what `Asked` takes then. bad_rows: "refuse" raises EnsyncError naming the first
    few broken files; "skip" leaves them out and notes it. validation: a directory with the
    validation pictures.
    """
    asked = Asked(size, recipe, bad_rows)
    directory, tally = Path(directory), Tally()
    class_names, splits = find_splits(
        directory, None if validation is None else Path(validation), tally
    )
    work.partial.claim(_listing(splits))
    checked, sums = {}, {}
    for split, found in splits.items():
        checked[split] = Checked(recipe, tally)
        sum = _check(found, asked, checked[split], f"checking {split} pictures", work)
        sums[_sum_name(split, found)] = f"sha256:{sum}"

    def images_of(split: str, places: np.ndarray, how: Asked) -> Pictures:
        files = splits[split].files
        return Pictures([files[place] for place in places], how.shape, how.recipe, work.jobs)

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


def _listing(splits: dict[str, Split]) -> str:
    """Return a sum of the names of all pictures."""
    digest = hashlib.sha256()
    for split, found in splits.items():
        for file in found.files:
            name = f"{split}/{file.parent.name}/{file.name}\0"
            digest.update(name.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _check(found: Split, asked: Asked, checked: Checked, what: str, work: Work) -> str:
    """Look at every picture of a split once; return one SHA-256 of all names and bytes."""
    digest, total = hashlib.sha256(), len(found.files)
    look, key = partial(_look, how=asked.recipe), partial(_key, values=str(asked.recipe.values))
    for place, (path, (one, sha)) in enumerate(
        look_at(found.files, look, key, lambda _path: 0, work)
    ):
        name = f"{path.parent.name}/{path.name} "
        digest.update(name.encode(errors="surrogateescape") + sha)
        identity = int.from_bytes(sha[:8], "little")
        checked.add(found.names[place], found.labels[place], one, identity)
        if (place + 1) % picture_rows.TOGETHER == 0 or place + 1 == total:
            work.progress(what, place + 1, total)
    return digest.hexdigest()


def _look(path: Path, how: Recipe) -> Look:
    one = decode(path, SHAPE, how)._replace(pixels=None)
    try:
        with path.open("rb") as file:
            return Look(one, hashlib.file_digest(file, "sha256").digest())
    except OSError:
        return Look(one, b"")


def _key(path: Path, values: str) -> int:
    """Return a number for a file as it is now: its path, length and time; 0 when there is none."""
    try:
        about = path.stat()
    except OSError:
        return 0
    text = f"{path}\0{about.st_size}\0{about.st_mtime_ns}\0{values}"
    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest())
