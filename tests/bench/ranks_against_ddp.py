"""Two ranks of one thread against PyTorch's DistributedDataParallel (gloo) on two processes of one
thread, and against one rank.

python tests/bench/ranks_against_ddp.py [--rounds 3] [--seconds 1.5]     JSON lines, then a table;
the global batch is fixed
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import harness

OPTIMIZER = "adam"
WINDOWS = 5  # timed stretches within one start


@dataclass(frozen=True)
class Contest:
    """A dense network by its sizes or a convolutional one by its name; to_reach: times faster than
    DDP.

    synchronised: our batch normalisation is over all ranks, with two more sums per layer; DDP's is
    always each process' own.
    """

    network: tuple[int, ...] | str
    batch: int
    to_reach: float
    synchronised: bool = False

    @property
    def name(self) -> str:
        """For the table."""
        return self.network_name + ", normalised over ranks" * self.synchronised

    @property
    def network_name(self) -> str:
        """What both sides train."""
        return self.network if isinstance(self.network, str) else "-".join(map(str, self.network))


CONTESTS = [
    Contest((784, 100, 100, 10), 32, 4.0),
    Contest((784, 512, 256, 10), 128, 4.0),
    Contest("parashar-cnn", 32, 2.0),
    Contest("minixception", 32, 2.0),
    Contest("minixception", 32, 2.0, synchronised=True),
]


def steps_of_window(seconds_per_step: float, seconds: float) -> int:
    """Return how many steps fill one window."""
    return max(2, int(seconds / WINDOWS / seconds_per_step))


def image_case(contest: Contest):
    """Return the convolutional network of a contest."""
    from image_networks import CASES

    return next(case for case in CASES if case.name == contest.network)


def our_runner(contest: Contest, comm) -> harness.Run:
    """Return our side of a contest. Collective."""
    import ensync_side
    import image_networks

    if isinstance(contest.network, str):
        batch_norm = "synchronised" if contest.synchronised else "local"
        return ensync_side.runner(
            image_networks.make_trainee(comm, image_case(contest), "float32", batch_norm)
        )
    return ensync_side.runner(
        ensync_side.make_trainee(comm, contest.network, contest.batch, OPTIMIZER)
    )


def torch_contestant(contest: Contest, rank: int, size: int) -> harness.Run:
    """Return PyTorch's side of a contest, within DDP where there are several processes; channels
    last, its faster format for separable convolutions.
    """
    import image_networks
    import torch
    import torch_side

    images = isinstance(contest.network, str)
    plain = (
        image_networks.make_torch_network(image_case(contest))
        if images
        else torch_side.make_network(contest.network)
    )
    if images:
        plain = plain.to(memory_format=FORMATS[contest.network](torch))
    network = torch.nn.parallel.DistributedDataParallel(plain) if size > 1 else plain
    if images:
        return image_networks.torch_runner(
            image_case(contest),
            network,
            FORMATS[contest.network](torch) == torch.channels_last,
            False,
            slice(rank * contest.batch // size, (rank + 1) * contest.batch // size),
        )
    optimizer = torch_side.make_optimizer(network, OPTIMIZER, "fused")
    return torch_side.runner(
        network, contest.network, contest.batch, optimizer, rank=rank, size=size
    )


# The faster memory formats of zoo_steps.py's trials.
FORMATS = {
    "parashar-cnn": lambda torch: torch.contiguous_format,
    "minixception": lambda torch: torch.channels_last,
}


def ensync_ranks(seconds: float) -> None:
    """Measure every contest on the ranks of mpirun; rank 0 prints milliseconds per step of each
    window.
    """
    from ensync.kernels import threads
    from ensync.mpi.world import world

    comm = world()
    threads.set_threads(1)
    for contest in CONTESTS:
        run = our_runner(contest, comm)
        run(4)
        steps = comm.bcast(steps_of_window(harness.seconds_per_step(run, 4), seconds))
        windows = []
        for _ in range(WINDOWS):
            comm.Barrier()
            windows.append(1e3 * harness.seconds_per_step(run, steps))
        if comm.rank == 0:
            print(json.dumps({"contest": contest.name, "windows": windows}), flush=True)


def torch_process(rank: int, size: int, port: int, seconds: float) -> None:
    """Measure every network in one process of DDP (or plain PyTorch when alone)."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size
    )
    for contest in (c for c in CONTESTS if not c.synchronised):
        run = torch_contestant(contest, rank, size)
        run(4)
        steps = torch.tensor(steps_of_window(harness.seconds_per_step(run, 4), seconds))
        dist.broadcast(steps, 0)
        windows = []
        for _ in range(WINDOWS):
            dist.barrier()
            windows.append(1e3 * harness.seconds_per_step(run, int(steps)))
        if rank == 0:
            print(json.dumps({"contest": contest.name, "windows": windows}), flush=True)
    dist.destroy_process_group()


