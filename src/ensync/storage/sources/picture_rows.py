"""Pictures that become images when their rows are asked for, several at a time."""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import TypeVar

import numpy as np

from ensync.core.errors import EnsyncError
from ensync.core.resources import usable_cpus
from ensync.storage.sources.decoding import Decoded, Recipe, decode
from ensync.storage.sources.tally import Tally

TOGETHER = 256  # pictures decoded between two reports of progress
AHEAD, MOST_HELD = 256, 64 << 20  # pictures, and their bytes, that are read ahead of the decoders
USUAL = Recipe()
COMPOSED, FRAMES = "transparent pixels, composed over", "several frames, the first taken"


class Pictures:
    """`pictures[rows]` decodes uint8 (len(rows), height, width, channels) when asked for, in
    `jobs` threads, 0 for one on each usable CPU.
    """

    def __init__(
        self,
        files: list[Path],
        shape: tuple[int, int, int],
        recipe: Recipe = USUAL,
        jobs: int = 0,
    ) -> None:
        self.files, self.recipe, self.jobs = files, recipe, jobs
        self.shape = (len(files), *shape)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return next(self.ahead(rows, len(rows)))

    def ahead(self, rows: np.ndarray, step: int) -> Iterator[np.ndarray]:
        """Yield the images of rows int64, `step` at a time, while the next are decoded."""
        size, found = prod(self.shape[1:]), []
        for row, one in in_order(self._decoded, rows.tolist(), lambda _row: size, self.jobs):
            if one.pixels is None:
                raise EnsyncError(
                    f"{self.files[row]} {one.problem}",
                    "a picture that does not change meanwhile",
                    "prepare again",
                )
            found.append(one.pixels)
            if len(found) == step:
                yield np.stack(found)
                found = []
        if found:
            yield np.stack(found)

    def _decoded(self, row: int) -> Decoded:
        return decode(self.files[row], self.shape[1:], self.recipe)


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


Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    """Apply `function` in threads: Pillow's decoders leave the interpreter lock."""
    return [result for _item, result in in_order(function, items, lambda _item: 0)]


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    size: Callable[[Item], int],
    jobs: int = 0,
    known: Callable[[Item], Result | None] = lambda item: None,
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with what `function` makes of it in threads, while the next items are read.

    size(item): the bytes that it holds; about AHEAD items and MOST_HELD bytes wait at a time, so
    that memory does not grow with their number. jobs: how many threads, 0 for one on each usable
    CPU. known(item): what `function` would make of it, where that is known.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd EXIF notes and sizes
        pool = ThreadPoolExecutor(jobs or usable_cpus())
        try:
            waiting: deque[tuple[Item, Future[Result]]] = deque()
            held = 0
            for item in items:
                found = known(item)
                result = pool.submit(function, item) if found is None else _done(found)
                waiting.append((item, result))
                held += size(item)
                while len(waiting) > AHEAD or held > MOST_HELD:
                    first, result = waiting.popleft()
                    held -= size(first)
                    yield first, result.result()
            while waiting:
                first, result = waiting.popleft()
                yield first, result.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _done(result: Result) -> Future[Result]:
    """Return what is at hand as something to come."""
    future: Future[Result] = Future()
    future.set_result(result)
    return future


def parts(files: list[Path]) -> Iterator[tuple[int, list[Path]]]:
    """Yield (place of the first, files) for TOGETHER files at a time."""
    for start in range(0, len(files), TOGETHER):
        yield start, files[start : start + TOGETHER]
