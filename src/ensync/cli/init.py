"""`ensync init`."""

import click

from ensync.cli.options import PLACE
from ensync.cli.ranks import speaks
from ensync.core import streams


@click.command(short_help="Write a job file for a dataset and a network.")
@click.argument("name", metavar="NAME")
@click.option(
    "--data", required=True, type=PLACE, metavar="FILE.h5", help="The dataset to train on."
)
@click.option(
    "--network", metavar="NETWORK", help="See `ensync settings network`; one that fits without it."
)
def init(name: str, data: str, network: str | None) -> None:
    """Write a job file with comments, which trains as it is: NAME.toml.

    \b
      ensync init my_job --data data/digits.h5
      ensync init jobs/mine --data data/digits.h5 --network mlp

    Length, batch and network fit the dataset. A file that is there already is not overwritten. One
    process.
    """
    from ensync.runs.job_file import write_job

    if speaks():
        streams.say("\n".join(write_job(name, data, network)))
