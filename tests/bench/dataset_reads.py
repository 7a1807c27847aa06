"""How fast images come out of a dataset file, for each way of laying them out in HDF5: why data/README.md says contiguous.

python tests/bench/dataset_reads.py [DATASET.h5]     prints a Markdown table; medians; without an argument 60,000 random 28 x 28 images
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from ensync.sharding import epoch_order
from ensync.storage.blocks import BlockReader
from ensync.storage.dataset import Dataset, open_dataset
from ensync.storage.sources import Source
from ensync.storage.writing import write_dataset

ROUNDS, BATCH, BLOCK, BLOCKS = 15, 128, 1024, 16
LAYOUTS = {
    "contiguous, h5py": {},
    "chunks of 64": {"chunks": 64},
    "chunks of 1024": {"chunks": 1024},
    "chunks of 256, lzf": {"chunks": 256, "compression": "lzf"},
    "chunks of 256, gzip 1": {"chunks": 256, "compression": "gzip", "compression_opts": 1},
    "chunks of 1024, gzip 1": {"chunks": 1024, "compression": "gzip", "compression_opts": 1},
}
COLUMNS = ["layout", "MB", "128 shuffled rows, us", "block of 1,024 rows, us", "all rows, MB/s", "all rows not cached, MB/s"]


def random_dataset(path: Path) -> None:
    """Write 60,000 images whose middle is noise and whose margin is black."""
    images = np.zeros((60_000, 28, 28, 1), np.uint8)
    images[:, 4:24, 4:24] = np.random.default_rng(0).integers(0, 256, (60_000, 20, 20, 1), dtype=np.uint8)
    labels = {"train": np.arange(60_000) % 10, "test": np.arange(1000) % 10}
    write_dataset(path, Source("random", {"train": images, "test": images[:1000]}, labels, list("0123456789"), "", ""), validation=0)


def forget(path: Path) -> None:
    """Drop the file from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def seconds(work: Callable[[], object], before: Callable[[], object] = lambda: None, rounds: int = ROUNDS) -> float:
    """Return the median time of `work`."""
    times = []
    for _ in range(rounds):
        before()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(name: str, path: Path, rows: int, features: int, shuffled: Callable, neighbours: Callable) -> list[str]:
    """Return a line of the table: shuffled(sorted rows) and neighbours(start, stop) read from the file."""
    random = np.random.default_rng(1)
    everything = lambda: [neighbours(start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK)]  # noqa: E731
    everything()
    batch = seconds(lambda: shuffled(np.sort(random.choice(rows, BATCH, replace=False))), rounds=ROUNDS)
    block = seconds(lambda: neighbours(start := int(random.integers(rows - BLOCK)), start + BLOCK), rounds=ROUNDS)
    cached, cold = seconds(everything), seconds(everything, lambda: forget(path), 5)
    megabytes = rows * features / 1e6
    return [name, f"{path.stat().st_size / 1e6:.1f}", f"{1e6 * batch:,.0f}", f"{1e6 * block:,.0f}", f"{megabytes / cached:,.0f}", f"{megabytes / cold:,.0f}"]


def layouts(dataset: Dataset, directory: Path) -> list[list[str]]:
    """Return the lines of the table: Ensync's reading, then each layout through h5py."""
    rows, features = dataset.sizes["train"], dataset.features
    images = dataset.read("train", 0, rows)
    lines = [measure("contiguous, Ensync", dataset.path, rows, features, lambda r: dataset.rows("train", r), lambda a, b: dataset.read("train", a, b))]
    for number, (name, options) in enumerate(LAYOUTS.items()):
        path = directory / f"{number}.h5"
        with h5py.File(path, "w") as file:
            chunks = {"chunks": (options["chunks"], features)} if "chunks" in options else {}
            file.create_dataset("images", data=images, **options | chunks)
        with h5py.File(path, "r", locking=False) as file:
            stored = file["images"]
            lines.append(measure(name, path, rows, features, lambda r, d=stored: d[r], lambda a, b, d=stored: d[a:b]))
    return lines


def streamed(dataset: Dataset) -> str:
    """Return how long a shuffled epoch takes from blocks, beside the same rows taken from memory."""
    rows, order = dataset.sizes["train"], epoch_order(dataset.sizes["train"], 1, 0, (BLOCK, BLOCKS))
    images, anywhere = dataset.read("train", 0, rows), epoch_order(rows, 1, 0)
    batches = range(0, rows, BATCH)

    def from_blocks() -> None:
        reader = BlockReader(dataset, "train", BLOCK, BLOCKS)
        for start in batches:
            found, places = reader.batch(order[start : start + BATCH])
            found[places]

    times = {
        "from memory": seconds(lambda: [images[anywhere[start : start + BATCH]] for start in batches], rounds=5),
        "from blocks, cached": seconds(from_blocks, rounds=5),
        "from blocks, not cached": seconds(from_blocks, lambda: forget(dataset.path), 5),
        "by shuffled rows, cached": seconds(lambda: [dataset.rows("train", anywhere[start : start + BATCH]) for start in batches], rounds=5),
    }
    return "Batches of 128, microseconds each: " + ", ".join(f"{name} {1e6 * value / len(batches):.0f}" for name, value in times.items()) + "."


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=".") as place:
        path = Path(sys.argv[1] if len(sys.argv) > 1 else Path(place) / "random.h5")
        if len(sys.argv) == 1:
            random_dataset(path)
        with open_dataset(path) as dataset:
            lines = [COLUMNS, ["---"] + ["---:"] * (len(COLUMNS) - 1), *layouts(dataset, Path(place))]
            print(*(f"| {' | '.join(line)} |" for line in lines), "", streamed(dataset), sep="\n")


if __name__ == "__main__":
    main()
