"""Steps on two threads, on one, and on the number that the program chooses, where 0, 1 and 2 other
programs are busy.

python tests/bench/busy_cores.py [--rounds 2] [--seconds 3] [--busy 0 1 2]     JSON lines, then a
table Choices that were measured and left (784-256-128-10, batch 128, ms a step on two threads, idle
/ beside one busy program; on one thread 0.63 / 0.63; Zen 5, 2026-11-28): OpenMP's own way of
waiting 0.36 / 1.2-2.0, GOMP_SPINCOUNT=20000 0.36 / 1.95, GOMP_SPINCOUNT=1000 1.14 / 1.08,
OMP_WAIT_POLICY=passive 0.81 / 1.12, numba's workqueue 1.18 / 2.29, its tbb 0.67 / 1.32. Each waits
for a thread that does not run, so the number of threads is what is changed.
"""

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import harness
from ensync_side import make_trainee, runner
from image_networks import CASES
from image_networks import make_trainee as make_image_trainee

from ensync.kernels import threads
from ensync.kernels.thread_tuner import ThreadTuner
from ensync.mpi.world import alone
from ensync.training.trainer import Trainer

DENSE = [((784, 256, 128, 10), 128), ((784, 100, 100, 10), 32), ((784, 2048, 1024, 10), 128)]


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many other programs busy while the block runs."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def contestants(trainer: Trainer) -> dict[str, harness.Run]:
    """Return what trains on two threads, on one, and on those of a tuner that starts anew each
    time.
    """
    run = runner(trainer)

    def fixed(count: int) -> harness.Run:
        def train(steps: int) -> None:
            threads.set_threads(count)
            trainer.tuner = None
            run(steps)

        return train

    def tuned(steps: int) -> None:
        threads.set_threads(2)
        with ThreadTuner(lambda sentence: None) as trainer.tuner:
            run(steps)

    return {"two_ms": fixed(2), "one_ms": fixed(1), "chosen_ms": tuned}


def networks() -> Iterator[tuple[str, Trainer]]:
    """Yield each network with its name."""
    threads.set_threads(2)  # scratch is made for so many
    for sizes, batch in DENSE:
        yield "-".join(map(str, sizes)), make_trainee(alone(), sizes, batch, "adam")
    for case in CASES:
        if case.name in ("resnet-20", "parashar-cnn"):
            threads.set_threads(2)
            yield case.name, make_image_trainee(alone(), case, "float32")


def main() -> None:
    """Measure every network beside every number of busy programs."""
    parser = harness.arguments(__doc__, rounds=2, seconds=3.0)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    if 2 not in harness.begin():
        return
    rows = []
    for name, trainer in networks():
        for count in given.busy:
            with busy(count):
                times = harness.interleave(contestants(trainer), given.rounds, given.seconds)
            means = {key: 1e3 * statistics.mean(values) for key, values in times.items()}
            best = min(means["two_ms"], means["one_ms"])
            rows.append(
                {
                    "network": name,
                    "busy": count,
                    **means,
                    "chosen_over_best": means["chosen_ms"] / best,
                }
            )
            harness.emit(rows[-1])
    harness.table("milliseconds a step beside busy programs", rows)
    harness.keep(given.to, rows, ("network", "busy"))


if __name__ == "__main__":
    main()
