"""Pictures in one folder per class, decoded when the dataset file is written, so that a dataset larger than memory can be prepared.

    DIR/CLASS/*.png                                  test is cut from them
    DIR/train/CLASS/*.jpg, DIR/test/CLASS/*.jpg      test is as given
Each picture is turned as its EXIF note says, cut to its central square and resized.
"""

import hashlib
import logging
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ensync.errors import EnsyncError
from ensync.storage.sources.source import LISTED, Source, first_few, told

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # of the others Pillow knows, some start other programs
SUFFIXES = frozenset(".png .jpg .jpeg .bmp .gif .tif .tiff .webp .ppm .pgm".split())
LARGEST = 50_000_000    # pixels to decode (JPEG: after its detail is skipped); a small file may declare more than memory holds
SIZES = range(1, 1025)  # pixels on a side of the result
TOGETHER = 256          # pictures decoded between two reports of progress
MOST_THREADS = 16       # each may hold a picture of the largest size

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what matters comes back as a problem of the picture

Progress = Callable[[str, int, int], None]


def read_images(
    directory: str | Path,
    size: int,
    greyscale: bool = False,
    bad_rows: str = "refuse",
    validation: str | Path | None = None,
    progress: Progress = lambda *_: None,
) -> Source:
    """Return the pictures under `directory` as size x size images with 3 channels, or 1 when greyscale.

    Every picture is decoded once to see that it can be, and again when the rows are asked for. bad_rows: "refuse" raises EnsyncError
    naming the first few broken files; "skip" leaves them out and notes it. validation: a directory with the validation pictures.
    """
    if size not in SIZES:
        raise EnsyncError(f"--size {size}", f"{SIZES.start} to {SIZES.stop - 1} pixels", "choose another size")
    directory = Path(directory)
    folders = _splits(directory)
    if validation is not None:
        folders["validation"] = Path(validation)
    class_names = _class_names(folders)
    images, labels, sums, notes = {}, {}, {}, []
    for split, folder in folders.items():
        files, numbers, ignored = _list(folder, class_names)
        problems, sums[f"{folder.name}/ ({len(files)} pictures)"] = _check(files, f"checking {split} pictures", progress)
        notes += _report(directory, ignored, problems, len(files), bad_rows)
        kept = [place for place in range(len(files)) if place not in problems]
        images[split] = Pictures([files[place] for place in kept], (size, size, 1 if greyscale else 3))
        labels[split] = np.array([numbers[place] for place in kept], np.int64)
    return Source(
        name="images",
        images=images,
        labels=labels,
        class_names=class_names,
        source=f"pictures in {directory.resolve().name}/",
        licence="as the pictures' owner says",
        checksums=sums,
        notes=notes,
        preparation={"colour": "grey" if greyscale else "RGB", "size": size, "crop": "centre", "resize": "bilinear", "orientation": "EXIF"},
    )


class PicturesRead(NamedTuple):
    """Pictures for a network: images uint8 (n, height, width, channels), their n names, and notes on what a user must know of them."""

    pixels: np.ndarray
    names: list[str]
    notes: list[str]


def read_pictures(paths: Sequence[str | Path], shape: tuple[int, int, int], preparation: Mapping[str, Any]) -> PicturesRead:
    """Return pictures as images of a dataset's `shape`, made by the rules that its `preparation` records; a directory is all in it.

    Errors: EnsyncError naming the first few files that cannot be decoded.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        with told(path):
            is_directory = stat.S_ISDIR(path.stat().st_mode)
        files += [path / name for name in _pictures_in(path)[0]] if is_directory else [path]
    if not files:
        raise EnsyncError("no pictures", f"files ending in {', '.join(sorted(SUFFIXES))}", "name at least one")
    problems = _check(files, "checking pictures", lambda *_: None)[0]
    if problems:
        what = f"{len(problems)} of {len(files)} pictures are bad: {first_few(list(problems.values())[:LISTED], len(problems))}"
        raise EnsyncError(what, "pictures that can be decoded", "leave them out or replace them")
    return PicturesRead(Pictures(files, shape)[np.arange(len(files))], list(map(str, files)), [])


class Pictures:
    """Pictures that are decoded when their rows are asked for: `pictures[rows]` is uint8 (len(rows), height, width, channels)."""

    def __init__(self, files: list[Path], shape: tuple[int, int, int]) -> None:
        self.files = files
        self.shape = (len(files), *shape)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        decoded = _in_parallel(lambda row: decode(self.files[row], self.shape[1:]), rows.tolist())
        for row, result in zip(rows.tolist(), decoded, strict=True):
            if isinstance(result, str):
                raise EnsyncError(f"{self.files[row]} {result}", "a picture that does not change meanwhile", "prepare again")
        return np.stack(decoded)


def decode(path: Path, shape: tuple[int, ...]) -> np.ndarray | str:
    """Return the picture uint8 of `shape` (height, width, 1 or 3), or what is wrong with the file."""
    height, width, channels = shape
    mode = "L" if channels == 1 else "RGB"
    try:
        if not path.is_file():
            return "is not a file"
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            image.draft(mode, (2 * width, 2 * height))  # lets the JPEG decoder skip detail, never below the size asked for
            if image.width * image.height > LARGEST:
                return f"declares {image.width} x {image.height} pixels, more than {LARGEST:,}"
            image.load()
            picture = _eight_bits(_upright(image))
            picture = picture if picture.mode == mode else picture.convert(mode)
            return np.asarray(ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)).reshape(shape)
    except Image.DecompressionBombError:
        return f"declares more than {LARGEST:,} pixels"
    except MemoryError:
        return "needs more memory than there is"
    except Exception as error:  # decoders of broken files raise what they stumble on: OSError, SyntaxError, struct.error, KeyError ...
        return f"cannot be decoded ({type(error).__name__}: {_plain(str(error))})"


def _plain(text: str) -> str:
    """Return the first line of a decoder's message without the names of Python objects in it."""
    return re.sub(r"<[^>]*>", "the file", text).split("\n")[0][:200] or "no reason given"


