"""Whether images and labels of a dataset are as they were written: by the digests of the file,
or its fingerprint where it has none.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.core.resources import usable_cpus
from ensync.storage.dataset import Dataset
from ensync.storage.digests import BLOCK, blocks, digest
from ensync.storage.layout import FINGERPRINT, SPLITS, refusal
from ensync.storage.request import Progress

PIECE = 4 << 20  # bytes looked at together
THREADS = 4  # SHA-256 on four cores takes bytes as fast as memory gives them


def check(
    dataset: Dataset,
    loaded: Mapping[str, np.ndarray] | None = None,
    splits: Sequence[str] = SPLITS,
    progress: Progress = lambda *_: None,
) -> None:
    """Raise EnsyncError unless all images and labels of these splits are as they were written.

    loaded: the images uint8 (rows, features) of splits that are in memory; others are read.
    progress(split, rows done, rows) is called now and then.
    """
    for split, fault in faults(dataset, loaded, splits, progress).items():
        if fault:
            raise damaged(dataset, fault.format(split=split))


def damaged(dataset: Dataset, fault: str) -> EnsyncError:
    """Return the error that refuses a dataset with this fault."""
    return refusal(dataset.path, f"is damaged: {fault} not as written")


def faults(
    dataset: Dataset,
    loaded: Mapping[str, np.ndarray] | None = None,
    splits: Sequence[str] = SPLITS,
    progress: Progress = lambda *_: None,
) -> dict[str, str]:
    """Return for each split what of it is not as it was written, "" when all is; for the file,
    where only its fingerprint can tell. As `check`.
    """
    loaded = loaded or {}
    if not dataset.digests:
        return {
            "file": ""
            if _fingerprint(dataset, loaded, progress) == dataset.fingerprint
            else "its images, labels or class names are"
        }
    return {
        split: _name(_bad_blocks(dataset, split, loaded.get(split), progress), dataset.sizes[split])
        for split in splits
    }


def is_block(dataset: Dataset, split: str, start: int, stop: int) -> bool:
    """Whether rows `start` to `stop` are whole blocks for which the file has digests."""
    return (
        bool(dataset.digests)
        and start % BLOCK == 0
        and (stop % BLOCK == 0 or stop == dataset.sizes[split])
    )


def check_block(
    dataset: Dataset, split: str, start: int, images: np.ndarray, labels: np.ndarray
) -> None:
    """Raise EnsyncError unless images uint8 (n, features) and labels int64 (n,) from row `start`
    on, whole blocks, are as they were written.
    """
    for first in range(0, len(labels), BLOCK):
        part = slice(first, first + BLOCK)
        number = (start + first) // BLOCK
        if digest(images[part], labels[part]) != dataset.digests[split][number].tobytes():
            raise damaged(dataset, _name([number], dataset.sizes[split]).format(split=split))


def _bad_blocks(
    dataset: Dataset, split: str, loaded: np.ndarray | None, progress: Progress
) -> list[int]:
    """Return the numbers of the blocks that are not as written; several threads read and sum
    pieces of about PIECE bytes.
    """
    labels, rows = dataset.labels(split), dataset.sizes[split]
    step = max(1, PIECE // (BLOCK * dataset.features)) * BLOCK

    def look(start: int) -> list[int]:
        stop = min(start + step, rows)
        images = dataset.read(split, start, stop) if loaded is None else loaded[start:stop]
        numbers = range(start // BLOCK, blocks(stop))
        found = [
            digest(
                images[n * BLOCK - start :][:BLOCK], labels[n * BLOCK : min((n + 1) * BLOCK, stop)]
            )
            for n in numbers
        ]
        return [
            n
            for n, one in zip(numbers, found, strict=True)
            if one != dataset.digests[split][n].tobytes()
        ]

    bad: list[int] = []
    with ThreadPoolExecutor(min(THREADS, usable_cpus())) as pool:
        for place, found in enumerate(pool.map(look, range(0, rows, step)), 1):
            bad += found
            progress(split, min(place * step, rows), rows)
    return bad


def _name(bad: list[int], rows: int) -> str:
    """Return the rows of these blocks in words that begin a sentence, "" for none."""
    if not bad:
        return ""
    stop = min((bad[0] + 1) * BLOCK, rows)
    more = f" and {len(bad) - 1} more blocks of {{split}}" if len(bad) > 1 else ""
    return f"rows {bad[0] * BLOCK:,} to {stop - 1:,} of {{split}}{more} are"


def _fingerprint(dataset: Dataset, loaded: Mapping[str, np.ndarray], progress: Progress) -> str:
    """Return the fingerprint of what is there (data/README.md), one piece after the other."""
    found, step = hashlib.sha256(dataset.layout.header()), max(1, PIECE // dataset.features)
    for split in SPLITS:
        rows = dataset.sizes[split]
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            found.update(
                loaded[split][start:stop] if split in loaded else dataset.read(split, start, stop)
            )
            progress(split, stop, rows)
        found.update(dataset.labels(split).astype("<i8"))
    return FINGERPRINT + found.hexdigest()
