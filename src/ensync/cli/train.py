"""`ensync train` and `ensync resume`."""

import click

from ensync.cli.options import PLACE, run_options, settings, verbose
from ensync.cli.ranks import on_ranks
from ensync.runs.options import RunOptions


@click.command()
@click.argument("job", type=PLACE, metavar="JOB.toml")
@run_options(
    resume="Continue where output.directory holds a run, start where it is empty (for batch "
    "scripts; also when Slurm restarts the job).",
    overwrite="Start afresh although output.directory holds a run.",
)
def train(job: str, options: RunOptions) -> None:
    """Train the network(s) of a job file.

    \b
      mpirun -n 2 ensync train jobs/quickstart.toml
      mpirun -n 2 ensync train jobs/quickstart.toml --overwrite --set training.strategy=ensemble

    Writes into output.directory: job.toml, history.jsonl, checkpoints/ and result.json.
    """
    from ensync.runs import train as runs

    on_ranks(lambda comm: runs.train(comm, job, options))


@click.command(short_help="Continue a run from its newest valid checkpoint.")
@click.argument("run", type=PLACE, metavar="RUN")
@settings
@verbose
def resume(run: str, overrides: tuple[str, ...], verbose: bool) -> None:
    """Continue a run from its newest valid checkpoint, on any number of ranks.

    RUN is its output.directory, or one checkpoint file in it. On the same number of ranks the
    result is that of a run that was never interrupted, to the bit.

    \b
      mpirun -n 3 ensync resume runs/quickstart/ensemble
      mpirun -n 3 ensync resume runs/quickstart/ensemble --set training.epochs=40
    """
    from ensync.runs import train as runs

    on_ranks(lambda comm: runs.resume(comm, run, overrides, verbose))
