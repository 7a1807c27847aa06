"""Pictures in tar archives as a source: folders, archives of classes, or WebDataset's samples.

    CLASS/x.png, perhaps within train/, val/, test/     as a directory of class folders
    n01440764.tar with x.JPEG                           ImageNet as published: a tar of each class
    0001.jpg beside 0001.cls or 0001.json               WebDataset: what has one name is one sample
Archives are read once to look at every picture, and once more for each split that they hold, when
the dataset file is written. Compressed ones, too; memory holds a few pictures at a time.
Source of the format of samples: https://github.com/webdataset/webdataset
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.request import BYTES
from ensync.storage.sources.checking import USUAL, Asked, Checked, PictureSet, source_of_pictures
from ensync.storage.sources.class_folders import find_splits
from ensync.storage.sources.decoding import Recipe
from ensync.storage.sources.folders import is_picture
from ensync.storage.sources.names import shown
from ensync.storage.sources.source import Source
from ensync.storage.sources.streams.archive import Kind, entries
from ensync.storage.sources.streams.pictures import Encoded, Found, Looks, StreamedPictures
from ensync.storage.sources.streams.samples import FOUND_OUT, Choice, Samples
from ensync.storage.sources.streams.shards import few_sums, find_shards, listing_of, names_of
from ensync.storage.sources.streams.tree import Tree
from ensync.storage.sources.tally import Tally
from ensync.storage.work import ALONE, Work

ENDINGS = (".tar", ".tar.gz", ".tgz")
TWICE = "members that are there twice, the last taken"
LINKS, NO_FILES = "left out, a link in an archive", "left out, neither file nor folder"


@dataclass
class _Scan:
    """What is in all archives, in their order.

    pictures, labels, others: paths, behind "train/" and the like where files are named so; starts:
    the number of each archive's first picture; sums: SHA-256 by archive.
    """

    looks: Looks = field(default_factory=Looks)
    pictures: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    odd: list[tuple[str, str]] = field(default_factory=list)  # (what happened, path)
    starts: dict[Path, int] = field(default_factory=dict)
    sums: dict[Path, str] = field(default_factory=dict)


def read_tar(
    given: str | Path,
    asked: Asked = USUAL,
    choice: Choice = FOUND_OUT,
    work: Work = ALONE,
) -> Source:
    """Return the pictures in an archive, a directory of archives, or those that a pattern names.

    choice: which members are pictures and labels, where samples have several. Errors: EnsyncError
    for damaged archives, with member and offset; for broken pictures unless they are skipped; and
    for all that `read_images` refuses.
    """
    given = Path(given)
    shards = find_shards(given, ENDINGS)
    work.partial.claim(listing_of(shards))
    scan, samples, tally = _Scan(), Samples(choice), Tally()
    for split, files in shards.items():
        for file in files:
            _look_at(file, split if len(shards) > 1 else "", scan, samples, asked.recipe, work)
    for what, path in scan.odd:
        tally.add(what, shown(path))
    if samples.any():
        _note_rest(scan.others, tally)
        found = samples.found(str(given), scan.looks, asked.recipe, tally)
    else:
        found = _folders(given, list(shards), scan, asked.recipe, tally)

    def images_of(split: str, places: np.ndarray, how: Asked) -> StreamedPictures:
        files = shards.get(split, shards["train"])
        stream = _stream_of([(file, scan.starts[file]) for file in files])
        row_of = found.row_of(split, places, len(scan.looks))
        return StreamedPictures(stream, row_of, how, work.jobs)

    source = f"pictures in {shown(given.name)}"
    sums = few_sums({name: scan.sums[file] for file, name in names_of(scan.sums).items()})
    pictures = PictureSet(
        "tar", str(given), source, sums, found.class_names, found.checked, found.notes
    )
    return source_of_pictures(pictures, asked, tally, images_of)


def _note_rest(paths: list[str], tally: Tally) -> None:
    """Note members of samples that are neither pictures nor labels, by their endings."""
    for path in paths:
        ending = path.rpartition("/")[2].partition(".")[2]
        tally.add(f"left out, members ending in .{shown(ending)}", shown(path))


def _look_at(
    file: Path, split: str, scan: _Scan, samples: Samples, how: Recipe, work: Work
) -> None:
    """Look at every picture of an archive, and remember what else is in it. split: of which all of
    the archive is, "" where its folders say.
    """
    digest, total = hashlib.sha256(), max(1, file.stat().st_size)
    scan.starts[file] = len(scan.pictures)

    def pictures() -> Iterator[Encoded]:
        wanted = samples.wanted
        for entry in entries(file, wanted, digest, lambda n: tell(what, n, total, BYTES)):
            path = f"{split}/{entry.path}" if split else entry.path
            key = samples.key(file, split, entry.path)
            if entry.kind is Kind.FOLDER:
                scan.folders.append(path)
            elif entry.kind is not Kind.FILE:
                scan.odd.append((LINKS if entry.kind is Kind.LINK else NO_FILES, path))
            elif is_picture(entry.path):
                samples.add_picture(key, len(scan.pictures))
                scan.pictures.append(path)
                yield Encoded(len(scan.pictures) - 1, entry.data)
            elif samples.add_label(key, entry.data):
                scan.labels.append(path)
            else:
                scan.others.append(path)

    what, tell = f"checking {file.name}", work.progress
    for _one in scan.looks.look(pictures(), how, work):
        pass
    scan.sums[file] = f"sha256:{digest.hexdigest()}"


def _stream_of(files: list[tuple[Path, int]]) -> Callable[[], Iterator[Encoded]]:
    """Return what reads the pictures of archives, the first of each having this number."""

    def stream() -> Iterator[Encoded]:
        for file, number in files:
            for entry in entries(file, is_picture):
                if entry.kind is Kind.FILE and is_picture(entry.path):
                    yield Encoded(number, entry.data)
                    number += 1

    return stream


def _folders(given: Path, splits: list[str], scan: _Scan, how: Recipe, tally: Tally) -> Found:
    """Return the pictures of archives of folders, sorted as on a disk."""
    if not scan.pictures:
        raise EnsyncError(
            f"{given} has no pictures", "pictures in folders, or beside labels", "check --from"
        )
    tree = _tree(given, scan, tally)
    for folder in splits if len(splits) > 1 else [""]:
        tree.unwrap(folder)
    names, by_split = find_splits(given, None, tally, tree)
    checked, numbers = {}, {}
    for split, found in by_split.items():
        checked[split] = Checked(how, tally)
        numbers[split] = [tree.number(path) for path in found.files]
        for name, label, number in zip(found.names, found.labels, numbers[split], strict=True):
            checked[split].add(name, label, *scan.looks[number])
    return Found(names, checked, numbers, [])


def _tree(given: Path, scan: _Scan, tally: Tally) -> Tree:
    tree = Tree(given)
    for path in scan.folders:
        tree.add_folder(path)
    for path in [*scan.labels, *scan.others]:  # labels of samples that are none
        tree.add_file(path, -1)
    for number, path in enumerate(scan.pictures):
        if tree.add_file(path, number) is not None:
            tally.add(TWICE, shown(path))
    return tree