def _upright(image: Image.Image) -> Image.Image:
    """Return the loaded picture turned as its EXIF note says; as it is when the note is broken, which is no reason to lose it."""
    with suppress(Exception):  # a broken note raises as many types as a broken picture
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return pictures of 16 bits with their upper 8, others as they are; Pillow's own conversion would clip at 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65_535) >> 8).astype(np.uint8))


def _in_parallel(function: Callable, items: list) -> list:
    """Apply `function` in threads: Pillow's decoders leave the interpreter lock."""
    with warnings.catch_warnings(), ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        warnings.simplefilter("ignore")  # about odd EXIF notes and sizes
        return list(pool.map(function, items))


def _splits(directory: Path) -> dict[str, Path]:
    with told(directory):
        names = {entry.name for entry in os.scandir(directory) if entry.is_dir()}
    if "train" not in names:
        return {"train": directory}
    others = sorted(name for name in names - {"train", "test"} if not name.startswith("."))
    if others:
        raise EnsyncError(f"{directory} has '{others[0]}' beside train", "train and test only", f"rename '{others[0]}' to test, or move it away")
    return {split: directory / split for split in ("train", "test") if split in names}


def _class_names(folders: dict[str, Path]) -> list[str]:
    """Return the sorted names of the class folders. Errors: EnsyncError when there are none, or test has one that train lacks."""
    names = {}
    for split, folder in folders.items():
        with told(folder):
            names[split] = {entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")}
    if not names["train"]:
        raise EnsyncError(f"{folders['train']} has no folders", "one folder of pictures for each class", "check --from")
    for split, folder in folders.items():
        if alone := sorted(names[split] - names["train"]):
            raise EnsyncError(f"{folder} has '{alone[0]}'", f"the classes of {folders['train']}", "move or rename that folder")
    for name in names["train"]:
        if not name.isprintable():
            raise EnsyncError(f"the folder name {ascii(name)}", "a name that can be printed", "rename that folder")
    return sorted(names["train"])


def _list(folder: Path, class_names: list[str]) -> tuple[list[Path], list[int], int]:
    """Return the pictures sorted by class and name, their class numbers, and how many other files were passed over."""
    files: list[Path] = []
    numbers: list[int] = []
    ignored = 0
    for number, name in enumerate(class_names):
        if not (folder / name).is_dir():
            continue
        pictures, others = _pictures_in(folder / name)
        ignored += others
        files += [folder / name / picture for picture in pictures]
        numbers += [number] * len(pictures)
    if not files:
        raise EnsyncError(f"{folder} has no pictures", f"files ending in {', '.join(sorted(SUFFIXES))}", "check --from")
    return files, numbers, ignored


def _pictures_in(folder: Path) -> tuple[list[str], int]:
    """Return the sorted names of the pictures in a folder, and how many other files there are."""
    with told(folder):
        entries = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    pictures = [entry for entry in entries if Path(entry).suffix.lower() in SUFFIXES and not entry.startswith(".")]
    return pictures, len(entries) - len(pictures)


def _check(files: list[Path], what: str, progress: Progress) -> tuple[dict[int, str], str]:
    """Decode everything once; return {place: problem} and one checksum over the names and bytes of all files."""
    problems: dict[int, str] = {}
    digest = hashlib.sha256()
    for start, part in _parts(files):
        for place, (problem, sha) in enumerate(_in_parallel(_check_one, part), start):
            digest.update(f"{files[place].parent.name}/{files[place].name} ".encode(errors="surrogateescape") + sha)
            if problem:
                problems[place] = f"{files[place].parent.name}/{files[place].name} {problem}"
        progress(what, start + len(part), len(files))
    return problems, f"sha256:{digest.hexdigest()}"


def _check_one(path: Path) -> tuple[str | None, bytes]:
    result = decode(path, (8, 8, 1))
    try:
        with path.open("rb") as file:
            return result if isinstance(result, str) else None, hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return str(result), b""


def _parts(files: list[Path]) -> Iterator[tuple[int, list[Path]]]:
    for start in range(0, len(files), TOGETHER):
        yield start, files[start : start + TOGETHER]


def _report(directory: Path, ignored: int, problems: dict[int, str], count: int, bad_rows: str) -> list[str]:
    """Return the notes about files left out. Errors: EnsyncError when broken ones are to be refused, or none are left."""
    notes = [f"{ignored} files that are not pictures by their names left out"] if ignored else []
    if not problems:
        return notes
    details = first_few(list(problems.values())[:LISTED], len(problems))
    what = f"{len(problems)} of {count} pictures"
    if bad_rows == "skip" and len(problems) < count:
        return [*notes, f"{what} left out: {details}"]
    raise EnsyncError(f"{directory}: {what} are bad: {details}", "pictures that can be decoded", "replace them, or leave them out with --bad-rows skip")
