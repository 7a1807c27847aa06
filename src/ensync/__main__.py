"""`python -m ensync` and the command `ensync`."""

import sys

from ensync.core import garbage, streams
from ensync.core.signals import note_signals


def main() -> None:
    """Run the command line and exit with its code."""
    note_signals(sys.argv[1:])  # before the imports, which take a second
    garbage.look_seldom()
    streams.prepare()
    from ensync.cli.main import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
