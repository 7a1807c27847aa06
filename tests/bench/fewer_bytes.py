"""Steps whose gradients are compressed, or summed while they are computed, beside plain ones, on
hosts with links of a known speed.

mpirun -hosts h1,h2 -n 2 python tests/bench/fewer_bytes.py --gigabits 1 [--network parashar-cnn]

prints a JSON line for each: bytes that a rank passes on in a step, their floor in milliseconds at
that speed, the median milliseconds of a step, and the median of its ratios to the plain step of the
same round. Each rank computes on one thread.
"""

import argparse
import json
import os
import statistics
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as ensync has it

import numpy as np
from image_networks import CASES, make_trainee

from ensync.core.config.communication import Communication
from ensync.kernels.threads import set_threads
from ensync.mpi.world import Comm, mpi_description, world
from ensync.training.trainer import Trainer

PLAIN = "plain"
WARM = 6  # steps before the first that counts
WAYS = {
    PLAIN: Communication(overlap=False),
    "overlap": Communication(overlap=True),
    "bf16": Communication(compression="bf16"),
    "int8": Communication(compression="int8"),
    "powersgd": Communication(compression="powersgd", compression_start=0.0),
    "topk": Communication(compression="topk", compression_start=0.0),
}


def step(comm: Comm, trainer: Trainer) -> float:
    """Return the milliseconds of a step, the slowest rank's."""
    comm.Barrier()
    begin = time.perf_counter()
    trainer.train(1)
    if trainer.epoch_done:
        trainer.close_epoch()
    return max(comm.allgather(1e3 * (time.perf_counter() - begin)))


def figures(trainer: Trainer, name: str, steps: int, gigabits: float) -> dict[str, object]:
    """Return what a way sent in so many steps, and its floor."""
    sent = trainer.reducer.bytes / steps
    floor = 8e-6 * sent / gigabits
    said = trainer.reducer.notes
    return {"way": name, "bytes": round(sent), "floor_ms": round(floor, 1), "notes": said}


def main() -> None:
    """Interleave all ways, a step each in a round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="parashar-cnn", choices=[c.name for c in CASES])
    parser.add_argument("--gigabits", type=float, default=1.0, help="a second, of each link")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default=",".join(WAYS), help="ways, comma-separated")
    given = parser.parse_args()
    set_threads(1)
    comm, case = world(), next(c for c in CASES if c.name == given.network)
    trainers = {
        name: make_trainee(comm, case, "float32", communication=WAYS[name])
        for name in dict.fromkeys([PLAIN, *given.only.split(",")])
    }
    for trainer in trainers.values():
        for _ in range(WARM):
            step(comm, trainer)
    rounds = [
        {name: step(comm, trainer) for name, trainer in trainers.items()}
        for _ in range(given.rounds)
    ]
    if comm.rank == 0:
        print(json.dumps({"mpi": mpi_description(), "ranks": comm.size, "network": case.name}))
    for name, trainer in trainers.items():
        taken = figures(trainer, name, WARM + given.rounds, given.gigabits)
        taken["step_ms"] = round(statistics.median(each[name] for each in rounds), 1)
        ratios = np.array([each[name] / each[PLAIN] for each in rounds])
        taken["to_plain"] = round(float(np.median(ratios)), 3)
        if comm.rank == 0:
            print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main()
