"""How fast images come out of a dataset file, for each way of laying them out in HDF5: why
data/README.md says contiguous.

python tests/bench/dataset_reads.py [DATASET.h5]     prints a Markdown table; the best of several
times; without an argument 60,000 random 28 x 28 images
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from ensync.core.sharding import epoch_order
from ensync.storage.blocks import BlockReader
from ensync.storage.dataset import Dataset, open_dataset
from ensync.storage.sources.source import Source
from ensync.storage.writing import write_dataset

ROUNDS, BATCH, BLOCK, BLOCKS = 7, 128, 1024, 16
LAYOUTS = {
    "contiguous, h5py": {},
    "chunks of 64": {"chunks": 64},
    "chunks of 1024": {"chunks": 1024},
    "chunks of 256, lzf": {"chunks": 256, "compression": "lzf"},
    "chunks of 256, gzip 1": {"chunks": 256, "compression": "gzip", "compression_opts": 1},
}
COLUMNS = [
    "layout",
    "MB",
    "128 shuffled rows, us",
    "block of 1,024 rows, us",
    "all rows, MB/s",
    "all rows not cached, MB/s",
]


def random_dataset(path: Path) -> None:
    """Write 60,000 images whose middle is noise and whose margin is black."""
    images = np.zeros((60_000, 28, 28, 1), np.uint8)
    images[:, 4:24, 4:24] = np.random.default_rng(0).integers(
        0, 256, (60_000, 20, 20, 1), dtype=np.uint8
    )
    labels = {"train": np.arange(60_000) % 10, "test": np.arange(1000) % 10}
    write_dataset(
        path,
        Source(
            "random", {"train": images, "test": images[:1000]}, labels, list("0123456789"), "", ""
        ),
        validation=0,
    )


def forget(path: Path) -> None:
    """Drop the file from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def best(
    works: dict[str, Callable[[], object]],
    rounds: int = ROUNDS,
    before: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Return the best time of each work in seconds, taken in turns: other programs only ever add
    to it.
    """
    times: dict[str, float] = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            before()
            start = time.perf_counter()
            work()
            times[name] = min(times[name], time.perf_counter() - start)
    return times


@dataclass
class Layout:
    """One way to read a file: the images of sorted rows, and of neighbouring rows."""

    path: Path
    shuffled: Callable[[np.ndarray], object]
    neighbours: Callable[[int, int], object]


def open_layouts(dataset: Dataset, directory: Path, files: ExitStack) -> dict[str, Layout]:
    """Return Ensync's reading and, for each layout, a copy of the training images read through
    h5py.
    """
    found = {
        "contiguous, Ensync": Layout(
            dataset.path, partial(dataset.rows, "train"), partial(dataset.read, "train")
        )
    }
    images = dataset.read("train", 0, dataset.sizes["train"])
    for number, (name, options) in enumerate(LAYOUTS.items()):
        path = directory / f"{number}.h5"
        chunks = {"chunks": (options["chunks"], dataset.features)} if "chunks" in options else {}
        with h5py.File(path, "w") as file:
            file.create_dataset("images", data=images, **options | chunks)
        stored = files.enter_context(h5py.File(path, "r", locking=False))["images"]
        found[name] = Layout(
            path, stored.__getitem__, lambda start, stop, stored=stored: stored[start:stop]
        )
    return found


def table(dataset: Dataset, layouts: dict[str, Layout]) -> list[list[str]]:
    """Return the lines of the table."""
    rows, random = dataset.sizes["train"], np.random.default_rng(1)
    batches = [np.sort(random.choice(rows, BATCH, replace=False)) for _ in range(2)]
    starts = random.integers(rows - BLOCK, size=16).tolist()

    def everything(layout: Layout) -> None:
        for first in range(0, rows, BLOCK):
            layout.neighbours(first, min(first + BLOCK, rows))

    def forget_all() -> None:
        for layout in layouts.values():
            forget(layout.path)

    cached = best({name: partial(everything, layout) for name, layout in layouts.items()})
    batch = best(
        {
            name: lambda layout=layout: [layout.shuffled(rows) for rows in batches]
            for name, layout in layouts.items()
        }
    )
    block = best(
        {
            name: lambda layout=layout: [
                layout.neighbours(start, start + BLOCK) for start in starts
            ]
            for name, layout in layouts.items()
        }
    )
    cold = best(
        {name: partial(everything, layout) for name, layout in layouts.items()}, 3, forget_all
    )
    megabytes = dataset.nbytes("train") / 1e6
    return [
        [
            name,
            f"{layout.path.stat().st_size / 1e6:.1f}",
            f"{1e6 * batch[name] / len(batches):,.0f}",
            f"{1e6 * block[name] / len(starts):,.0f}",
            f"{megabytes / cached[name]:,.0f}",
            f"{megabytes / cold[name]:,.0f}",
        ]
        for name, layout in layouts.items()
    ]


def streamed(dataset: Dataset) -> str:
    """Return how long a shuffled epoch takes from blocks, beside the same rows taken from
    memory.
    """
    rows, order = dataset.sizes["train"], epoch_order(dataset.sizes["train"], 1, 0, (BLOCK, BLOCKS))
    images, anywhere = dataset.read("train", 0, rows), epoch_order(rows, 1, 0)
    batches = range(0, rows, BATCH)

    def from_blocks() -> None:
        reader = BlockReader(dataset, "train", BLOCK, BLOCKS)
        for start in batches:
            found, places = reader.batch(order[start : start + BATCH])
            found[places]

    times = best(
        {
            "from memory": lambda: [images[anywhere[start : start + BATCH]] for start in batches],
            "from blocks": from_blocks,
            "by shuffled rows": lambda: [
                dataset.rows("train", anywhere[start : start + BATCH]) for start in batches
            ],
        },
        5,
    )
    times["from blocks, not cached"] = best({"": from_blocks}, 3, lambda: forget(dataset.path))[""]
    return (
        "Batches of 128, microseconds each: "
        + ", ".join(f"{name} {1e6 * value / len(batches):.0f}" for name, value in times.items())
        + "."
    )


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=".") as place, ExitStack() as files:
        path = Path(sys.argv[1] if len(sys.argv) > 1 else Path(place) / "random.h5")
        if len(sys.argv) == 1:
            random_dataset(path)
        dataset = files.enter_context(open_dataset(path))
        lines = [
            COLUMNS,
            ["---"] + ["---:"] * (len(COLUMNS) - 1),
            *table(dataset, open_layouts(dataset, Path(place), files)),
        ]
        print(*(f"| {' | '.join(line)} |" for line in lines), "", streamed(dataset), sep="\n")


if __name__ == "__main__":
    main()
