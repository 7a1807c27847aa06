"""Pictures that become images when their rows are asked for, several at a time."""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.storage.sources.decoding import Decoded, Recipe, decode
from ensync.storage.sources.tally import Tally

TOGETHER = 256  # pictures decoded between two reports of progress
MOST_THREADS = 16  # each may hold a picture of the largest size
AHEAD, MOST_HELD = 256, 64 << 20  # pictures, and their bytes, that are read ahead of the decoders
USUAL = Recipe()
COMPOSED, FRAMES = "transparent pixels, composed over", "several frames, the first taken"


class Pictures:
    """`pictures[rows]` decodes uint8 (len(rows), height, width, channels) when asked for."""

    def __init__(
        self, files: list[Path], shape: tuple[int, int, int], recipe: Recipe = USUAL
    ) -> None:
        self.files, self.recipe = files, recipe
        self.shape = (len(files), *shape)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        decoded = in_parallel(
            lambda row: decode(self.files[row], self.shape[1:], self.recipe), rows.tolist()
        )
        for row, one in zip(rows.tolist(), decoded, strict=True):
            if one.problem:
                raise EnsyncError(
                    f"{self.files[row]} {one.problem}",
                    "a picture that does not change meanwhile",
                    "prepare again",
                )
        return np.stack([one.pixels for one in decoded])


def note_picture(one: Decoded, name: str, how: Recipe, tally: Tally) -> None:
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


def in_parallel(function: Callable, items: list) -> list:
    """Apply `function` in threads: Pillow's decoders leave the interpreter lock."""
    with (
        warnings.catch_warnings(),
        ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as pool,
    ):
        warnings.simplefilter("ignore")  # about odd EXIF notes and sizes
        return list(pool.map(function, items))


Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], size: Callable[[Item], int]
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with what `function` makes of it in threads, while the next items are read.

    size(item): the bytes that it holds; about AHEAD items and MOST_HELD bytes wait at a time.
    """
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore")  # about odd EXIF notes and sizes
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        held = 0
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            held += size(item)
            while len(waiting) > AHEAD or held > MOST_HELD:
                first, result = waiting.popleft()
                held -= size(first)
                yield first, result.result()
        for first, result in waiting:
            yield first, result.result()


def parts(files: list[Path]) -> Iterator[tuple[int, list[Path]]]:
    """Yield (place of the first, files) for TOGETHER files at a time."""
    for start in range(0, len(files), TOGETHER):
        yield start, files[start : start + TOGETHER]
