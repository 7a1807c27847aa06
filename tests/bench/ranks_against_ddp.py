"""Two ranks of one thread against PyTorch's DistributedDataParallel (gloo) on two processes of one thread, and against one rank.

python tests/bench/ranks_against_ddp.py [--rounds 5] [--seconds 0.5]     JSON lines, then a table; the global batch is fixed
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
from pathlib import Path

import harness

CASES = [((784, 100, 100, 10), 32), ((784, 512, 256, 10), 128)]
OPTIMIZER = "adam"
WINDOWS = 5   # timed stretches within one start
TARGET = 4.0  # times DDP


def steps_of_window(seconds_per_step: float, seconds: float) -> int:
    """Return how many steps fill one window."""
    return max(5, int(seconds / WINDOWS / seconds_per_step))


def ensync_ranks(seconds: float) -> None:
    """Measure every case on the ranks of mpirun; rank 0 prints milliseconds per step of each window."""
    from ensync_side import make_trainee, runner

    from ensync.kernels import threads
    from ensync.mpi.world import world

    comm = world()
    threads.set_threads(1)
    for sizes, batch in CASES:
        run = runner(make_trainee(comm, sizes, batch, OPTIMIZER))
        run(20)
        steps = comm.bcast(steps_of_window(harness.seconds_per_step(run, 40), seconds))
        windows = []
        for _ in range(WINDOWS):
            comm.Barrier()
            windows.append(1e3 * harness.seconds_per_step(run, steps))
        if comm.rank == 0:
            print(json.dumps({"case": [sizes, batch], "windows": windows}), flush=True)


def torch_process(rank: int, size: int, port: int, seconds: float) -> None:
    """Measure every case in one process of DDP (or plain PyTorch when alone)."""
    import torch
    import torch.distributed as dist
    import torch_side

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    for sizes, batch in CASES:
        plain = torch_side.make_network(sizes, online=False)
        network = torch.nn.parallel.DistributedDataParallel(plain) if size > 1 else plain
        run = torch_side.runner(network, sizes, batch, torch_side.make_optimizer(network, OPTIMIZER, "fused"), rank=rank, size=size)
        run(20)
        steps = torch.tensor(steps_of_window(harness.seconds_per_step(run, 40), seconds))
        dist.broadcast(steps, 0)
        windows = []
        for _ in range(WINDOWS):
            dist.barrier()
            windows.append(1e3 * harness.seconds_per_step(run, int(steps)))
        if rank == 0:
            print(json.dumps({"case": [sizes, batch], "windows": windows}), flush=True)
    dist.destroy_process_group()


def mpirun() -> str:
    """Return the launcher of this environment's MPI, else the site's."""
    beside = Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.exists() else shutil.which("mpirun") or "mpirun"


def start_ensync(ranks: int, seconds: float) -> list[dict[str, object]]:
    """Run our side on so many ranks and return its lines."""
    return _lines([[mpirun(), "-n", str(ranks), sys.executable, __file__, "--role", "ensync", "--seconds", str(seconds)]])


def start_torch(processes: int, seconds: float) -> list[dict[str, object]]:
    """Run PyTorch on so many processes and return the lines of the first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    role = [sys.executable, __file__, "--role", "torch", "--seconds", str(seconds), "--port", str(port), "--size", str(processes), "--rank"]
    return _lines([[*role, str(rank)] for rank in range(processes)])


def _lines(commands: list[list[str]]) -> list[dict[str, object]]:
    environment = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for command in commands]
    texts = [process.communicate(timeout=600)[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{commands[0]} ended with {[process.returncode for process in started]}")
    return [json.loads(line) for line in texts[0].splitlines() if line.startswith("{")]


def measure(rounds: int, seconds: float) -> list[dict[str, object]]:
    """Start the contestants in turn, round by round; return one record per case."""
    starts = {"ensync 1": lambda: start_ensync(1, seconds), "ensync 2": lambda: start_ensync(2, seconds)}
    if harness.torch_is_here():
        starts |= {"torch 1": lambda: start_torch(1, seconds), "torch 2": lambda: start_torch(2, seconds)}
    times: dict[str, list[list[float]]] = {name: [[] for _ in CASES] for name in starts}
    for _ in range(rounds):
        for name, start in starts.items():
            for case, line in enumerate(start()):
                times[name][case].append(statistics.median(line["windows"]))
    return [record(case, {name: rows[case] for name, rows in times.items()}) for case in range(len(CASES))]


def record(case: int, times: dict[str, list[float]]) -> dict[str, object]:
    """Return the figures of a case from its milliseconds per step, round by round."""
    sizes, batch = CASES[case]
    figures: dict[str, object] = {"network": "-".join(map(str, sizes)), "global_batch": batch}
    figures |= {f"{name.replace(' ', '_')}_ms": statistics.median(rows) for name, rows in times.items()}
    figures["speed_up_2_ranks"] = harness.median_ratio(times["ensync 1"], times["ensync 2"])
    if "torch 2" in times:
        figures["ddp_speed_up"] = harness.median_ratio(times["torch 1"], times["torch 2"])
        figures["ratio_to_ddp"] = harness.median_ratio(times["torch 2"], times["ensync 2"])
        figures["to_reach"] = TARGET
    harness.emit(figures)
    return figures


def main() -> None:
    """Measure and print, or play one role when started by ourselves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one case in one start")
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
    harness.table("Two ranks x 1 thread beside DDP on 2 processes x 1 thread (ms per step; ratio: times faster)", rows)


if __name__ == "__main__":
    main()
