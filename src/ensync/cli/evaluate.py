"""`ensync evaluate`, `ensync fuse` and `ensync predict`."""

import click

from ensync.cli.options import PLACE, FusionMethod, other_data, settings
from ensync.cli.ranks import on_ranks


@click.command(short_help="Test a run from its files.")
@click.argument("run", type=PLACE, metavar="RUN")
@other_data
@click.option(
    "--groups",
    type=click.IntRange(1),
    metavar="N",
    help="Show N groups of classes that the run takes for each other, and no test.",
)
@settings
def evaluate(run: str, data: str | None, groups: int | None, overrides: tuple[str, ...]) -> None:
    """Test a run from its files: accuracy with its interval, precision, recall, F1, confusion
    counts.

    The dataset must be the one that the run was trained on, unchanged. --data tests on another one
    on purpose, and says so.

    \b
      ensync evaluate runs/quickstart/ensemble
      mpirun -n 3 ensync evaluate runs/quickstart/synchronous
      ensync evaluate runs/quickstart/ensemble --set fusion.method=hard_voting

    --groups clusters the confusion of the validation images, for the groups of a layer of kind
    'coarse_to_fine'.

    RUN is the output.directory of a run, or a checkpoint in it. A directory in which one run lies
    will do, too; of several they are listed, as for fuse, predict, resume and describe.
    """
    if groups is not None:
        from ensync.runs.groups import find_groups

        if data is not None:
            raise click.UsageError("--groups takes the run's own dataset, without --data.")
        number = groups
        on_ranks(lambda comm: find_groups(comm, run, number, overrides))
        return
    from ensync.runs import evaluate as runs

    on_ranks(lambda comm: runs.evaluate(comm, run, (), overrides, data=data))


@click.command(short_help="Fuse the members of a run from its files.")
@click.argument("run", type=PLACE, metavar="RUN")
@click.option(
    "--method",
    "methods",
    type=FusionMethod(),
    multiple=True,
    help="Repeat for several; without it, all.",
)
@other_data
@settings
def fuse(run: str, methods: tuple[str, ...], data: str | None, overrides: tuple[str, ...]) -> None:
    """Fuse the members of a run from its files and write fusion.json beside the result of its
    training; fusion_on_FILE.json with --data.

    \b
      ensync fuse runs/quickstart/ensemble --method hard_voting
    """
    from ensync.core.fusion import FUSIONS
    from ensync.runs import evaluate as runs

    on_ranks(lambda comm: runs.fuse(comm, run, methods or tuple(FUSIONS), overrides, data))


@click.command()
@click.argument("run", type=PLACE, metavar="RUN")
@click.argument("images", type=PLACE, nargs=-1, required=True, metavar="IMAGE...")
@click.option("--method", type=FusionMethod(), help="Fusion; the job's without it.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "csv", "json"]),
    default="text",
    help="csv, json: the shares of all classes, for other programs.",
)
@settings
def predict(
    run: str, images: tuple[str, ...], method: str | None, form: str, overrides: tuple[str, ...]
) -> None:
    """Classify image files, or all in a directory, with a trained run; its dataset is not needed.

    \b
      ensync predict runs/quickstart/ensemble digit.png photos/
      mpirun -n 2 ensync predict runs/quickstart/ensemble photos/ --format csv

    One line for each image: its three likeliest classes with their share of the votes. Any size and
    format that Pillow reads; images are resized and centre-cropped as `ensync data prepare images`
    does, over the background and in the range of values of the training. What is light and what is
    dark should be as in the images of the training. What is left out of a directory is named; when
    one of the images cannot be read, none is predicted. With --format csv or json such images are
    left out, named and counted on standard error; of several ranks each reads a part of the files.
    """
    from ensync.runs import predict as runs

    on_ranks(lambda comm: runs.predict(comm, run, images, method, overrides, form))
