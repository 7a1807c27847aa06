"""What `ensync scale` predicts, beside what training then takes, on hosts with limited links: the
namespaces of hosts.sh, one rank of one thread each. As root, on Linux, with MPICH.

python tests/bench/scale_on_hosts.py [--minutes 15] [--to jobs/results/scale/hosts.json]

Each case is calibrated on the hosts that then train, since hosts on one machine share its cores:
with more hosts than cores a rank has a part of one, in the calibration as in the training. Prints a
JSON line for each run, then a table of errors; --to keeps all for `make results`.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import harness
import numpy as np

HERE = Path(__file__).resolve().parent
HOSTS = HERE / "hosts.sh"
STEPS = 4  # of an epoch, and between meetings of local SGD
FEWEST, MOST = 2, 100  # epochs, the first of which only warms up
NAMES = ("mlp 784-512-256-10", "minixception", "parashar-cnn")
BATCHES = {NAMES[0]: 128}
MBIT, MS = 1e6, 1e-3
LINKS = [(speed * MBIT, delay * MS) for speed in (1000, 100) for delay in (0.1, 2)]
# Hosts and links: all links with four hosts, the two extremes with two and three; one host has no
# link.
CASES = [(1, LINKS[0]), *((4, link) for link in LINKS)]
CASES += [(hosts, link) for hosts in (2, 3) for link in (LINKS[0], LINKS[-1])]


@dataclass(frozen=True)
class Row:
    """A run: seconds of a step as predicted and as measured."""

    network: str
    hosts: int
    bits: float
    delay: float
    strategy: str
    predicted: float
    measured: float
    error: float
    parts: dict[str, float]
    sent_predicted: float
    sent_counted: int | None


def job_of(name: str, place: Path) -> dict:
    """Return the sections of a network's job, whose dataset is written where it is missing."""
    from image_networks import ZOO

    case = next(case for case in ZOO if case.name == name)
    batch = BATCHES.get(name, case.batch)
    return {
        "data": {"path": str(place / f"{'x'.join(map(str, case.shape))}_{batch}.h5")},
        "network": dict(case.settings),
        "training": {"batch": batch, "threads": 1, "epochs": FEWEST},
        "optimizer": {"name": "adam"},
        "checkpoint": {"every_epochs": 0, "keep": 1},
        "output": {"directory": str(place / name.replace(" ", "_"))},
    }


def write_data(place: Path) -> None:
    """Write random images of each network's shape, for epochs of STEPS steps."""
    from image_networks import ZOO

    import ensync

    random = np.random.default_rng(1)
    for name in NAMES:
        case = next(case for case in ZOO if case.name == name)
        sections = job_of(name, place)
        rows, path = STEPS * sections["training"]["batch"], Path(sections["data"]["path"])
        images = random.integers(0, 256, (rows, *case.shape), dtype=np.uint8)
        labels = np.arange(rows) % 10
        tested = images[:20], labels[:20]
        ensync.Dataset.write(path, images, labels, validation=0, test=tested)


def on_ranks(place: Path, seconds: float, names: list[str]) -> None:
    """Calibrate, then train each network in each way; rank 0 prints a line for each run."""
    from ensync.core.config.job import dump_job, job_from_dict
    from ensync.mpi.world import world
    from ensync.report.console import make_console
    from ensync.runs.options import RunOptions
    from ensync.runs.scale.checking import check, read_prediction
    from ensync.runs.scale.verb import ScaleOptions, scale
    from ensync.runs.train import train_job

    comm, silent = world(), make_console(1)
    for name in names:
        sections = job_of(name, place)
        path, base = place / f"{name.replace(' ', '_')}.toml", sections["output"]["directory"]
        if comm.rank == 0:
            path.write_text(dump_job(job_from_dict(sections)))
        comm.Barrier()
        options = ScaleOptions(ranks=(1, comm.size), seconds=seconds, noise_steps=0)
        scale(comm, str(path), options)
        prediction = read_prediction(Path(base))
        ways = {"synchronous": {}} | ({"local": {"every": STEPS}} if comm.size > 1 else {})
        for way, communication in ways.items():
            predicted = next(
                row.step_seconds
                for row in prediction.rows
                if row.ranks == comm.size and row.every == communication.get("every", 1)
            )
            epochs = int(min(MOST, max(FEWEST, 1 + seconds / 2 / STEPS / predicted)))
            given = sections | {
                "training": sections["training"] | {"epochs": epochs},
                "communication": communication,
                "output": {"directory": f"{base}/{way}"},
            }
            train_job(comm, job_from_dict(given), RunOptions(overwrite=True), silent)
            if comm.rank == 0:
                run = Path(base, way)
                found = check(run, prediction)
                parts = next(
                    row.parts
                    for row in prediction.rows
                    if row.ranks == comm.size and row.label == found.label
                )
                shown = {each: getattr(parts, each) for each in parts.__slots__}
                line = asdict(found) | {"network": name, "parts": shown}
                print("@" + json.dumps(line), flush=True)


