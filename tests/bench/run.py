"""Run every benchmark of steps, ranks and start-up, one after another: `make bench`. Arguments go
to each of them.

python tests/bench/run.py [--rounds N]
"""

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
    failed = 0
    for name in SCRIPTS:
        print(f"== {name}", flush=True)
        failed += (
            subprocess.run(
                [sys.executable, Path(__file__).with_name(name), *sys.argv[1:]]
            ).returncode
            != 0
        )
    sys.exit(failed)


if __name__ == "__main__":
    main()
