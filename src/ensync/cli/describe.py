"""`ensync describe` and `ensync settings`."""

import click

from ensync.cli.options import PLACE, ImageShape, setting_names, settings
from ensync.cli.ranks import say, say_all, speaks


@click.command()
@click.argument("thing", type=PLACE, metavar="JOB.toml|RUN|DATASET.h5")
@settings
@click.option(
    "--shape",
    type=ImageShape(),
    metavar="HxWxC",
    help="Describe a job for images of this shape, without its dataset.",
)
@click.option("--classes", type=click.IntRange(1), metavar="N", help="Classes, with --shape.")
@click.option(
    "--filters", is_flag=True, help="Of a run: what the filters of its first layer see, on a page."
)
def describe(
    thing: str,
    overrides: tuple[str, ...],
    shape: tuple[int, int, int] | None,
    classes: int | None,
    filters: bool,
) -> None:
    """Print what a job, a run or a dataset is.

    \b
      ensync describe jobs/quickstart.toml       # each layer's shape and parameters, all settings
      ensync describe runs/quickstart/ensemble   # where the run stands, and its job
      ensync describe data/digits.h5             # classes, images, source and licence

    \b
      ensync describe jobs/quickstart.toml --shape 28x28x1 --classes 26

    With --filters RUN may also be a study, or hold several runs. It writes filters.html, .png and
    .json there: the filters of the first layer by towers (groups of a convolution, ranks, members
    of an ensemble), how colourful each is, and whether towers differ in that more than by chance.
    """
    from ensync.runs import describe as runs

    if (shape is None) != (classes is None):
        raise click.UsageError("--shape and --classes go together.")
    if filters:
        _filters(thing, bool(overrides or shape))
        return
    images = runs.Images(shape, classes) if shape and classes else None
    say_all(lambda: runs.describe(thing, overrides, images))


def _filters(thing: str, others: bool) -> None:
    from ensync.runs.filters.verb import describe_filters

    if others:
        raise click.UsageError("--filters goes with a run alone, without --set and --shape.")
    if speaks():
        say_all(lambda: describe_filters(thing))


@click.command("settings", short_help="Explain the settings of a job file.")
@click.argument("name", metavar="[SECTION]", required=False, shell_complete=setting_names)
def explain(name: str | None) -> None:
    """Explain every setting of a job file, or those of a section: type, default, meaning.

    \b
      ensync settings optimizer
      ensync settings optimizer.groups      # or study.own, network.layers, network.layers.dense
      ensync settings training.epochs
    """
    from ensync.core.config.explanation import explain_settings

    say(lambda: explain_settings(name))
