"""Pictures in one folder per class, decoded when the dataset file is written, so that a dataset larger than memory can be prepared.

    DIR/CLASS/*.png                                  test is cut from them
    DIR/train/CLASS/*.jpg, DIR/test/CLASS/*.jpg      test is as given
Each picture is turned as its EXIF note says, cut to its central square and resized.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ensync.errors import EnsyncError
from ensync.storage.sources.source import LISTED, Source, first_few, told

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # of the others Pillow knows, some start other programs
SUFFIXES = frozenset(".png .jpg .jpeg .bmp .gif .tif .tiff .webp .ppm .pgm".split())
LARGEST = 100_000_000   # pixels; a small file may declare more than memory holds
SIZES = range(1, 1025)  # pixels on a side of the result
TOGETHER = 256          # pictures decoded between two reports of progress

Progress = Callable[[str, int, int], None]


def read_images(
    directory: str | Path, size: int, greyscale: bool = False, bad_rows: str = "refuse", progress: Progress = lambda *_: None
) -> Source:
    """Return the pictures under `directory` as size x size images with 3 channels, or 1 when greyscale.

    Every picture is decoded once to see that it can be, and again when the rows are asked for. bad_rows: "refuse" raises EnsyncError
    naming the first few broken files; "skip" leaves them out and notes it.
    """
    if size not in SIZES:
        raise EnsyncError(f"--size {size}", f"{SIZES.start} to {SIZES.stop - 1} pixels", "choose another size")
    directory = Path(directory)
    folders = _splits(directory)
    class_names = _class_names(folders)
    images, labels, sums, notes = {}, {}, {}, []
    for split, folder in folders.items():
        files, numbers, ignored = _list(folder, class_names)
        problems, sums[f"{folder.name}/ ({len(files)} pictures)"] = _check(files, f"checking {split} pictures", progress)
        notes += _report(directory, ignored, problems, len(files), bad_rows)
        kept = [place for place in range(len(files)) if place not in problems]
        images[split] = Pictures([files[place] for place in kept], size, greyscale)
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
    )


class Pictures:
    """Pictures that are decoded when their rows are asked for: `pictures[rows]` is uint8 (len(rows), size, size, channels)."""

    def __init__(self, files: list[Path], size: int, greyscale: bool) -> None:
        self.files, self.mode = files, "L" if greyscale else "RGB"
        self.shape = (len(files), size, size, 1 if greyscale else 3)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        decoded = _in_parallel(lambda row: decode(self.files[row], self.shape[1], self.mode), rows.tolist())
        for row, result in zip(rows.tolist(), decoded, strict=True):
            if isinstance(result, str):
                raise EnsyncError(f"{self.files[row]} {result}", "a picture that does not change meanwhile", "prepare again")
        return np.stack(decoded).reshape(len(rows), *self.shape[1:])


def decode(path: Path, size: int, mode: str) -> np.ndarray | str:
    """Return the picture uint8 (size, size) for mode "L" or (size, size, 3) for "RGB", or what is wrong with the file."""
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > LARGEST:
                return f"declares {image.width} x {image.height} pixels, more than {LARGEST:,}"
            image.draft(mode, (2 * size, 2 * size))  # lets the JPEG decoder skip detail; never below the size asked for
            picture = _eight_bits(ImageOps.exif_transpose(image)).convert(mode)
            return np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR))
    except Image.DecompressionBombError:
        return f"declares more than {LARGEST:,} pixels"
    except MemoryError:
        return "needs more memory than there is"
    except Exception as error:  # decoders of broken files raise what they stumble on: OSError, SyntaxError, struct.error, KeyError ...
        text = str(error).replace(str(path), "it").splitlines()
        return f"cannot be decoded ({text[0][:200] if text else type(error).__name__})"


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return pictures of 16 bits with their upper 8, others as they are; Pillow's own conversion would clip at 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65_535) >> 8).astype(np.uint8))


def _in_parallel(function: Callable, items: list) -> list:
    """Apply `function` in threads: Pillow's decoders leave the interpreter lock."""
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # Pillow warns about odd EXIF and sizes; what matters comes back as a problem
        return list(pool.map(function, items))


def _splits(directory: Path) -> dict[str, Path]:
    with told(directory):
        names = {entry.name for entry in os.scandir(directory) if entry.is_dir()}
    if "train" in names:
        return {split: directory / split for split in ("train", "test") if split in names}
    return {"train": directory}


def _class_names(folders: dict[str, Path]) -> list[str]:
    """Return the sorted names of the class folders. Errors: EnsyncError when there are none, or test has one that train lacks."""
    names = {}
    for split, folder in folders.items():
        with told(folder):
            names[split] = {entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")}
    if not names["train"]:
        raise EnsyncError(f"{folders['train']} has no folders", "one folder of pictures for each class", "check --from")
    alone = sorted(names.get("test", set()) - names["train"])
    if alone:
        raise EnsyncError(f"{folders['test']} has '{alone[0]}'", "the classes of train/", "move or rename that folder")
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
        with told(folder / name):
            entries = sorted(entry.name for entry in os.scandir(folder / name) if entry.is_file())
        pictures = [entry for entry in entries if Path(entry).suffix.lower() in SUFFIXES and not entry.startswith(".")]
        ignored += len(entries) - len(pictures)
        files += [folder / name / picture for picture in pictures]
        numbers += [number] * len(pictures)
    if not files:
        raise EnsyncError(f"{folder} has no pictures", f"files ending in {', '.join(sorted(SUFFIXES))}", "check --from")
    return files, numbers, ignored


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
    result = decode(path, 8, "L")
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
