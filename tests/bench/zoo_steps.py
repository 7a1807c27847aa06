"""Training steps of the zoo's networks beside PyTorch at its best: the faster memory format, and
compiled (torch.compile) where that is faster still; float32, and bf16 beside its autocast.

python tests/bench/zoo_steps.py [--rounds 3] [--seconds 0.8] [--only NAME] [--batch 32 128 512]
    [--threads 1 2] [--precision float32 bf16] [--eager] [--to jobs/results/speed/zoo_steps.json]
JSON lines, then a table, then what lies below twice PyTorch's speed beside the floors of its
arithmetic and of its bytes.

One network at one batch takes under a minute, once its compiled program is in PyTorch's cache
(TORCHINDUCTOR_CACHE_DIR).
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import harness
from ensync_side import runner, with_threads
from image_networks import ZOO, Case, make_job, make_torch_network, make_trainee, torch_runner
from mpi4py import MPI
from peaks import copy_bandwidth, multiply_add_peak

from ensync.kernels import threads
from ensync.kernels.simd.bf16_gain import bf16_gain
from ensync.kernels.simd.host import bf16_missing
from ensync.nn.memory import counted
from ensync.nn.models import zoo

TRIED = 3  # steps of each of PyTorch's forms, to find the fastest
ENOUGH = 2.0  # times as fast as PyTorch: what lies below is explained
PARAMETER_PASSES = 10  # forward, backward, gradient (2), parameters (2) and two moments (4)


def ensync(case: Case, precision: str, count: int) -> tuple[harness.Run, dict[str, float]]:
    """Return our side with so many threads, and the floors of a step in milliseconds."""
    threads.set_threads(count)  # scratch is made for the threads of now
    run = runner(make_trainee(MPI.COMM_SELF, case, precision))
    return with_threads(run, count), floors(case, precision, count)


def floors(case: Case, precision: str, count: int) -> dict[str, float]:
    """Return the milliseconds of the plain arithmetic at the peak (in bf16: float32's times what a
    product gains, measured), and of the bytes at the speed of copying: each buffer of the layers
    written and read once, and the parameters as Adam takes them.
    """
    with counted() as buffers:
        network = zoo.build(make_job(case, precision), case.shape, 10, case.batch)
    layers = zip(network.layers, network.shapes, strict=True)
    work = 6.0 * case.batch * sum(layer.operations(shape) for layer, shape in layers)
    peak = multiply_add_peak(count) * (bf16_gain() if precision == "bf16" else 1)
    others = [network.parameters, network.message, *network.workspace.arrays.values()]
    stored = buffers.bytes - sum(array.nbytes for array in others)
    moved = 2 * stored * case.batch / network.rows + PARAMETER_PASSES * network.parameters.nbytes
    return {
        "arithmetic_ms": 1e-6 * work / peak,
        "bytes_ms": 1e-6 * moved / copy_bandwidth(count),
    }


def torch(case: Case, autocast: bool, count: int, eager: bool) -> tuple[harness.Run, str]:
    """Return PyTorch's side with so many threads, in its fastest form, and that form; `eager`:
    without trying to compile.
    """
    import torch
    import torch_side

    torch.set_num_threads(count)
    formats = (True, False) if case.is_convolutional else (False,)
    trials = {_format_name(last): _trial(case, last, autocast) for last in formats}
    if not eager:
        last = min(trials, key=lambda name: trials[name][0]) == _format_name(True)
        try:
            trials[_format_name(last) + ", compiled"] = _trial(case, last, autocast, torch.compile)
        except torch._dynamo.exc.TorchDynamoException as error:
            harness.emit({"compiled": None, "why": str(error).strip().splitlines()[0]})
    best = min(trials, key=lambda name: trials[name][0])
    return torch_side.with_threads(trials[best][1], count), best


def _format_name(channels_last: bool) -> str:
    return "channels last" if channels_last else "channels first"


def _trial(
    case: Case, channels_last: bool, autocast: bool, compiler: Callable | None = None
) -> tuple[float, harness.Run]:
    """Return the shortest time of a step of one of PyTorch's forms, and what runs it."""
    run = torch_runner(case, make_torch_network(case), channels_last, autocast, compiler=compiler)
    run(2)
    return min(harness.seconds_per_step(run, 1) for _ in range(TRIED)), run


