"""Evaluation of convolutional networks beside PyTorch's forward pass (eval mode, no_grad, eager) in
its faster memory format, float32 and bf16 (its autocast), on 1 and 2 threads.

python tests/bench/evaluation.py [--rounds 3] [--seconds 0.8] [--only NAME] [--batch N]     JSON
lines, then a table. Both sides gather, normalise, go forward, sum the loss and count right answers.
"""

import statistics

import harness
from ensync_side import with_threads
from image_networks import CASES, Case, images_and_labels, make_torch_network, make_trainee
from mpi4py import MPI

from ensync.kernels import threads
from ensync.kernels.simd.host import bf16_missing
from ensync.training.batches import BatchLoader
from ensync.training.evaluation import evaluate_block

EVALUATED = 512  # images in a pass, at most
TRIED = 1  # passes in each memory format, to find the faster one


def ensync(case: Case, precision: str, count: int) -> harness.Run:
    """Return our passes over the images with so many threads."""
    threads.set_threads(count)  # scratch is made for the threads of now
    trainee = make_trainee(MPI.COMM_SELF, case, precision)
    whole = trainee.loader
    loader = BatchLoader(whole.images, whole.labels[:EVALUATED], whole.mean, whole.inverse_std)

    def run(passes: int) -> None:
        for _ in range(passes):
            evaluate_block(trainee.network, loader, 1, 0, False)

    return with_threads(run, count)


def torch(case: Case, autocast: bool, count: int) -> harness.Run:
    """Return PyTorch's passes with so many threads, in the faster memory format."""
    import torch
    import torch_side

    torch.set_num_threads(count)
    trials = {}
    for layout in (torch.channels_last, torch.contiguous_format):
        run = torch_passes(case, layout, autocast)
        run(1)
        trials[min(harness.seconds_per_step(run, 1) for _ in range(TRIED))] = run
    return torch_side.with_threads(trials[min(trials)], count)


def torch_passes(case: Case, layout, autocast: bool) -> harness.Run:
    """Return what evaluates the images so many times, `batch` at a time."""
    import torch

    pixels, classes = images_and_labels(case)
    height, width, channels = case.shape
    images = torch.from_numpy(pixels[:EVALUATED]).reshape(-1, height, width, channels)
    images = images.permute(0, 3, 1, 2).contiguous(memory_format=layout)
    labels = torch.from_numpy(classes[:EVALUATED])
    network = make_torch_network(case).to(memory_format=layout).eval()

    @torch.no_grad()
    def run(passes: int) -> None:
        for _ in range(passes):
            for first in range(0, len(labels), case.batch):
                part, right = images[first : first + case.batch], labels[first : first + case.batch]
                inputs = part.to(torch.float32).sub_(127.5).mul_(1 / 74)
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    outputs = network(inputs)
                torch.nn.functional.cross_entropy(outputs, right, reduction="sum").item()
                (outputs.argmax(1) == right).sum().item()
                outputs.softmax(1)

    return run


def measure(case: Case, count: int, rounds: int, seconds: float) -> list[dict[str, object]]:
    """Return one record per precision."""
    precisions = ["float32"] if bf16_missing() else ["float32", "bf16"]
    images = len(images_and_labels(case)[1][:EVALUATED])
    contestants = {}
    for precision in precisions:
        contestants[f"ensync {precision}"] = ensync(case, precision, count)
        if harness.torch_is_here():
            contestants[f"torch {precision}"] = torch(case, precision == "bf16", count)
    times = harness.interleave(contestants, rounds, seconds, warm=1)
    records = []
    for precision in precisions:
        ours = times[f"ensync {precision}"]
        record: dict[str, object] = {
            "network": case.name,
            "batch": case.batch,
            "precision": precision,
            "threads": count,
            "images_per_second": images / statistics.median(ours),
        }
        if theirs := times.get(f"torch {precision}"):
            record |= {
                "torch_images_per_second": images / statistics.median(theirs),
                "ratio": harness.median_ratio(theirs, ours),
            }
        records.append(record)
        harness.emit(record)
    return records


def main() -> None:
    """Measure every case and print the table."""
    parser = harness.arguments(__doc__, 3, 0.8)
    parser.add_argument("--only", help="one network")
    parser.add_argument("--batch", type=int, default=128, help="images at once")
    options = parser.parse_args()
    counts = harness.begin()
    cases = [case for case in CASES if options.only in (None, case.name)]
    rows = [
        row
        for case in cases
        for count in counts
        for row in measure(case.at(options.batch), count, options.rounds, options.seconds)
    ]
    harness.table(
        "Evaluation of convolutional networks beside PyTorch's forward pass (medians of "
        "interleaved rounds; ratio: times faster than the same precision)",
        rows,
    )
    harness.keep(options.to, rows, ("network", "batch", "threads", "precision"))


if __name__ == "__main__":
    main()
