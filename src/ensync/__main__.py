"""`python -m ensync` and the command `ensync`."""

import signal
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    # Until a verb can leave tidily, Ctrl-C ends every rank at once: one that were left alone in MPI_Init would wait there for ever.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from ensync.cli import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
