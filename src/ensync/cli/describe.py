"""`ensync describe` and `ensync settings`."""

import click

from ensync.cli.options import settings
from ensync.cli.ranks import say, say_all


@click.command()
@click.argument("thing", metavar="JOB.toml|RUN|DATASET.h5")
@settings
def describe(thing: str, overrides: tuple[str, ...]) -> None:
    """Print what a job, a run or a dataset is.

    \b
      ensync describe jobs/quickstart.toml       each layer's shape and parameters, all settings
      ensync describe runs/quickstart/ensemble   where the run stands, and its job
      ensync describe data/digits.h5             classes, images, source and licence
    """
    from ensync.runs import describe as runs

    say_all(lambda: runs.describe(thing, overrides))


@click.command("settings", short_help="Explain the settings of a job file.")
@click.argument("name", metavar="[SECTION]", required=False)
def explain(name: str | None) -> None:
    """Explain every setting of a job file, or those of a section: type, default, meaning.

    \b
      ensync settings optimizer
      ensync settings optimizer.groups      or study.own, network.layers, network.layers.dense
      ensync settings training.epochs
    """
    from ensync.core.config.explanation import explain_settings

    say(lambda: explain_settings(name))