def measure(case: Case, count: int, options: argparse.Namespace) -> list[dict[str, object]]:
    """Return one record per precision."""
    contestants, forms, least = {}, {}, {}
    for precision in options.precision:
        contestants[f"ensync {precision}"], least[precision] = ensync(case, precision, count)
        if harness.torch_is_here():
            contestants[f"torch {precision}"], forms[precision] = torch(
                case, precision == "bf16", count, options.eager
            )
    times = harness.interleave(contestants, options.rounds, options.seconds, warm=1)
    records = []
    for precision in options.precision:
        record: dict[str, object] = {
            "network": case.name,
            "batch": case.batch,
            "precision": precision,
            "threads": count,
            "ensync_ms": 1e3 * statistics.median(times[f"ensync {precision}"]),
        }
        if forms:
            theirs = times[f"torch {precision}"]
            record |= {
                "torch_ms": 1e3 * statistics.median(theirs),
                "ratio": harness.median_ratio(theirs, times[f"ensync {precision}"]),
                "to_reach": case.to_reach,
                "torch_form": forms[precision],
            }
        records.append(record | least[precision])
        harness.emit(records[-1])
    return records


def explain(rows: list[dict[str, Any]]) -> None:
    """Print how far what lies below ENOUGH is from its floor, the higher of the two."""
    below = []
    for row in rows:
        if row.get("ratio", ENOUGH) < ENOUGH:
            arithmetic, moved = row["arithmetic_ms"], row["bytes_ms"]
            below.append(
                {key: row[key] for key in ("network", "batch", "precision", "threads", "ratio")}
                | {
                    "arithmetic_share": arithmetic / row["ensync_ms"],
                    "bytes_share": moved / row["ensync_ms"],
                    "torch_share_of_floor": max(arithmetic, moved) / row["torch_ms"],
                    "bound": "arithmetic" if arithmetic > moved else "bytes",
                }
            )
    harness.table(
        f"Below {ENOUGH:g} times: the floors of arithmetic (plain: Winograd's may pass below it) "
        "and of bytes, over our step; the higher one over PyTorch's",
        below,
    )


def parse() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = harness.arguments(__doc__, 3, 0.8)
    parser.add_argument("--only", help="one network", choices=[case.name for case in ZOO])
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1, and 2 of two cores")
    parser.add_argument("--precision", nargs="+", default=["float32", "bf16"])
    parser.add_argument("--eager", action="store_true", help="do not try torch.compile")
    return parser.parse_args()


def main() -> None:
    """Measure what is chosen and print the tables."""
    options = parse()
    counts = harness.begin()
    for count in options.threads or counts:  # before PyTorch sets threads of the same library
        multiply_add_peak(count), copy_bandwidth(count)
    if bf16_missing():
        options.precision.remove("bf16")
    if not options.eager and harness.torch_is_here() and not harness.cpp_compiler():
        options.eager = True
        harness.emit({"compiled": None, "why": "no C++ compiler, which torch.compile needs"})
    rows = [
        row
        for case in ZOO
        if options.only in (None, case.name)
        for batch in options.batch
        for count in options.threads or counts
        for row in measure(case.at(batch), count, options)
    ]
    shown = [{k: v for k, v in row.items() if not k.endswith("s_ms")} for row in rows]
    harness.table(
        "Steps beside PyTorch at its fastest (medians of interleaved rounds; ratio: times faster "
        "than the same precision)",
        shown,
    )
    explain(rows)
    harness.keep(options.to, rows, ("network", "batch", "threads", "precision"))


if __name__ == "__main__":
    main()
