"""`ensync demo`."""

import click

from ensync.cli.options import PLACE
from ensync.cli.ranks import on_ranks


@click.command(short_help="Compare both strategies on an embedded dataset.")
@click.option(
    "--to",
    "directory",
    type=PLACE,
    metavar="DIR",
    default=".",
    help="Where to write; the working directory without it.",
)
def demo(directory: str) -> None:
    """Compare one rank, synchronous training and an ensemble on 1,797 handwritten digits, which
    are installed with Ensync.

    \b
      mpirun -n 2 ensync demo
      ensync demo --to first      # on one rank, in a directory of its own

    Writes jobs/quickstart.toml and jobs/studies/quickstart.toml, data/digits.h5, and what they
    lead to into runs/. On one rank the study is left out. Run again, it trains only what is
    missing. It ends with commands to type next.
    """
    from ensync.runs import demo as runs

    on_ranks(lambda comm: runs.demo(comm, directory))