def started(hosts: int, place: Path, options: argparse.Namespace) -> list[dict]:
    """Run `on_ranks` with a rank on each host, and return its lines."""
    names = ",".join(f"h{number}" for number in range(1, hosts + 1))
    mpirun = str(Path(sys.executable).with_name("mpirun"))
    command = [
        *(str(HOSTS), "exec", "h1", mpirun, "-hosts", names, "-launcher", "ssh"),
        *("-launcher-exec", str(HOSTS), "-n", str(hosts), sys.executable, __file__),
        *("--role", "ranks", "--place", str(place), "--seconds", str(options.seconds)),
        *("--networks", *options.networks),
    ]
    variables = {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | variables, timeout=1200
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    return [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("@")]


def measure(options: argparse.Namespace) -> list[Row]:
    """Return a row for each run, of as many cases as fit into the minutes."""
    rows: list[Row] = []
    end, longest = time.monotonic() + 60 * options.minutes, 0.0
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        write_data(place)
        for hosts, (bits, delay) in CASES:
            if options.hosts and hosts not in options.hosts:
                continue
            if time.monotonic() + longest > end:
                print(f"no time for {hosts} hosts at {bits / MBIT:g} Mbit/s", file=sys.stderr)
                continue
            begun = time.monotonic()
            subprocess.run([HOSTS, "stop"], check=True)
            subprocess.run([HOSTS, "start", str(hosts), str(bits), str(delay)], check=True)
            try:
                found = started(hosts, place, options)
            finally:
                subprocess.run([HOSTS, "stop"], check=True)
            longest = max(longest, time.monotonic() - begun)
            for line in found:
                row = row_of(line, hosts, bits, delay)
                harness.emit(asdict(row))
                rows.append(row)
    return rows


def row_of(line: dict, hosts: int, bits: float, delay: float) -> Row:
    """Return the row of a line that rank 0 printed."""
    return Row(
        network=line["network"],
        hosts=hosts,
        bits=bits,
        delay=delay,
        strategy=line["label"],
        predicted=line["predicted"],
        measured=line["measured"],
        error=line["error"],
        parts=line["parts"],
        sent_predicted=line["predicted_bytes"],
        sent_counted=line["measured_bytes"],
    )


def missing(rows: list[Row]) -> list[str]:
    """Return the cases that were not measured, for want of time or by choice."""
    done = {(row.hosts, (row.bits, row.delay)) for row in rows}
    return [
        f"{hosts} hosts at {bits / MBIT:g} Mbit/s and {delay / MS:g} ms"
        for hosts, (bits, delay) in CASES
        if (hosts, (bits, delay)) not in done
    ]


def kept(rows: list[Row], minutes: float) -> dict:
    """Return what is kept for jobs/RESULTS.md."""
    return {
        "format": "ensync-scale-on-hosts",
        "version": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": harness.source_commit(),
        "minutes": minutes,
        "missing": missing(rows),
        "environment": harness.environment(),
        "rows": [asdict(row) for row in rows],
    }


def main() -> None:
    """Measure and print, or be a rank when started by ourselves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=15, help="start no case after these")
    parser.add_argument("--seconds", type=float, default=8, help="of a calibration, about")
    parser.add_argument("--hosts", type=int, nargs="+", help="only cases with so many")
    parser.add_argument("--networks", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--to", type=Path, help="a JSON file to keep")
    parser.add_argument("--role", choices=["ranks"], help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        return on_ranks(options.place, options.seconds, options.networks)
    if os.geteuid() or not shutil.which("nsenter") or not shutil.which("ip"):
        raise SystemExit("hosts take root, and ip and nsenter (iproute2, util-linux)")
    harness.emit(harness.environment())
    begun = time.monotonic()
    rows = measure(options)
    table = [
        {
            "network": row.network,
            "hosts": row.hosts,
            "link": f"{row.bits / MBIT:g} Mbit/s, {row.delay / MS:g} ms",
            "strategy": row.strategy,
            "predicted_ms": 1e3 * row.predicted,
            "measured_ms": 1e3 * row.measured,
            "error_percent": 100 * row.error,
        }
        for row in rows
    ]
    harness.table("Steps predicted and measured", table)
    errors = [abs(row.error) for row in rows]
    within = sum(error <= 0.15 for error in errors)
    print(f"median error {100 * statistics.median(errors):.1f} %; {within} of {len(rows)} in 15 %")
    if options.to:
        options.to.parent.mkdir(parents=True, exist_ok=True)
        content = kept(rows, (time.monotonic() - begun) / 60)
        options.to.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
