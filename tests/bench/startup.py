"""Seconds from `mpirun` to the end of the first training step, once compiled, and the memory of a
rank beside the dataset.

python tests/bench/startup.py [--rounds 5] [--ranks 1 2]     JSON lines, then a table; on 60,000
random images of 28x28 pixels
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness
import numpy as np
from ranks_against_ddp import mpirun

BEGUN = "ENSYNC_BENCH_BEGUN"
IMAGES, FEATURES = 70_000, 784
SECONDS, MEGABYTES = 3.0, 300.0  # to stay below
JOB = """
[data]
path = "{path}"
[network]
hidden = [256, 128]
[training]
epochs = 1
batch = 128
[checkpoint]
every_epochs = 0
[output]
directory = "{directory}"
"""


def write_data(path: Path) -> None:
    """Write random images as a dataset file."""
    from ensync.storage.sources.source import Source
    from ensync.storage.writing import write_dataset

    random = np.random.default_rng(1)
    images = {
        name: random.integers(0, 256, (n, 28, 28, 1), dtype=np.uint8)
        for name, n in (("train", IMAGES - 10_000), ("test", 10_000))
    }
    labels = {name: random.integers(0, 10, len(values)) for name, values in images.items()}
    write_dataset(
        path,
        Source("noise", images, labels, [str(digit) for digit in range(10)], "random", "none", {}),
        validation=0.1,
    )


def probe(job: str) -> None:
    """Run `ensync train` on this rank and print when its first step ended and what memory it
    took.
    """
    from ensync.cli.main import main
    from ensync.runs.session import Session

    original, first = Session.run, []

    def watched(session: Session) -> None:
        for trainer in session.trainers.values():
            trainer.progress = lambda _, report=trainer.progress: (
                first or first.append(time.time()),
                report(_),
            )
        original(session)

    Session.run = watched
    main(["train", job, "--overwrite"])
    memory = dict(
        line.split(":")
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(("VmHWM", "Rss"))
    )
    megabytes = {name: int(value.split()[0]) / 1024 for name, value in memory.items()}
    sys.stdout.write(
        json.dumps({"first_step": first[0] - float(os.environ[BEGUN]), **megabytes}) + "\n"
    )


def start(ranks: int, job: Path) -> list[dict[str, float]]:
    """Start the program and return every rank's line."""
    command = [mpirun(), "-n", str(ranks), sys.executable, __file__, "--probe", str(job)]
    result = subprocess.run(
        command,
        env=dict(os.environ, **{BEGUN: str(time.time())}),
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = [
        json.loads(line) for line in result.stdout.splitlines() if line.startswith('{"first_step"')
    ]
    if len(lines) != ranks:
        raise SystemExit(
            f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}"
        )
    return lines


def measure(ranks: int, job: Path, rounds: int) -> dict[str, object]:
    """Return the medians of several starts; memory is that of the largest rank."""
    start(ranks, job)
    runs = [start(ranks, job) for _ in range(rounds)]
    peak = statistics.median(max(rank["VmHWM"] for rank in run) for run in runs)
    record = {
        "ranks": ranks,
        "first_step_s": statistics.median(max(rank["first_step"] for rank in run) for run in runs),
        "slowest_s": max(rank["first_step"] for run in runs for rank in run),
        "below_s": SECONDS,
        "peak_mb": peak,
        "beside_dataset_mb": peak - IMAGES * FEATURES / 2**20,
        "below_mb": MEGABYTES,
    }
    harness.emit(record)
    return record


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    harness.add_to(parser)
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        return probe(options.probe)
    harness.emit(harness.environment())
    with tempfile.TemporaryDirectory() as directory:
        path, job = Path(directory, "noise.h5"), Path(directory, "job.toml")
        write_data(path)
        job.write_text(JOB.format(path=path, directory=Path(directory, "run")))
        rows = [measure(ranks, job, options.rounds) for ranks in options.ranks]
    harness.table(
        "From mpirun to the first step (warm cache), and memory of the largest rank", rows
    )
    harness.keep(options.to, rows, ("ranks",))


if __name__ == "__main__":
    main()
