"""What random changes of images cost beside a training step: microseconds an image, and the share
of a step that they add.

python tests/bench/image_changes.py [--only resnet-20] [--batch 128] [--rounds 5] [--seconds 0.3]
Medians over interleaved rounds; changes are drawn anew for each image, as in training. The cost is
that of a loaded batch less that of one whose images are left as they are.
"""

import statistics
from collections.abc import Callable

import harness
import image_networks
import numpy as np
from ensync_side import runner

from ensync.core.config.augmentation import Augmentation
from ensync.kernels import threads
from ensync.mpi.world import world
from ensync.training.batches import augmenter_of
from ensync.training.trainer import Trainer

CHANGES = {
    "flip, crop": {"flip": True, "crop": 4},
    "turn": {"flip": True, "rotation": 20.0, "shift": 0.2},
    "erasing": {"flip": True, "crop": 4, "erasing": 0.5},
    "rand_augment 1": {"rand_augment": 1},
    "rand_augment 2": {"rand_augment": 2},
}


def loader_of(trainer: Trainer, changes: dict) -> Callable[[int], None]:
    """Return what loads so many batches, changed."""
    shape, batch = trainer.network.shape, trainer.job.training.batch
    augmenter = augmenter_of(Augmentation(**changes), 1, 0, shape, 0)
    rows = np.random.default_rng(0).permutation(len(trainer.rows))[:batch]
    out = np.empty((batch, trainer.network.inputs.shape[1]), trainer.network.inputs.dtype)

    def load(steps: int) -> None:
        for _ in range(steps):
            trainer.loader.load(rows, out, augmenter)

    return load


def main() -> None:
    """Measure all networks, on as many threads as there are cores, two at most."""
    parser = harness.arguments(__doc__, 5, 0.3)
    parser.add_argument("--only", nargs="*", help="networks")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16"])
    options, comm, rows = parser.parse_args(), world(), []
    count = harness.begin()[-1]
    threads.set_threads(count)
    for case in image_networks.ZOO:
        if options.only and case.name not in options.only:
            continue
        trainer = image_networks.make_trainee(comm, case.at(options.batch), options.precision)
        contestants = {"step": runner(trainer), "plain": loader_of(trainer, {})}
        contestants |= {name: loader_of(trainer, each) for name, each in CHANGES.items()}
        found = harness.interleave(contestants, options.rounds, options.seconds, warm=3)
        times = {name: statistics.median(each) for name, each in found.items()}
        for name in CHANGES:
            added = max(0.0, times[name] - times["plain"])
            row = {"network": case.name, "batch": options.batch, "threads": count}
            row |= {"changes": name, "us_an_image": 1e6 * added / options.batch}
            rows.append(row | {"percent_of_a_step": 100 * added / times["step"]})
            harness.emit(rows[-1])
    harness.table("Changes of images beside a step", rows)


if __name__ == "__main__":
    main()
