"""The study jobs/studies/slow_links.toml on hosts behind slow links, a rank and a thread on each:
accuracy, bytes and seconds of synchronous training and of ways that send less.

python tests/bench/slow_links.py [--hosts 4] [--rate 100mbit] [--resume] [...]     as root; what
follows is passed on to `ensync compare`. Some 25 minutes on two cores, and at a quiet time: the
hosts are made on this machine (hosts.py) and share its cores, so that to compute takes longer than
on as many machines, beside the same links. Then: python jobs/results.py keep
jobs/studies/slow_links.toml runs/studies/slow_links
"""

import argparse
import subprocess
import sys
from pathlib import Path

from hosts import hosts, obstacle, on_hosts
from ranks_against_ddp import mpirun

import ensync

JOB = Path(__file__).parents[2] / "jobs" / "studies" / "slow_links.toml"
WHOLE, CUT = Path("data/fashion_mnist.h5"), Path("data/fashion_mnist_cut.h5")
ROWS = 18_000


def write_cut() -> None:
    """Write the first training images, and all others, as a dataset of its own."""
    whole = ensync.Dataset(WHOLE)
    images, labels = (of("train")[:ROWS] for of in (whole.images, whole.labels))
    others = {name: (whole.images(name), whole.labels(name)) for name in ("validation", "test")}
    ensync.Dataset.write(CUT, images, labels, class_names=whole.class_names, **others)


def main() -> int:
    """Run the study; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--rate", default="100mbit", help="of each link, as tc has it")
    options, passed_on = parser.parse_known_args()
    if why := obstacle():
        raise SystemExit(f"hosts cannot be made here: {why}")
    if not CUT.exists():
        write_cut()
    command = [sys.executable, "-m", "ensync", "compare", str(JOB), *passed_on]
    with hosts(options.hosts, options.rate) as (names, shell):
        return subprocess.call([mpirun(), *on_hosts(names, shell, command)])


if __name__ == "__main__":
    sys.exit(main())
