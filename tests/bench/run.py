"""Run every benchmark of steps, ranks and start-up, one after another: `make bench`. Arguments go
to each of them.

python tests/bench/run.py [--rounds N] [--to jobs/results/speed]     --to: a directory for the
figures of each, which `make results` shows
"""

import argparse
import subprocess
import sys
from pathlib import Path

SCRIPTS = [
    "online_steps.py",
    "dense_steps.py",
    "zoo_steps.py",
    "evaluation.py",
    "ranks_against_ddp.py",
    "busy_cores.py",
    "startup.py",
]


def main() -> None:
    """Run all, and end with the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, help="a directory to keep the figures in")
    options, others = parser.parse_known_args()
    failed = 0
    for name in SCRIPTS:
        print(f"== {name}", flush=True)
        script = Path(__file__).with_name(name)
        to = ["--to", str(options.to / f"{script.stem}.json")] if options.to else []
        failed += subprocess.run([sys.executable, script, *to, *others]).returncode != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
