"""`ensync submit`."""

import click

from ensync.cli.options import PLACE, bundle, settings
from ensync.cli.ranks import say
from ensync.runs.options import Request


@click.command(short_help="Hand a job file to Slurm.")
@click.argument("job", type=PLACE, metavar="JOB.toml")
@settings
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(1), help="Nodes.")
@click.option(
    "--ranks-per-node",
    default=2,
    show_default=True,
    type=click.IntRange(1),
    help="Ranks on each node.",
)
@click.option(
    "--cores-per-rank",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Cores, and threads, of each rank.",
)
@click.option(
    "--time",
    default="1:00:00",
    show_default=True,
    help="Time limit; at its end the job saves, is requeued and continues.",
)
@click.option("--partition", default="", help="Slurm's partition; its default one without it.")
@click.option("--dry-run", is_flag=True, help="Print the line and the script, submit nothing.")
@bundle(Request, "request")
def submit(job: str, overrides: tuple[str, ...], request: Request, dry_run: bool) -> None:
    """Hand a job file to Slurm with slurm/train.sbatch, after a look at the job, its dataset and
    the partition.

    \b
      ensync submit jobs/quickstart.toml --nodes 4 --time 1:00:00
      ensync submit jobs/quickstart.toml --nodes 4 --dry-run
    """
    from ensync.runs import slurm

    say(lambda: "\n".join(slurm.submit(request, job, overrides, dry_run)))
