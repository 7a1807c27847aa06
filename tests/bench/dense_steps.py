"""Mini-batch steps of two dense networks beside PyTorch, on 1 and 2 threads: gather and normalise,
forward, loss, backward, update.

python tests/bench/dense_steps.py [--rounds 9] [--seconds 0.3]     JSON lines, then a table
"""

import statistics

import floors
import harness
from ensync_side import make_trainee, runner, with_threads
from mpi4py import MPI

CASES = [((784, 100, 100, 10), 32), ((784, 512, 256, 10), 128)]
TARGETS = {32: 2.0, 128: 1.5}  # times PyTorch, by batch


def ensync(sizes: tuple[int, ...], batch: int, optimizer: str, count: int) -> harness.Run:
    """Return our side with so many threads."""
    return with_threads(runner(make_trainee(MPI.COMM_SELF, sizes, batch, optimizer)), count)


def torch_run(
    sizes: tuple[int, ...], batch: int, optimizer: str, count: int
) -> tuple[str, harness.Run]:
    """Return the name of the fastest form and PyTorch's side with so many threads."""
    import torch
    import torch_side

    torch.set_num_threads(count)
    how, run = torch_side.best_runner(sizes, batch, optimizer)
    return how, torch_side.with_threads(run, count)


def measure(
    sizes: tuple[int, ...],
    batch: int,
    optimizer: str,
    counts: list[int],
    rounds: int,
    seconds: float,
) -> list[dict[str, object]]:
    """Return one record per number of threads."""
    contestants: dict[str, harness.Run] = {
        f"ensync {count}": ensync(sizes, batch, optimizer, count) for count in counts
    }
    optimisers = {}
    if harness.torch_is_here():
        for count in counts:
            optimisers[count], contestants[f"torch {count}"] = torch_run(
                sizes, batch, optimizer, count
            )
    times = harness.interleave(contestants, rounds, seconds)
    records = []
    for count in counts:
        ours = statistics.median(times[f"ensync {count}"])
        record: dict[str, object] = {
            "network": "-".join(map(str, sizes)),
            "batch": batch,
            "optimizer": optimizer,
            "threads": count,
            "ensync_us": 1e6 * ours,
            "samples_per_second": batch / ours,
            "gflops": batch * harness.operations(sizes) / ours / 1e9,
        }
        if count in optimisers:
            theirs = times[f"torch {count}"]
            record |= {
                "torch_us": 1e6 * statistics.median(theirs),
                "ratio": harness.median_ratio(theirs, times[f"ensync {count}"]),
                "to_reach": TARGETS[batch],
                "torch_form": optimisers[count],
            }
        records.append(record)
        harness.emit(record)
    return records


def main() -> None:
    """Measure every case and print the table."""
    options = harness.arguments(__doc__, 9, 0.3).parse_args()
    counts = harness.begin()
    rows = [
        row
        for sizes, batch in CASES
        for optimizer in ("adam", "sgd")
        for row in measure(sizes, batch, optimizer, counts, options.rounds, options.seconds)
    ]
    harness.table(
        "Mini-batch steps beside PyTorch (medians of interleaved rounds; ratio: times faster)", rows
    )
    floors.report([(sizes, batch) for sizes, batch in CASES], counts)
    harness.keep(options.to, rows, ("network", "batch", "optimizer", "threads"))


if __name__ == "__main__":
    main()
