"""How fast images come out of a dataset that is streamed, beside how fast a job's network takes
them: from memory, from the page cache (warm), from the disk (cold), and the share of a step.

python tests/bench/streaming.py [--job JOB.toml] [--data FILE.h5] [--side 128] [--rows 2048]
    [--batch 64] [--rounds 2] [--threads N] [--only-read]     JSON lines, then a table

Without --data random pictures of side x side. Each epoch begins with nothing read.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import harness
import numpy as np
from dataset_reads import forget
from ensync_side import runner
from mpi4py import MPI

from ensync.core.config.job import load_job
from ensync.core.resources import usable_cpus
from ensync.core.sharding import epoch_order
from ensync.kernels import threads
from ensync.nn.optimizers import Optimizer
from ensync.runs.networks import build_network
from ensync.storage.blocks import BlockReader
from ensync.storage.dataset import Dataset, open_dataset
from ensync.storage.sources.source import Source
from ensync.storage.writing import write_dataset
from ensync.strategies.reducers import choose
from ensync.training.batches import BLOCK, BatchLoader, first_images, normalization
from ensync.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
JOB = ROOT / "jobs" / "imagenet_subset" / "alexnet_synchronous.toml"
FROM_MEMORY, WARM, COLD = "memory", "warm", "cold"


def random_dataset(path: Path, side: int, rows: int) -> None:
    """Write random pictures (rows, side, side, 3) in 10 classes, all for training but 20."""
    images = np.random.default_rng(0).integers(0, 256, (rows + 20, side, side, 3), dtype=np.uint8)
    labels = np.arange(rows + 20) % 10
    write_dataset(
        path,
        Source(
            "random",
            {"train": images[20:], "test": images[:20]},
            {"train": labels[20:], "test": labels[:20]},
            list("0123456789"),
            "",
            "",
        ),
        validation=0,
    )


class Ways:
    """The training images of a dataset as each way hands them to a network.

    checked: whether blocks are compared with their digests, as in the first epoch of a run.
    """

    def __init__(self, dataset: Dataset, checked: bool = False) -> None:
        self.dataset, self._checked = dataset, checked
        self._labels = dataset.labels("train")
        self._images = dataset.read("train", 0, len(self._labels))

    def loader(self, way: str) -> BatchLoader:
        """Return a loader of nothing read so far."""
        images = self._images if way == FROM_MEMORY else self._reader()
        shift = normalization("standard", self.dataset.mean, self.dataset.std, np.dtype("f4"))
        return BatchLoader(images, self._labels, *shift)

    def renew(self, loader: BatchLoader, way: str) -> None:
        """Forget what a loader has read; cold: the system, too."""
        if way != FROM_MEMORY:
            loader.images = self._reader()
        if way == COLD:
            forget(self.dataset.path)

    def _reader(self) -> BlockReader:
        labels = self._labels if self._checked else None
        return BlockReader(self.dataset, "train", BLOCK.rows, BLOCK.blocks, labels=labels)


def reading(ways: Ways, way: str, batch: int) -> Callable[[], float]:
    """Return what takes all images through batches, normalised, and gives the seconds."""
    loader = ways.loader(way)
    order = epoch_order(len(loader), 1, 0, loader.window)
    out = np.empty((batch, ways.dataset.features), np.float32)

    def epoch() -> float:
        ways.renew(loader, way)
        begin = time.perf_counter()
        for start in range(0, len(order), batch):
            loader.load(order[start : start + batch], out)
        return time.perf_counter() - begin

    return epoch


def training(ways: Ways, way: str, options: argparse.Namespace) -> Callable[[], float]:
    """Return what trains the job's network on as many images, and gives the seconds."""
    job = load_job(options.job, [f"training.batch={options.batch}"])
    loader, dataset = ways.loader(way), ways.dataset
    network = build_network(job, dataset, 1)
    update = Optimizer(job.optimizer, network.layout, network.dtype)
    reducer = choose(
        job.training, job.communication, MPI.COMM_SELF, network, update, lambda: network
    )
    network.initialize(1, images=lambda: first_images(loader, dataset.shape))
    every = np.arange(len(loader))
    run = runner(Trainer(job, 0, network, update, reducer, loader, every))
    run(1)

    def epoch() -> float:
        ways.renew(loader, way)
        begin = time.perf_counter()
        run(-(-len(loader) // options.batch))
        return time.perf_counter() - begin

    return epoch


def in_turns(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each, round by round, the first of them not counted."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            seconds = run()
            if number:
                times[name].append(seconds)
    return times


def records(what: str, times: dict[str, list[float]], images: int) -> list[dict[str, object]]:
    """Return images a second of each way, and how many times the seconds from memory it takes."""
    return [
        {
            "what": what,
            "way": way,
            "images_per_s": images / statistics.median(seconds),
            "times_memory": harness.median_ratio(seconds, times[FROM_MEMORY]),
        }
        for way, seconds in times.items()
    ]


def measure(dataset: Dataset, options: argparse.Namespace) -> list[dict[str, object]]:
    """Return one record for each way of reading, and of training."""
    found = []
    for checked in (False, True):
        ways = Ways(dataset, checked)
        what = "read, first epoch (digests compared)" if checked else "read"
        epochs = {w: reading(ways, w, options.batch) for w in (FROM_MEMORY, WARM, COLD)}
        found += records(what, in_turns(epochs, options.rounds), dataset.sizes["train"])
    if not options.only_read:
        ways = Ways(dataset)
        epochs = {w: training(ways, w, options) for w in (FROM_MEMORY, WARM, COLD)}
        found += records("training", in_turns(epochs, options.rounds), dataset.sizes["train"])
        speed = {(one["what"], one["way"]): float(str(one["images_per_s"])) for one in found}
        for one in found[-3:]:
            one["share_of_reading"] = speed["training", FROM_MEMORY] / speed["read", one["way"]]
    for one in found:
        harness.emit(one)
    return found


def parse() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", type=Path, default=JOB)
    parser.add_argument("--data", type=Path, help="default: random pictures")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--only-read", action="store_true", help="train nothing")
    return parser.parse_args()


def main() -> None:
    """Measure, and print the table."""
    options = parse()
    harness.begin()
    threads.set_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=".") as place, ExitStack() as files:
        path = options.data or Path(place) / "random.h5"
        if options.data is None:
            random_dataset(path, options.side, options.rows)
        found = measure(files.enter_context(open_dataset(path)), options)
    columns = ["what", "way", "images_per_s", "times_memory", "share_of_reading"]
    harness.table(
        "Images a second (share_of_reading: seconds that reading takes alone, over a step's from "
        "memory)",
        [{key: one.get(key) for key in columns} for one in found],
    )


if __name__ == "__main__":
    main()
