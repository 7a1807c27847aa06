"""The command line: verbs, their options and help. Decisions are made elsewhere."""

import os
import traceback
from collections.abc import Callable, Iterable
from signal import Signals
from typing import Any

import click

from ensync import __version__
from ensync.core import streams
from ensync.core.errors import EnsyncError, nearest, printable, sentence
from ensync.core.fusion import FUSIONS
from ensync.core.launching import started
from ensync.core.resources import number

EXIT_CODES = (
    "Exit codes: 0 done; 2 a mistake in the input, told in one sentence; 3 nobody got on for "
    "training.watchdog seconds; 75 stopped by a signal after a checkpoint, run again to continue; "
    "130 Ctrl-C."
)


FIRST = 1.0  # seconds that other ranks leave to rank 0, so that it is the one that prepares


class Verbs(click.Group):
    """A group that names the nearest verb."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the verb, or say which was meant."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise click.UsageError(
                f"no verb '{args[0]}'{nearest(args[0], self.commands)}; expected one of "
                f"{', '.join(sorted(self.commands))}; see ensync --help."
            )
        return super().resolve_command(ctx, args)


settings = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override a setting of the job file; may be repeated.",
)
other_data = click.option(
    "--data",
    metavar="FILE.h5",
    help="Test on the test images of another dataset, of the same shape and classes.",
)
verbose = click.option("--verbose", is_flag=True, help="Let every rank speak, not only rank 0.")


def on_ranks(run: Callable[[Any], None]) -> None:
    """Run something collective on all ranks, so that one failing rank ends the job with its
    reason.
    """
    streams.check_files()
    from ensync.core.signals import raise_interrupts
    from ensync.mpi.abort import guard
    from ensync.mpi.world import world

    comm = world()
    raise_interrupts()
    with guard(comm):
        run(comm)


def say(text: Callable[[], str]) -> None:
    """Print the text of a verb that needs one process; under mpirun each finds it, so that all
    end alike, and rank 0 prints it.
    """
    found = text()
    if speaks():
        streams.say(found)


def say_all(texts: Callable[[], Iterable[str]]) -> None:
    """Print texts one by one, as `say`; those before an error are printed."""
    for text in texts():
        if speaks():
            streams.say(text)


@click.group(
    cls=Verbs,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="ensync")
def cli() -> None:
    """Train image classifiers on CPUs with MPI: one network together, or many networks apart.

    \b
    A first session:
      ensync data prepare digits                          a small real dataset, no network needed
      mpirun -n 2 ensync compare jobs/quickstart.toml     both strategies and the one-rank baseline
      mpirun -n 4 ensync train jobs/quickstart.toml       one run
      ensync evaluate runs/quickstart                     from its files, on any number of ranks

    Every verb works without mpirun as one rank. `ensync settings` explains each setting of a job
    file.
    """


@cli.command()
@click.argument("job", metavar="JOB.toml")
@settings
@click.option(
    "--resume",
    "resume_if_begun",
    is_flag=True,
    help="Continue where output.directory stands, start where it is empty (for batch scripts; "
    "also when Slurm restarts the job).",
)
@click.option(
    "--overwrite", is_flag=True, help="Start afresh although output.directory holds a run."
)
@verbose
def train(
    job: str, overrides: tuple[str, ...], resume_if_begun: bool, overwrite: bool, verbose: bool
) -> None:
    """Train the network(s) of a job file.

    \b
      mpirun -n 4 ensync train jobs/quickstart.toml
      mpirun -n 4 ensync train jobs/quickstart.toml --set training.strategy=ensemble

    Writes into output.directory: job.toml, history.jsonl, checkpoints/ and result.json.
    """
    from ensync.cli import verbs

    again = _again(resume_if_begun)
    on_ranks(lambda comm: verbs.train(comm, job, overrides, again, overwrite, verbose))


def _again(asked: bool) -> bool:
    """Whether to continue what was begun: asked for, or this is a job that Slurm has restarted."""
    return asked or number(os.environ.get("SLURM_RESTART_COUNT")) > 0


@cli.command(short_help="Continue a run from its newest valid checkpoint.")
@click.argument("run", metavar="RUN")
@settings
@verbose
def resume(run: str, overrides: tuple[str, ...], verbose: bool) -> None:
    """Continue a run from its newest valid checkpoint, on any number of ranks.

    RUN is its output.directory, or one checkpoint file in it. On the same number of ranks the
    result is that of a run that was never interrupted, to the bit.

    \b
      mpirun -n 3 ensync resume runs/quickstart
      mpirun -n 3 ensync resume runs/quickstart --set training.epochs=40
    """
    from ensync.cli import verbs

    on_ranks(lambda comm: verbs.resume(comm, run, overrides, verbose))


@cli.command(short_help="Test a run from its files.")
@click.argument("run", metavar="RUN")
@other_data
@settings
def evaluate(run: str, data: str | None, overrides: tuple[str, ...]) -> None:
    """Test a run from its files: accuracy with its interval, precision, recall, F1, confusion
    counts.

    The dataset must be the one that the run was trained on, unchanged. --data tests on another one
    on purpose, and says so.

    \b
      ensync evaluate runs/quickstart
      mpirun -n 4 ensync evaluate runs/quickstart/checkpoints/checkpoint-e00005-s000000205.h5
      ensync evaluate runs/quickstart --set fusion.method=hard_voting
    """
    from ensync.cli import verbs

    on_ranks(lambda comm: verbs.evaluate(comm, run, (), overrides, data=data))


@cli.command(short_help="Fuse the members of a run from its files.")
@click.argument("run", metavar="RUN")
@click.option(
    "--method",
    "methods",
    type=click.Choice(list(FUSIONS)),
    multiple=True,
    help="Repeat for several; without it, all.",
)
@other_data
@settings
def fuse(run: str, methods: tuple[str, ...], data: str | None, overrides: tuple[str, ...]) -> None:
    """Fuse the members of a run from its files and write fusion.json beside the result of its
    training; fusion_on_FILE.json with --data.

    \b
      ensync fuse runs/quickstart --method hard_voting
    """
    from ensync.cli import verbs

    on_ranks(lambda comm: verbs.fuse(comm, run, methods or tuple(FUSIONS), overrides, data))


@cli.command()
@click.argument("run", metavar="RUN")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--method", type=click.Choice(list(FUSIONS)), help="Fusion; the job's without it.")
@settings
def predict(
    run: str, images: tuple[str, ...], method: str | None, overrides: tuple[str, ...]
) -> None:
    """Classify image files, or all in a directory, with a trained run; its dataset is not needed.

    \b
      ensync predict runs/quickstart digit.png photos/

    One line for each image: its three likeliest classes with their share of the votes. Any size and
    format that Pillow reads; images are resized and centre-cropped as `ensync data prepare images`
    does, over the background and in the range of values of the training. What is light and what is
    dark should be as in the images of the training. What is left out of a directory is named; when
    one of the images cannot be read, none is predicted.
    """
    from ensync.cli import verbs

    on_ranks(lambda comm: verbs.predict(comm, run, images, method, overrides))


@cli.command(short_help="One rank, synchronous, ensemble: tell which is better.")
@click.argument("job", metavar="JOB.toml")
@settings
@click.option(
    "--resume",
    is_flag=True,
    help="Continue a comparison of this job that was begun; parts that are finished are only "
    "tested.",
)
@click.option(
    "--overwrite", is_flag=True, help="Delete earlier results of this comparison and start afresh."
)
@verbose
def compare(
    job: str, overrides: tuple[str, ...], resume: bool, overwrite: bool, verbose: bool
) -> None:
    """Run one job on one rank, synchronously and as an ensemble, and tell which is better.

    \b
      mpirun -n 2 ensync compare jobs/quickstart.toml

    Ends with a table, and writes comparison.json, .csv and .html into output.directory.
    """
    from ensync.cli import verbs

    again = _again(resume)
    on_ranks(lambda comm: verbs.compare(comm, job, overrides, again, overwrite, verbose))


@cli.command(short_help="Train once for each value of a setting, and plot.")
@click.argument("job", metavar="JOB.toml")
@click.option(
    "--over", required=True, metavar="SECTION.KEY=V1,V2,...", help="The setting and its values."
)
@settings
@click.option(
    "--resume",
    is_flag=True,
    help="Continue a sweep of this job that was begun; values that are finished are only tested.",
)
@click.option(
    "--overwrite", is_flag=True, help="Delete earlier results of these values and start afresh."
)
@verbose
def sweep(
    job: str, over: str, overrides: tuple[str, ...], resume: bool, overwrite: bool, verbose: bool
) -> None:
    """Train a job once for each value of one setting, and plot accuracy and time against it.

    \b
      ensync sweep jobs/fashion_mnist/roy_mlp_ensemble.toml --over optimizer.learning_rate=0.1,0.2
      ensync sweep jobs/fashion_mnist/mlp_synchronous.toml --over training.threads=1,2
      ensync sweep jobs/fashion_mnist/mlp_synchronous.toml --over 'network.hidden=[64,32],[32]'
    """
    from ensync.cli import verbs

    again = _again(resume)
    on_ranks(lambda comm: verbs.sweep(comm, job, over, overrides, again, overwrite, verbose))


@cli.command()
@click.argument("thing", metavar="JOB.toml|RUN|DATASET.h5")
@settings
def describe(thing: str, overrides: tuple[str, ...]) -> None:
    """Print what a job, a run or a dataset is.

    \b
      ensync describe jobs/quickstart.toml     each layer's shape and parameters, and every setting
      ensync describe runs/quickstart          where the run stands, and its job
      ensync describe data/digits.h5           classes, images, source and licence
    """
    from ensync.cli import describing

    say_all(lambda: describing.describe(thing, overrides))


@cli.command(short_help="Hand a job file to Slurm.")
@click.argument("job", metavar="JOB.toml")
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
def submit(
    job: str,
    overrides: tuple[str, ...],
    nodes: int,
    ranks_per_node: int,
    cores_per_rank: int,
    time: str,
    partition: str,
    dry_run: bool,
) -> None:
    """Hand a job file to Slurm with slurm/train.sbatch, after a look at the job, its dataset and
    the partition.

    \b
      ensync submit jobs/quickstart.toml --nodes 4 --time 1:00:00
      ensync submit jobs/quickstart.toml --nodes 4 --dry-run
    """
    from ensync.cli.submit import Request
    from ensync.cli.submit import submit as hand_over
    from ensync.core.config.job import load_job
    from ensync.storage.dataset import open_dataset

    if (launch := started(os.environ)).size > 1:
        raise EnsyncError(
            f"`ensync submit` as one of {launch.size} ranks ({launch.name})",
            "one process",
            "run it without a launcher, outside of a job step",
        )
    loaded = load_job(job, overrides)
    open_dataset(loaded.data.path).close()
    request = Request(nodes, ranks_per_node, cores_per_rank, time, partition)
    say(lambda: "\n".join(hand_over(request, job, loaded, overrides, dry_run)))


@cli.command(short_help="Is this machine, launcher and file system fit?")
@click.argument("job", metavar="[JOB.toml]", required=False)
@settings
def doctor(job: str | None, overrides: tuple[str, ...]) -> None:
    """Tell whether machine, launcher and file system are fit: green, yellow or red, one sentence
    each.

    \b
      mpirun -n 4 ensync doctor                         or srun, with the options of the job
      mpirun -n 4 ensync doctor jobs/quickstart.toml   also whether its memory is there

    Exit code 1 when something is red.
    """
    on_ranks(lambda comm: _doctor(comm, job, overrides))


def _doctor(comm: Any, path: str | None, overrides: tuple[str, ...]) -> None:
    from ensync.cli.examine import doctor
    from ensync.core.config.job import load_job
    from ensync.mpi.world import on_root
    from ensync.report.console import make_console

    code = doctor(
        comm,
        on_root(comm, lambda: load_job(path, overrides)) if path else None,
        make_console(comm.rank),
    )
    if code:
        raise SystemExit(code)


@cli.command(short_help="Put separate runs together: a sweep or a scaling.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--over", required=True, metavar="SECTION.KEY|ranks", help="What differs between the runs."
)
def collect(runs: tuple[str, ...], over: str) -> None:
    """Put runs that were trained as jobs of their own together: a sweep over a setting, or the
    scaling over ranks.

    \b
      ensync collect --over optimizer.learning_rate runs/quickstart/learning_rate_*
      ensync collect --over ranks runs/quickstart/ranks_*
    """
    from pathlib import Path

    from ensync.report.collect import collect_scaling, collect_sweep, doubts
    from ensync.report.console import make_console

    paths = [Path(run) for run in runs]
    console = make_console(0)
    files = dict(collect_scaling(paths) if over == "ranks" else collect_sweep(over, paths))
    for doubt in doubts(over, paths):
        console.warn(doubt)
    console.files(files)


@cli.command("settings", short_help="Explain every setting of a job file.")
def explain() -> None:
    """Explain every setting of a job file: type, default, meaning."""
    from ensync.core.config.job import explain_settings

    say(explain_settings)


@cli.group(cls=Verbs, short_help="Prepare, describe and verify datasets.")
def data() -> None:
    """Prepare, describe and verify datasets; one process, before any training."""


@data.command("prepare", short_help="Write a dataset as one HDF5 file.")
@click.argument("name", metavar="NAME")
@click.option(
    "--from",
    "directory",
    metavar="DIR",
    help="Read local files: published archives, a CSV, or a folder of images.",
)
@click.option(
    "--download", is_flag=True, help="Fetch the published files and check their checksums."
)
@click.option(
    "--to", "target", metavar="FILE", help="The HDF5 file to write [default: data/NAME.h5]."
)
@click.option(
    "--validation",
    type=float,
    help="Share of the training images cut off for validation, stratified [default: 0.1].",
)
@click.option(
    "--validation-from",
    metavar="DIR|FILE",
    help="images, csv: take the validation images from here instead.",
)
@click.option("--seed", default=1, show_default=True, help="Of the cut.")
@click.option(
    "--size", type=int, help="images: pixels of a side after resizing and centre-cropping."
)
@click.option("--greyscale", is_flag=True, help="images: one channel.")
@click.option(
    "--background",
    metavar="COLOUR",
    help="images: behind transparent pixels, a name or #rrggbb [default: white].",
)
@click.option(
    "--range",
    "values",
    metavar="BLACK,WHITE",
    help="images: values of pictures of more than 8 bits [default: as each file declares].",
)
@click.option(
    "--label",
    metavar="COLUMN",
    help="csv: the label's column by its name, or by number from 1 (-1 is the last) [default: "
    "found out, and said].",
)
@click.option(
    "--delimiter",
    metavar="CHARACTER",
    help="csv: between columns; a character, or tab, comma, semicolon, blank [default: found out].",
)
@click.option(
    "--header",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    show_default=True,
    help="csv: whether the first line names the columns.",
)
@click.option(
    "--shape",
    metavar="HxWxC",
    help="csv: of the pictures, such as 28x20 or 32x32x3, or 3x32x32 for planes of one colour "
    "[default: square].",
)
@click.option(
    "--bad-rows",
    type=click.Choice(["refuse", "skip"]),
    default="refuse",
    show_default=True,
    help="csv, images: what to do with what cannot be read.",
)
def prepare(
    name: str,
    directory: str | None,
    download: bool,
    target: str | None,
    validation: float | None,
    validation_from: str | None,
    seed: int,
    size: int | None,
    greyscale: bool,
    background: str | None,
    values: str | None,
    bad_rows: str,
    label: str | None,
    delimiter: str | None,
    header: str,
    shape: str | None,
) -> None:
    """Write a dataset as one HDF5 file: digits, mnist, fashion-mnist, cifar-10, csv or images.

    \b
      ensync data prepare digits
      ensync data prepare fashion-mnist --download
      ensync data prepare csv --from table.csv --bad-rows skip
      ensync data prepare csv --from table.csv --label digit --shape 28x20
      ensync data prepare images --from photos/ --size 64

    csv: one image a line, its label and its pixels 0..255 (or 0 to 1) row by row; what the columns
    are is told. images: a folder for each class, in it pictures of any size, which are resized and
    centre-cropped. A part of the images becomes the test set where none is given.
    """
    from ensync.core.signals import Ended, ending_tidily

    try:
        with ending_tidily():
            from ensync.cli import describing
            from ensync.storage.sources import Asked

            table, patience = (
                Asked(label, delimiter, header, shape),
                FIRST * (started(os.environ).rank > 0),
            )
            say(
                lambda: describing.prepare(
                    name,
                    directory,
                    download,
                    target,
                    patience,
                    validation=validation,
                    validation_from=validation_from,
                    seed=seed,
                    size=size,
                    greyscale=greyscale,
                    background=background,
                    values=values,
                    bad_rows=bad_rows,
                    table=table,
                )
            )
    except Ended as end:
        if speaks():
            streams.tell(
                f"interrupted by {Signals(end.number).name}; nothing was written, and a dataset "
                "that was there before is as it was; prepare it again."
            )
        raise click.exceptions.Exit(end.code) from None


@data.command("describe")
@click.argument("file", metavar="FILE.h5")
def describe_data(file: str) -> None:
    """Print what a prepared dataset holds."""
    from ensync.cli import describing

    say(lambda: describing.describe_dataset(file))


@data.command("verify", short_help="Check that a dataset is as it was written.")
@click.argument("file", metavar="FILE.h5")
def verify_data(file: str) -> None:
    """Read a prepared dataset and check that every image and label is as it was written.

    \b
      ensync data verify data/digits.h5

    Exit code 2 when something is damaged. Verbs that train or test check the images that they load,
    too.
    """
    from ensync.cli import describing
    from ensync.core.signals import raise_interrupts

    raise_interrupts()
    say_all(lambda: describing.verify(file))


def speaks() -> bool:
    """Tell whether this process prints: rank 0, or any that a person sits at (a shell within a
    Slurm step has its variables).
    """
    return started(os.environ).rank == 0 or os.isatty(0)


def _usage(error: click.ClickException) -> str:
    """Return what is wrong with a command line, and which help tells what is right."""
    message = error.format_message()
    place = getattr(error, "ctx", None)
    return (
        f"{message} See `{place.command_path} --help`."
        if place and "--help" not in message
        else message
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; a mistake costs one sentence, said by rank
    0.
    """
    code, reason = _run(arguments)
    streams.flush()
    if reason and speaks():
        streams.tell(reason)
    return code


def _run(arguments: list[str] | None) -> tuple[int, str]:
    """Run the command line; return its exit code, and what a person should read about it, ""
    when nothing.
    """
    try:
        streams.check_directory()
        return cli.main(arguments, prog_name="ensync", standalone_mode=False) or 0, ""
    except click.exceptions.Exit as stop:
        return stop.exit_code, ""
    except (click.Abort, KeyboardInterrupt):
        return 130, "interrupted"
    except click.ClickException as error:
        return 2, printable(_usage(error))
    except Exception as error:
        known = sentence(error)
        return (
            (known.exit_code, str(known))
            if known
            else (1, "".join(traceback.format_exception(error)).rstrip())
        )
