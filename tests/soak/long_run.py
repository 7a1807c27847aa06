"""Let ranks train, validate, save, resume, test and compare for as long as asked, and refuse memory
or open files that grow.

    mpirun -n 2 python tests/soak/long_run.py 60 --work epochs     one run of endless epochs, each
    validated and saved mpirun -n 2 python tests/soak/long_run.py 60 --work sweeps     sweeps and
    comparisons, one after the other in one process

Every rank looks at itself once in a while. Rank 0 prints for each rank the first and last figures
and the slope of a straight line through those after the first fifth, in which caches fill. Exit
code 1 when memory grew by more than 2 %, or there are more open files, threads or segments of
shared memory than after that fifth, or the history, a checkpoint or the log is larger than its
bound.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from mpi4py import MPI

from ensync.mpi.abort import guard
from ensync.report.history import LIMIT_BYTES
from ensync.runs import studies, train
from ensync.runs.options import RunOptions
from ensync.runs.stopped import Stopped
from ensync.storage.prepare import prepare
from ensync.storage.request import PrepareRequest

SAMPLES = 200  # in all, however long it takes
GROWTH = 0.02  # of memory, that is still noise of the allocator
CHECKPOINT_BYTES = 4 * 2**20
LOG_BYTES, LOG_BYTES_PER_HOUR = 2**20, 2**21
FILES = 100  # in all, however many runs come one after the other
KINDS = ("memory_mb", "files", "threads", "mappings")
Figures = tuple[float, ...]
JOB = """
[data]
path = "digits.h5"
[network]
hidden = [32]
[training]
epochs = {epochs}
threads = 1
[ensemble]
start = "shared"
[output]
directory = "run"
"""


def main(options: argparse.Namespace, comm: MPI.Comm) -> int:
    seconds, samples = 60 * options.minutes, []
    here = comm.bcast(tempfile.mkdtemp(prefix="ensync-long-run-") if comm.rank == 0 else None)
    os.chdir(here)
    said = os.dup(1)
    threading.Thread(
        target=look, args=(samples, seconds, options.work == "epochs"), daemon=True
    ).start()
    done = {"epochs": endless, "sweeps": again}[options.work](comm, seconds)
    sys.stdout.flush()
    os.dup2(said, 1)
    taken = comm.gather(np.array(samples))
    return comm.bcast(0 if taken is None else report(done, taken, options.minutes, Path(here)))


def report(done: str, taken: list[np.ndarray], minutes: float, here: Path) -> int:
    """Print what was seen; return the exit code, with 0 the directory is removed."""
    print(f"{done} on {len(taken)} ranks in {minutes:g} minutes")
    wrong = [line for rank, samples in enumerate(taken) for line in judge(rank, samples)] + sizes(
        minutes
    )
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        shutil.rmtree(here)
    return int(bool(wrong))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("minutes", type=float)
    parser.add_argument("--work", choices=("epochs", "sweeps"), default="epochs")
    return parser.parse_args()


def endless(comm: MPI.Comm, seconds: float) -> str:
    """Train a million epochs on all ranks, until `look` asks for the end; return what was done."""
    begin(comm, epochs=10**6)
    try:
        train.train(comm, "job.toml", RunOptions())
    except Stopped as stopped:
        return str(stopped).partition(", with a checkpoint")[0]
    raise AssertionError("a million epochs cannot be over")


def again(comm: MPI.Comm, seconds: float) -> str:
    """Sweep and compare until the time is over; return what was done."""
    begin(comm, epochs=3)
    deadline, rounds = time.monotonic() + seconds, 0
    while comm.bcast(time.monotonic() < deadline):
        apart = ("training.strategy=ensemble", "ensemble.start=synchronous")
        again = RunOptions(overwrite=True)
        studies.sweep(comm, "job.toml", "training.seed=1,2,3", replace(again, overrides=apart))
        studies.sweep(comm, "job.toml", "training.deterministic=false,true", again)
        compared = replace(again, overrides=("output.directory=compared",))
        studies.compare(comm, "job.toml", compared)
        rounds += 1
    return f"{rounds} rounds of two sweeps and a comparison"


def begin(comm: MPI.Comm, epochs: int) -> None:
    """Write dataset and job, and send what the program says into a log. Collective."""
    if comm.rank == 0:
        prepare(PrepareRequest("digits", target="digits.h5"))
        Path("job.toml").write_text(JOB.format(epochs=epochs))
        os.dup2(os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    comm.Barrier()


def look(samples: list[Figures], seconds: float, end: bool) -> None:
    """Append this process's figures once in a while; at the end ask it to stop."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(seconds / SAMPLES)
        samples.append(figures())
    while end:
        os.kill(
            os.getpid(), signal.SIGUSR1
        )  # once more, should it have come before there was a handler
        time.sleep(5)


def figures() -> Figures:
    """Return the seconds since the machine started, and what KINDS names, of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    held = int(status["RssAnon"].split()[0]) + int(
        status["RssShmem"].split()[0]
    )  # without the pages of files, which the system may drop
    mappings = sum("/dev/shm/" in line or "(deleted)" in line for line in open("/proc/self/maps"))
    return (
        time.monotonic(),
        held / 1024,
        len(os.listdir("/proc/self/fd")),
        int(status["Threads"]),
        mappings,
    )


def judge(rank: int, samples: np.ndarray) -> list[str]:
    """Print a rank's figures; return what grew."""
    steady = samples[len(samples) // 5 :]
    first, last = (
        np.median(part, axis=0) for part in (steady[: SAMPLES // 10], steady[-SAMPLES // 10 :])
    )
    hours = (steady[:, 0] - steady[0, 0]) / 3600
    print(
        f"rank {rank}: {len(samples)} samples in {(samples[-1, 0] - samples[0, 0]) / 60:.1f} "
        "minutes"
    )
    grown = []
    for column, kind in enumerate(KINDS, 1):
        slope = np.polyfit(hours, steady[:, column], 1)[0]
        print(
            f"  {kind:<9} {samples[0, column]:8.2f} at the start, {first[column]:8.2f} -> "
            f"{last[column]:8.2f}, slope {slope:+.3f} an hour"
        )
        if last[column] > first[column] * (1 + GROWTH * (kind == "memory_mb")):
            grown.append(
                f"{kind} of rank {rank} grew from {first[column]:.2f} to {last[column]:.2f}"
            )
    return grown


def sizes(minutes: float) -> list[str]:
    """Print the sizes of what was written; return what is larger than its bound."""
    largest = {
        name: max(path.stat().st_size for path in Path().rglob(name))
        for name in ("history.jsonl", "checkpoint-*.h5")
    }
    bounds = {
        "history": (largest["history.jsonl"], LIMIT_BYTES),
        "checkpoint": (largest["checkpoint-*.h5"], CHECKPOINT_BYTES),
        "log": (Path("log").stat().st_size, LOG_BYTES + LOG_BYTES_PER_HOUR * minutes / 60),
        "files": (sum(path.is_file() for path in Path().rglob("*")), FILES),
    }
    for name, (size, bound) in bounds.items():
        print(f"{name:<11} {size:>12,} of at most {bound:,.0f}")
    return [
        f"{name} has {size:,}, more than {bound:,.0f}"
        for name, (size, bound) in bounds.items()
        if size > bound
    ]


if __name__ == "__main__":
    wanted = arguments()
    with guard(MPI.COMM_WORLD):  # a failing rank ends the others
        sys.exit(main(wanted, MPI.COMM_WORLD))
