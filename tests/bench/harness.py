"""What every benchmark shares: the environment it ran in, interleaved rounds, JSON lines, and a
table at the end.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

for name in (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
):  # they hold numpy's BLAS to an older instruction set
    os.environ.pop(name, None)


def environment() -> dict[str, object]:
    """Return what the figures depend on: processor, cores of this process, load, versions."""
    import importlib.metadata
    import platform

    from ensync.kernels.simd.host import description
    from ensync.runs.launch import cpu_name

    versions = {"python": platform.python_version()}
    for name in ("numpy", "numba", "mpi4py", "mpich", "openmpi", "torch"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu_name(),
        "simd": description(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "versions": versions,
    }


def torch_is_here() -> bool:
    """Whether PyTorch is installed; without it only our side is measured."""
    import importlib.util

    return importlib.util.find_spec("torch") is not None


def cpp_compiler() -> str | None:
    """Return the path of the C++ compiler that torch.compile would call, None where there is
    none.
    """
    import shutil

    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


def arguments(description: str, rounds: int, seconds: float) -> argparse.ArgumentParser:
    """Return a parser of the settings of interleaved rounds, with these defaults; the
    description's first line is the program's.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument(
        "--seconds", type=float, default=seconds, help="of one contestant in one round"
    )
    add_to(parser)
    return parser


def add_to(parser: argparse.ArgumentParser) -> None:
    """Let the figures be kept."""
    parser.add_argument(
        "--to", type=Path, help="a JSON file to keep for RESULTS.md, in jobs/results/speed"
    )


def source_commit() -> str:
    """Return the newest commit of src; refuse changes that no commit names."""
    where = Path(__file__).parent
    said = [
        subprocess.run(["git", *words, "--", ":/src"], cwd=where, capture_output=True, text=True)
        for words in (("status", "--porcelain"), ("log", "-1", "--format=%h"))
    ]
    if said[0].stdout:
        raise SystemExit(f"src has changes that no commit names:\n{said[0].stdout}")
    return said[1].stdout.strip()


def keep(to: Path | None, rows: list[dict[str, object]], key: tuple[str, ...]) -> None:
    """Write rows to a JSON file with what they depend on, where one is named.

    Rows that it has of the same commit, processor and versions stay, but those of the same `key`.
    """
    if to is None:
        return
    about = environment()
    made = {"commit": source_commit(), **{name: about[name] for name in ("cpu", "simd", "cores")}}
    made["versions"] = about["versions"]
    before = json.loads(to.read_text()) if to.exists() else {}
    others = before.get("rows", []) if before.get("made") == made else []
    new = {tuple(row[name] for name in key) for row in rows}
    kept = [row for row in others if tuple(row[name] for name in key) not in new]
    content = {
        "format": "ensync-speed",
        "version": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load": about["load"],
        "made": made,
        "rows": sorted([*kept, *rows], key=lambda row: [row[name] for name in key]),
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(content, indent=1) + "\n")


def begin() -> list[int]:
    """Print the environment; return the numbers of threads to measure on: 1, and 2 where there
    are two cores.
    """
    about = environment()
    emit(about)
    return [count for count in (1, 2) if count <= about["cores"]]


Run = Callable[[int], None]  # trains so many steps


def seconds_per_step(run: Run, steps: int) -> float:
    """Return the mean time of a step."""
    begin = time.perf_counter()
    run(steps)
    return (time.perf_counter() - begin) / steps


def interleave(
    contestants: dict[str, Run], rounds: int, seconds: float, warm: int = 10
) -> dict[str, list[float]]:
    """Time every contestant once per round, for about `seconds` each, and return its seconds per
    step, round by round.

    warm: steps from which the number of steps in `seconds` is found.
    """
    steps = {}
    for name, run in contestants.items():
        run(min(3, warm))
        steps[name] = max(3, int(seconds / max(seconds_per_step(run, warm), 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            times[name].append(seconds_per_step(run, steps[name]))
    return times


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median over rounds of how many times faster `fast` is."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def emit(record: dict[str, object]) -> None:
    """Print one JSON line."""
    print(
        json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in record.items()}),
        flush=True,
    )


def table(title: str, rows: list[dict[str, object]]) -> None:
    """Print the rows as a table whose columns are the keys of the first."""
    if not rows:
        return
    cells = [list(rows[0])] + [[_cell(row.get(key)) for key in rows[0]] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    print(f"\n{title}")
    for line in cells:
        print(
            "  "
            + "  ".join(
                text.rjust(width) if i else text.ljust(width)
                for i, (text, width) in enumerate(zip(line, widths, strict=True))
            )
        )
    print(flush=True)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )


def operations(sizes: tuple[int, ...]) -> int:
    """Return the floating-point operations of one sample's forward and backward pass: none for
    the gradient of the pixels.
    """
    products = [height * width for height, width in zip(sizes[:-1], sizes[1:], strict=True)]
    return 6 * sum(products) - 2 * products[0]


def parameters(sizes: tuple[int, ...]) -> int:
    """Return the number of weights and biases."""
    return sum((height + 1) * width for height, width in zip(sizes[:-1], sizes[1:], strict=True))