def mpirun() -> str:
    """Return the launcher of this environment's MPI, else the site's."""
    beside = Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.exists() else shutil.which("mpirun") or "mpirun"


def start_ensync(ranks: int, seconds: float) -> list[dict[str, object]]:
    """Run our side on so many ranks and return its lines."""
    return _lines(
        [
            [
                mpirun(),
                "-n",
                str(ranks),
                sys.executable,
                __file__,
                "--role",
                "ensync",
                "--seconds",
                str(seconds),
            ]
        ]
    )


def start_torch(processes: int, seconds: float) -> list[dict[str, object]]:
    """Run PyTorch on so many processes and return the lines of the first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    role = [
        sys.executable,
        __file__,
        "--role",
        "torch",
        "--seconds",
        str(seconds),
        "--port",
        str(port),
        "--size",
        str(processes),
        "--rank",
    ]
    return _lines([[*role, str(rank)] for rank in range(processes)])


def _lines(commands: list[list[str]]) -> list[dict[str, object]]:
    environment = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for command in commands
    ]
    texts = [process.communicate(timeout=600)[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{commands[0]} ended with {[process.returncode for process in started]}")
    return [json.loads(line) for line in texts[0].splitlines() if line.startswith("{")]


def measure(rounds: int, seconds: float) -> list[dict[str, object]]:
    """Start the contestants in turn, round by round; return one record per case."""
    starts = {
        "ensync 1": lambda: start_ensync(1, seconds),
        "ensync 2": lambda: start_ensync(2, seconds),
    }
    if harness.torch_is_here():
        starts |= {
            "torch 1": lambda: start_torch(1, seconds),
            "torch 2": lambda: start_torch(2, seconds),
        }
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in starts}
    for _ in range(rounds):
        for name, start in starts.items():
            for line in start():
                times[name][line["contest"]].append(statistics.median(line["windows"]))
    return [
        record(
            contest,
            {
                name: rows[contest.name if name.startswith("ensync") else contest.network_name]
                for name, rows in times.items()
            },
        )
        for contest in CONTESTS
    ]


def record(contest: Contest, times: dict[str, list[float]]) -> dict[str, object]:
    """Return the figures of a contest from its milliseconds per step, round by round."""
    figures: dict[str, object] = {"network": contest.name, "global_batch": contest.batch}
    figures |= {
        f"{name.replace(' ', '_')}_ms": statistics.median(rows) for name, rows in times.items()
    }
    figures["speed_up_2_ranks"] = harness.median_ratio(times["ensync 1"], times["ensync 2"])
    if "torch 2" in times:
        figures["ddp_speed_up"] = harness.median_ratio(times["torch 1"], times["torch 2"])
        figures["ratio_to_ddp"] = harness.median_ratio(times["torch 2"], times["ensync 2"])
        figures["to_reach"] = contest.to_reach
    harness.emit(figures)
    return figures


def main() -> None:
    """Measure and print, or play one role when started by ourselves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one case in one start")
    harness.add_to(parser)
    parser.add_argument("--role", choices=["ensync", "torch"], help=argparse.SUPPRESS)
    for name in ("--rank", "--size", "--port"):
        parser.add_argument(name, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "ensync":
        return ensync_ranks(options.seconds)
    if options.role == "torch":
        return torch_process(options.rank, options.size, options.port, options.seconds)
    harness.emit(harness.environment())
    rows = measure(options.rounds, options.seconds)
    harness.table(
        "Two ranks x 1 thread beside DDP on 2 processes x 1 thread (ms per step; ratio: times "
        "faster)",
        rows,
    )
    harness.keep(options.to, rows, ("network", "global_batch"))


if __name__ == "__main__":
    main()
