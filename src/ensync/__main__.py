"""`python -m ensync` and the command `ensync`."""

import sys

from ensync.cli import main as run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
