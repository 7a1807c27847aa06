"""Training steps of convolutional networks beside PyTorch in its faster memory format, float32 and
bf16 (its autocast), on 1 and 2 threads.

python tests/bench/convolutional_steps.py [--rounds 3] [--seconds 0.8] [--only NAME]     JSON lines,
then a table The floor is the steps' plain arithmetic at today's multiply-add peak; Winograd's
algorithm may pass below it.
"""

import statistics

import harness
from ensync_side import runner, with_threads
from image_networks import CASES, Case, make_torch_network, make_trainee, torch_runner
from mpi4py import MPI
from peaks import multiply_add_peak

from ensync.kernels import threads
from ensync.kernels.simd.host import bf16_missing

TRIED = 3  # steps of each memory format, to find the faster one


def ensync(case: Case, precision: str, count: int) -> tuple[harness.Run, float]:
    """Return our side with so many threads, and the operations of a step."""
    threads.set_threads(count)  # scratch is made for the threads of now
    trainer = make_trainee(MPI.COMM_SELF, case, precision)
    layers = zip(trainer.network.layers, trainer.network.shapes, strict=True)
    return with_threads(runner(trainer), count), 6.0 * case.batch * sum(
        layer.operations(shape) for layer, shape in layers
    )


def torch(case: Case, autocast: bool, count: int) -> tuple[harness.Run, str]:
    """Return PyTorch's side with so many threads, in the faster memory format, and that format."""
    import torch
    import torch_side

    torch.set_num_threads(count)
    trials = {}
    for channels_last in (True, False):
        run = torch_runner(case, make_torch_network(case), channels_last, autocast)
        run(2)
        trials[channels_last] = min(harness.seconds_per_step(run, 1) for _ in range(TRIED)), run
    best = min(trials, key=lambda key: trials[key][0])
    return torch_side.with_threads(
        trials[best][1], count
    ), "channels last" if best else "channels first"


def measure(case: Case, count: int, rounds: int, seconds: float) -> list[dict[str, object]]:
    """Return one record per precision."""
    precisions = ["float32"] if bf16_missing() else ["float32", "bf16"]
    contestants, formats, work = {}, {}, 0.0
    for precision in precisions:
        contestants[f"ensync {precision}"], work = ensync(case, precision, count)
        if harness.torch_is_here():
            contestants[f"torch {precision}"], formats[precision] = torch(
                case, precision == "bf16", count
            )
    times = harness.interleave(contestants, rounds, seconds, warm=1)
    records = []
    for precision in precisions:
        ours = statistics.median(times[f"ensync {precision}"])
        record: dict[str, object] = {
            "network": case.name,
            "batch": case.batch,
            "precision": precision,
            "threads": count,
            "ensync_ms": 1e3 * ours,
            "gflops": work / ours / 1e9,
            "floor_ms": 1e3 * work / multiply_add_peak(count) / 1e9,
        }
        if formats:
            theirs = times[f"torch {precision}"]
            record |= {
                "torch_ms": 1e3 * statistics.median(theirs),
                "ratio": harness.median_ratio(theirs, times[f"ensync {precision}"]),
                "ratio_to_float32": harness.median_ratio(
                    times["torch float32"], times[f"ensync {precision}"]
                ),
                "to_reach": case.to_reach.get(precision),
                "torch_format": formats[precision],
            }
        records.append(record)
        harness.emit(record)
    return records


def main() -> None:
    """Measure every case and print the table."""
    parser = harness.arguments(__doc__, 3, 0.8)
    parser.add_argument("--only", help="one network")
    options = parser.parse_args()
    counts = harness.begin()
    cases = [case for case in CASES if options.only in (None, case.name)]
    rows = [
        row
        for case in cases
        for count in counts
        for row in measure(case, count, options.rounds, options.seconds)
    ]
    harness.table(
        "Steps of convolutional networks beside PyTorch (medians of interleaved rounds; ratio: "
        "times faster than the same precision, "
        "to_reach: than its float32)",
        rows,
    )


if __name__ == "__main__":
    main()
