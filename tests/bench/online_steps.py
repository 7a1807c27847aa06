"""One sample per step, 784-100-100-10 with tanh and squared error, beside PyTorch on 1 and 2
threads.

python tests/bench/online_steps.py [--rounds 9] [--seconds 0.3] [--wide]     JSON lines, then a
table; --wide adds 784-1000-500-10
"""

import statistics

import floors
import harness
from ensync_side import make_trainee, runner, with_threads
from mpi4py import MPI

SIZES, WIDE = (784, 100, 100, 10), (784, 1000, 500, 10)
TARGET = 20.0  # times PyTorch


def contestants(sizes: tuple[int, ...], counts: list[int]) -> dict[str, harness.Run]:
    """Return both sides on each number of threads."""
    runs: dict[str, harness.Run] = {}
    ours = runner(make_trainee(MPI.COMM_SELF, sizes, 1, "sgd", online=True))

    for count in counts:
        runs[f"ensync {count}"] = with_threads(ours, count)
    if harness.torch_is_here():
        import torch_side

        for count in counts:
            runs[f"torch {count}"] = torch_side.with_threads(
                torch_side.best_runner(sizes, 1, "sgd", online=True)[1], count
            )
    return runs


def measure(
    sizes: tuple[int, ...], counts: list[int], rounds: int, seconds: float
) -> list[dict[str, object]]:
    """Return one record per number of threads; the ratio is to PyTorch's better number of
    threads.
    """
    runs = contestants(sizes, counts)
    times = harness.interleave(runs, rounds, seconds)
    best = min(
        (n for n in runs if n.startswith("torch")),
        key=lambda n: statistics.median(times[n]),
        default=None,
    )
    records = []
    for count in counts:
        mine = times[f"ensync {count}"]
        ours = statistics.median(mine)
        record: dict[str, object] = {
            "network": "-".join(map(str, sizes)),
            "threads": count,
            "ensync_us": 1e6 * ours,
            "seconds_per_60000": 60000 * ours,
            "gflops": harness.operations(sizes) / ours / 1e9,
        }
        if best:
            record |= {
                "torch_us": 1e6 * statistics.median(times[f"torch {count}"]),
                "ratio": harness.median_ratio(times[f"torch {count}"], mine),
                "ratio_to_best": harness.median_ratio(times[best], mine),
                "to_reach": TARGET,
            }
        records.append(record)
        harness.emit(record)
    return records


def main() -> None:
    """Measure and print the table."""
    parser = harness.arguments(__doc__, 9, 0.3)
    parser.add_argument("--wide", action="store_true", help="also 784-1000-500-10")
    options = parser.parse_args()
    counts = harness.begin()
    networks = [SIZES, WIDE] if options.wide else [SIZES]
    rows = [
        row for sizes in networks for row in measure(sizes, counts, options.rounds, options.seconds)
    ]
    harness.table(
        "One sample per step beside PyTorch (medians of interleaved rounds; ratio: times faster)",
        rows,
    )
    floors.report([(sizes, 1) for sizes in networks], counts)
    harness.keep(options.to, rows, ("network", "threads"))


if __name__ == "__main__":
    main()
